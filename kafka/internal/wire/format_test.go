package wire_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// The form of messages is frozen: what older releases have written must be read, and older releases must read what this one writes.
// Headers may be added. Change testdata/format.golden by hand, and only to add to it.
func TestTheFormOfMessagesIsFrozen(t *testing.T) {
	var b strings.Builder
	show := func(name string, m *confluent.Message) {
		fmt.Fprintf(&b, "== %s\nkey %q\nvalue %q\n", name, m.Key, m.Value)
		if !m.Timestamp.IsZero() {
			fmt.Fprintf(&b, "time %d\n", m.Timestamp.UnixMilli())
		}
		for _, h := range m.Headers {
			value := string(h.Value)
			if h.Key == "es-meta" { // in any order
				words := strings.Split(value, "\x00")
				pairs := slices.Collect(slices.Chunk(words, 2))
				slices.SortFunc(pairs, slices.Compare)
				value = strings.Join(slices.Concat(pairs...), "\x00")
			}
			fmt.Fprintf(&b, "%s %q\n", h.Key, value)
		}
	}
	topic := "account"
	records := map[string]es.Record{
		"whole": {
			Stream: es.Stream{Kind: "account", ID: "käthe/1"}, Version: 7, Position: 4711, Time: time.UnixMicro(1_795_860_000_123_456).UTC(),
			Type: "deposited", Data: []byte(`{"amount":5}`), Meta: map[string]string{es.MetaCorrelation: "c-1", es.MetaCausation: "c-2", "user": "änne", "tab": "a\tb"},
		},
		"tagged": {
			Stream: es.Stream{Kind: "a", ID: "b"}, Version: 1, Position: 1, Time: time.UnixMicro(1).UTC(), Type: "t", Tags: []string{`a"b`, "käthe", "z"},
		},
		"least": {Stream: es.Stream{Kind: "a", ID: "b"}, Version: 1, Position: 1, Time: time.UnixMicro(1).UTC(), Type: "t"},
	}
	names := map[wire.Encoding]string{wire.CloudEvents: "CloudEvents", wire.Compact: "Compact"}
	for _, encoding := range []wire.Encoding{wire.CloudEvents, wire.Compact} {
		for _, name := range []string{"whole", "least", "tagged"} {
			r := records[name]
			m, err := wire.NewEncoder("STORE", encoding, nil).Encode(&r, &topic, nil)
			if err != nil {
				t.Fatal(err)
			}
			show(names[encoding]+" "+name, m)
			store, back, err := wire.Decode(m)
			if err != nil || store != "STORE" {
				t.Fatalf("%s %s: store %q, %v", names[encoding], name, store, err)
			}
			if diff := cmp.Diff(r, back); diff != "" {
				t.Errorf("%s %s is decoded differently:\n%s", names[encoding], name, diff)
			}
		}
	}
	parked := &confluent.Message{
		TopicPartition: confluent.TopicPartition{Topic: &topic, Partition: 3, Offset: 99},
		Key:            []byte("k"), Value: []byte("v"), Headers: []confluent.Header{{Key: "own", Value: []byte("header")}},
	}
	show("entry parked", wire.NewParked(parked, wire.EntryParked, errors.New("the cause"), 6))
	show("entry behind", wire.NewParked(parked, wire.EntryBehind, nil, 0))
	for _, kind := range []wire.EntryKind{wire.EntryTried, wire.EntryDone, wire.EntryRetry, wire.EntryDrop} {
		show("entry "+string(kind), wire.NewNote("k", kind, 42, errors.New("the cause")))
	}
	golden, err := os.ReadFile("testdata/format.golden")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(golden), b.String()); diff != "" {
		t.Errorf("messages differ from testdata/format.golden:\n%s\n%s", diff, b.String())
	}
}
