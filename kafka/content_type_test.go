package kafka_test

import (
	"cmp"
	"context"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/examples/wallet"
	"github.com/thalo-go/es/examples/wallet/walletpb"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// TestContentTypeIsThatOfTheRecord publishes events of two formats, one of them without any data, and one that no codec knows.
func TestContentTypeIsThatOfTheRecord(t *testing.T) {
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{})
	log := new(es.Mem)
	r := relay(b, log)
	r.Topics.Partitions = 1
	r.ContentType = func(r es.Record) string {
		if r.Stream.Kind == "wallet" {
			return wallet.Codec.ContentType(r)
		}
		return cmp.Or(account.Codec.ContentType(r), "text/plain")
	}
	r.Route = func(es.Record) string { return b.Prefix + ".all" }
	var last es.Position
	put := func(kind string, record es.Record, err error) {
		t.Helper()
		if err == nil {
			last, err = log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: kind, ID: "1"}, Expected: es.AnyVersion, Events: []es.Record{record}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	encode := func(m proto.Message) (es.Record, error) { return wallet.Codec.Encode(m) }
	opened, err := encode(&walletpb.Opened{})
	put("wallet", opened, err)
	spent, err := encode(&walletpb.Spent{Cents: 7, Items: []string{"tea"}})
	put("wallet", spent, err)
	deposited, err := account.Codec.Encode(account.Deposited{Amount: 7})
	put("account", deposited, err)
	put("account", es.Record{Type: "foreign", Data: []byte("x")}, nil)

	run := runRelay(t, r)
	run.reaches(last)
	run.mustStop()
	type message struct {
		ContentType string
		Value       string
		Null        bool
	}
	var got []message
	c := watcher(t, b.Bootstrap, kgo.ConsumeTopics(b.Prefix+".all"))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(got) < 4 && ctx.Err() == nil {
		c.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if r.Attrs.IsControl() {
				return
			}
			m := message{Value: string(r.Value), Null: r.Value == nil}
			for _, h := range r.Headers {
				if h.Key == "content-type" {
					m.ContentType = string(h.Value)
				}
			}
			got = append(got, m)
		})
	}
	want := []message{
		{"application/protobuf", "", false}, // an empty message, which must not be a deletion
		{"application/protobuf", string(spent.Data), false},
		{"application/json", `{"Amount":7}`, false},
		{"text/plain", "x", false},
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	records := streamsOf(published(t, b.Bootstrap, b.Prefix+"."))[es.Stream{Kind: "wallet", ID: "1"}]
	for i, m := range []proto.Message{&walletpb.Opened{}, &walletpb.Spent{Cents: 7, Items: []string{"tea"}}} {
		if i >= len(records) {
			t.Fatalf("%d records of the wallet", len(records))
		}
		if event, err := wallet.Codec.Decode(records[i]); err != nil || !proto.Equal(event, m) {
			t.Errorf("a reader gets %v, %v; want %v", event, err, m)
		}
	}
}
