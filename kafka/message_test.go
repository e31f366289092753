package kafka_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
)

func encodings(t *testing.T, test func(t *testing.T, encoding kafka.Encoding)) {
	for _, encoding := range []kafka.Encoding{kafka.CloudEvents, kafka.Compact} {
		t.Run(encoding.String(), func(t *testing.T) { test(t, encoding) })
	}
}

// text draws strings that stores accept as names or metadata.
func text(least, most int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		s := rapid.StringN(least, -1, most).Draw(t, "text")
		return strings.ReplaceAll(s, "\x00", "0")
	})
}

func records() *rapid.Generator[es.Record] {
	return rapid.Custom(func(t *rapid.T) es.Record {
		r := es.Record{
			Stream: es.Stream{
				Kind: strings.ReplaceAll(text(1, es.MaxKind).Draw(t, "kind"), "/", "-"),
				ID:   text(1, es.MaxID).Draw(t, "id"),
			},
			Version:  es.Version(rapid.Int64Min(1).Draw(t, "version")),
			Position: es.Position(rapid.Int64Min(1).Draw(t, "position")),
			Time:     time.UnixMicro(rapid.Int64Range(0, 1<<52).Draw(t, "time")).UTC(),
			Type:     text(1, es.MaxType).Draw(t, "type"),
			Data:     rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "data"),
			Meta:     rapid.MapOfN(text(0, 20), text(0, 20), 0, 3).Draw(t, "meta"),
		}
		for _, key := range []string{es.MetaCorrelation, es.MetaCausation} {
			if rapid.Bool().Draw(t, key) {
				r.Meta[key] = text(0, 40).Draw(t, key)
			}
		}
		if len(r.Data) == 0 {
			r.Data = nil
		}
		if len(r.Meta) == 0 {
			r.Meta = nil
		}
		return r
	})
}

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	encodings(t, func(t *testing.T, encoding kafka.Encoding) {
		rapid.Check(t, func(t *rapid.T) {
			const store = "4TQ6ZBDDOOAX2WAKHH6EMHHR53"
			want := records().Draw(t, "record")
			m, err := encoding.Encode(store, want, "bank.account")
			if err != nil {
				t.Fatal(err)
			}
			if string(m.Key) != want.Stream.ID || string(m.Value) != string(want.Data) || m.Value == nil || !m.Timestamp.Equal(want.Time) {
				t.Fatalf("key %q, value %q, timestamp %v; want those of %+v", m.Key, m.Value, m.Timestamp, want)
			}
			from, got, err := kafka.Decode(m)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" || from != store {
				t.Fatalf("decoded from store %q, want %q (-want +got):\n%s", from, store, diff)
			}
		})
	})
}

func TestCloudEventsHeadersAreThoseOfTheSpecification(t *testing.T) {
	m, err := kafka.CloudEvents.Encode("BANK1", es.Record{
		Stream: es.Stream{Kind: "account", ID: "a/1"}, Version: 7, Position: 99, Type: "deposited",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Data: []byte(`{"amount":1}`),
		Meta: map[string]string{es.MetaCorrelation: "c", es.MetaCausation: "d", "user": "eve"},
	}, "bank.account")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, h := range m.Headers {
		got[h.Key] = string(h.Value)
	}
	want := map[string]string{
		"content-type": "application/json", "ce_specversion": "1.0", "ce_id": "account/a/1/7", "ce_source": "BANK1", "ce_type": "deposited",
		"ce_time": "2026-01-02T03:04:05.000006Z", "ce_subject": "account/a/1", "ce_streamversion": "7", "ce_position": "99",
		"ce_correlationid": "c", "ce_causationid": "d", "ce_meta": `{"user":"eve"}`,
	}
	if diff := cmp.Diff(want, got); diff != "" || len(m.Headers) != len(want) {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestCompactHasOneHeaderOrTwo(t *testing.T) {
	r := es.Record{Stream: es.Stream{Kind: "account", ID: "1"}, Version: 7, Position: 99, Type: "deposited", Time: time.UnixMicro(5)}
	m, err := kafka.Compact.Encode("BANK1", r, "bank.account")
	if err != nil || len(m.Headers) != 1 || string(m.Headers[0].Value) != "BANK1\x00account\x00deposited\x0099\x007\x005" {
		t.Errorf("headers %q, %v", m.Headers, err)
	}
	r.Meta = map[string]string{"user": "eve"}
	if m, err = kafka.Compact.Encode("BANK1", r, "bank.account"); err != nil || len(m.Headers) != 2 || string(m.Headers[1].Value) != "user\x00eve" {
		t.Errorf("headers %q, %v", m.Headers, err)
	}
}

func TestDecodeRefusesOtherMessages(t *testing.T) {
	header := func(key, value string) confluent.Header { return confluent.Header{Key: key, Value: []byte(value)} }
	for _, test := range []struct {
		name    string
		key     string
		headers []confluent.Header
	}{
		{"no headers", "1", nil},
		{"other headers", "1", []confluent.Header{header("traceparent", "x")}},
		{"another system's CloudEvent", "1", []confluent.Header{header("ce_source", "/shop"), header("ce_type", "sold"), header("ce_id", "1")}},
		{"an invalid time", "1", []confluent.Header{header("ce_source", "S"), header("ce_time", "noon")}},
		{"too few fields", "1", []confluent.Header{header("es", "S\x00account\x00opened\x001\x001")}},
		{"a position that is not a number", "1", []confluent.Header{header("es", "S\x00account\x00opened\x00one\x001\x001")}},
		{"position 0", "1", []confluent.Header{header("es", "S\x00account\x00opened\x000\x001\x001")}},
		{"version 0", "1", []confluent.Header{header("es", "S\x00account\x00opened\x001\x000\x001")}},
		{"no key", "", []confluent.Header{header("es", "S\x00account\x00opened\x001\x001\x001")}},
		{"no store", "1", []confluent.Header{header("es", "\x00account\x00opened\x001\x001\x001")}},
		{"metadata without its value", "1", []confluent.Header{header("es", "S\x00account\x00opened\x001\x001\x001"), header("es-meta", "a\x00b\x00c")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			topic := "bank.account"
			m := &confluent.Message{TopicPartition: confluent.TopicPartition{Topic: &topic, Partition: 3, Offset: 14}, Key: []byte(test.key), Headers: test.headers}
			_, _, err := kafka.Decode(m)
			if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "bank.account[3]@14") {
				t.Errorf("error %v, want one that wraps ErrInvalid and names the message", err)
			}
		})
	}
}
