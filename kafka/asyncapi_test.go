package kafka_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/schema"
)

// TestHeadersAreThoseOfTheAsyncAPIDocument validates the headers of messages against the document that package schema makes.
func TestHeadersAreThoseOfTheAsyncAPIDocument(t *testing.T) {
	schemas, err := schema.JSON(account.Codec)
	if err != nil {
		t.Fatal(err)
	}
	data, err := schema.AsyncAPI("Bank", "1", map[string]map[string][]byte{"bank.account": schemas})
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("http://test/document.json", document); err != nil {
		t.Fatal(err)
	}
	headers, err := c.Compile("http://test/document.json#/components/messages/bank.account.deposited/headers")
	if err != nil {
		t.Fatal(err)
	}
	known := document.(map[string]any)["components"].(map[string]any)["schemas"].(map[string]any)["CloudEvent"].(map[string]any)["properties"].(map[string]any)
	r := es.Record{
		Stream: es.Stream{Kind: "account", ID: "a/1"}, Version: 7, Position: 99, Type: "deposited", Part: 2, Tags: []string{"a", "b"},
		Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Data: []byte(`{"Amount":1}`),
		Meta: map[string]string{es.MetaCorrelation: "c", es.MetaCausation: "d", "user": "eve", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=b"},
	}
	for _, name := range []string{"deposited", "withdrawn"} {
		r.Type = name
		m, err := kafka.CloudEvents.Encode("BANK1", r, "bank.account")
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]any)
		for _, h := range m.Headers {
			got[h.Key] = string(h.Value)
			if known[h.Key] == nil {
				t.Errorf("the document does not know the header %s", h.Key)
			}
		}
		if len(got) != len(known) {
			t.Errorf("%d of %d headers of the document were tested", len(got), len(known))
		}
		if err := headers.Validate(got); (err == nil) != (name == "deposited") {
			t.Errorf("the headers of %s: %v", name, err)
		}
	}
}
