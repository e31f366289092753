package schema_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/examples/wallet"
	"github.com/thalo-go/es/examples/wallet/walletpb"
	"github.com/thalo-go/es/protobuf"
	"github.com/thalo-go/es/schema"
)

// An order has a part of every kind.
type (
	orderEvent any
	placed     struct {
		Customer string `json:"customer"`
		Lines    []line
		At       time.Time
		Paid     *line            `json:",omitempty"`
		By       map[string]int64 `json:",omitempty"`
		Seal     []byte
		Quoted   int64 `json:",string"`
		Any      any
		Place    [2]float64
		Note     remark
		Group    group
	}
	line struct {
		Item  string
		Price uint8
	}
	group struct {
		Name   string
		Groups []group
	}
	remark string
	count  int32
)

var orders = es.JSON(map[string]orderEvent{"placed": placed{}, "counted": count(0), "grouped": group{}})

func schemasOf[E any](t *testing.T, codec *es.Codec[E]) map[string][]byte {
	t.Helper()
	schemas, err := schema.JSON(codec)
	if err != nil {
		t.Fatal(err)
	}
	return schemas
}

// compile compiles a schema, which is checked by that of its draft. at is a place in it.
func compile(t *testing.T, data []byte, at string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("http://test/schema.json", parsed(t, data)); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("http://test/schema.json" + at)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	return s
}

func parsed(t *testing.T, data []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	return v
}

func TestSchemasAcceptTheEvents(t *testing.T) {
	schemas := schemasOf(t, orders)
	if len(schemas) != 3 || !strings.Contains(string(schemas["placed"]), `"https://json-schema.org/draft/2020-12/schema"`) {
		t.Fatalf("the schemas are %s", schemas)
	}
	for _, event := range []orderEvent{
		placed{}, count(-7), group{}, group{"a", []group{{"b", []group{{"c", nil}}}}},
		placed{"Ann", []line{{"tea", 255}}, time.Now(), &line{}, map[string]int64{"a": 1 << 60}, []byte{1}, 1 << 62, map[string]any{"x": 1}, [2]float64{1, 1e300}, "!", group{"a", []group{{}}}},
	} {
		r, err := orders.Encode(event)
		if err != nil {
			t.Fatal(err)
		}
		if err := compile(t, schemas[r.Type], "").Validate(parsed(t, r.Data)); err != nil {
			t.Errorf("%s: %v", r.Data, err)
		}
	}
	for name, data := range map[string]string{
		"placed":  `{"customer":7,"Lines":null,"At":"2026-01-02T03:04:05Z","Seal":null,"Quoted":"1","Any":null,"Place":[1,2],"Note":"","Group":{"Name":"","Groups":null}}`,
		"counted": `2147483648`,
		"grouped": `{"Name":"a","Groups":[{"Name":"b","Groups":[{"Name":7,"Groups":null}]}]}`,
	} {
		if compile(t, schemas[name], "").Validate(parsed(t, []byte(data))) == nil {
			t.Errorf("%s accepts %s", name, data)
		}
	}
}

func TestSchemasOfMessagesAcceptTheirJSON(t *testing.T) {
	schemas := schemasOf(t, wallet.Codec)
	for _, m := range []proto.Message{
		&walletpb.Opened{}, &walletpb.Spent{Cents: 1 << 60, Items: []string{"tea"}, Reason: 99},
		&walletpb.Received{Source: &walletpb.Received_Transfer{Transfer: &walletpb.Transfer{Notes: map[string]string{"a": "b"}}}},
	} {
		r, err := wallet.Codec.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		data, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := compile(t, schemas[r.Type], "").Validate(parsed(t, data)); err != nil {
			t.Errorf("%s: %v", data, err)
		}
		if !strings.Contains(string(schemas[r.Type]), protobuf.ContentType) {
			t.Errorf("%s does not say how the data is stored", schemas[r.Type])
		}
	}
	if compile(t, schemas["received"], "").Validate(parsed(t, []byte(`{"transfer":{"notes":{"a":7}}}`))) == nil {
		t.Error("a note that is a number is accepted")
	}
}

func TestACodecWithoutNamesHasNoSchemas(t *testing.T) {
	functions := es.CodecFunc(func(any) (es.Record, error) { return es.Record{}, nil }, func(es.Record) (any, error) { return nil, nil })
	if _, err := schema.JSON(functions); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("JSON returned %v", err)
	}
}

// asyncAPI is the schema of AsyncAPI 3.0 documents.
func asyncAPI(t *testing.T) *jsonschema.Schema {
	t.Helper()
	f, err := os.Open("testdata/asyncapi-3.0.0.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(z)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("http://test/asyncapi.json", v); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("http://test/asyncapi.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAsyncAPIDocumentsAreValid(t *testing.T) {
	document, err := schema.AsyncAPI("Bank", "1.0.0", map[string]map[string][]byte{
		"bank.account": schemasOf(t, account.Codec), "bank.wallet": schemasOf(t, wallet.Codec),
		"bank/order": schemasOf(t, orders), "bank_order": {"placed it": schemasOf(t, orders)["placed"], "placed_it": schemasOf(t, orders)["placed"]},
	})
	if err != nil {
		t.Fatal(err)
	}
	valid := asyncAPI(t)
	if err := valid.Validate(parsed(t, document)); err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	for _, change := range [][2]string{{`"action": "send"`, `"action": "publish"`}, {`"address"`, `"topic"`}, {`"3.0.0"`, `"2.0.0"`}, {`"type": "integer"`, `"type": "int"`}} {
		if broken := strings.Replace(string(document), change[0], change[1], 1); valid.Validate(parsed(t, []byte(broken))) == nil {
			t.Errorf("a document with %s is valid, so this test says nothing", change[1])
		}
	}
	var d struct {
		Channels map[string]struct {
			Address  string
			Messages map[string]struct {
				Ref string `json:"$ref"`
			}
		}
		Operations map[string]struct {
			Messages []struct {
				Ref string `json:"$ref"`
			}
		}
		Components struct {
			Messages map[string]struct{ Name, ContentType string }
		}
	}
	if err := json.Unmarshal(document, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Channels) != 4 || len(d.Operations) != 4 || d.Channels["bank_order"].Address == d.Channels["bank_order_2"].Address {
		t.Errorf("the channels are %v", d.Channels)
	}
	for reference := range references(parsed(t, document)) {
		if at(parsed(t, document), reference) == nil {
			t.Errorf("%s leads nowhere", reference)
		}
	}
	if m := d.Components.Messages["bank.wallet.spent"]; m.ContentType != protobuf.ContentType || m.Name != "spent" {
		t.Errorf("the message of a protocol buffer is %+v", m)
	}
	good := `{"Name":"a","Groups":[{"Name":"b","Groups":null}]}`
	payload := compile(t, document, "#/components/schemas/bank_order.grouped")
	if err := payload.Validate(parsed(t, []byte(good))); err != nil {
		t.Error(err)
	}
	if payload.Validate(parsed(t, []byte(strings.Replace(good, `"b"`, "7", 1)))) == nil {
		t.Error("the payload accepts a group within a group whose name is a number")
	}
}

// references returns all references in a document.
func references(v any) map[string]bool {
	found := make(map[string]bool)
	var look func(v any)
	look = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, inner := range v {
				if text, isText := inner.(string); isText && key == "$ref" {
					found[text] = true
				}
				look(inner)
			}
		case []any:
			for _, inner := range v {
				look(inner)
			}
		}
	}
	look(v)
	return found
}

// at returns what a reference leads to.
func at(v any, reference string) any {
	for name := range strings.SplitSeq(strings.TrimPrefix(reference, "#/"), "/") {
		m, isObject := v.(map[string]any)
		if !isObject {
			return nil
		}
		v = m[name]
	}
	return v
}

func TestAsyncAPIRefuses(t *testing.T) {
	good := map[string]map[string][]byte{"bank": {"opened": []byte(`{}`)}}
	for name, test := range map[string]struct {
		title, version string
		topics         map[string]map[string][]byte
		says           string
	}{
		"no title":                    {"", "1", good, "title"},
		"no version":                  {"Bank", "", good, "version"},
		"no topics":                   {"Bank", "1", nil, "topics"},
		"a topic without a name":      {"Bank", "1", map[string]map[string][]byte{"": good["bank"]}, "name"},
		"a topic without events":      {"Bank", "1", map[string]map[string][]byte{"bank": nil}, "topic bank: it needs"},
		"a schema that is not JSON":   {"Bank", "1", map[string]map[string][]byte{"bank": {"opened": []byte("{")}}, "event opened"},
		"a schema that is no object":  {"Bank", "1", map[string]map[string][]byte{"bank": {"opened": []byte("[]")}}, "no JSON object"},
		"a schema with another after": {"Bank", "1", map[string]map[string][]byte{"bank": {"opened": []byte("{}{}")}}, "more after"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := schema.AsyncAPI(test.title, test.version, test.topics); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("AsyncAPI returned %v, which does not say %q", err, test.says)
			}
		})
	}
}

// TestDocumentsAreTheSameEachTime keeps files of them from changing in version control.
func TestDocumentsAreTheSameEachTime(t *testing.T) {
	topics := map[string]map[string][]byte{"a": schemasOf(t, orders), "b": schemasOf(t, wallet.Codec), "a_b": schemasOf(t, account.Codec), "a-b": schemasOf(t, account.Codec)}
	var documents []string
	for range 5 {
		document, err := schema.AsyncAPI("Bank", "1", topics)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, string(document))
	}
	if len(slices.Compact(documents)) != 1 {
		t.Error("the documents differ")
	}
}
