package kafka_test

import (
	"errors"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
)

// FuzzDecode looks for a message that makes Decode panic, that it decodes to a record no store accepts, or whose record changes when it is encoded and decoded again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("1"), []byte(`{"amount":1}`), "es", []byte("BANK1\x00account\x00deposited\x0099\x007\x005"), "es-meta", []byte("user\x00eve"), "x", []byte(""))
	f.Add([]byte("1"), []byte(nil), "es", []byte("BANK1\x00account\x00deposited\x00-1\x007\x005"), "es-meta", []byte("user"), "es-meta", []byte("\x00"))
	f.Add([]byte("a/1"), []byte("x"), "ce_subject", []byte("account/a/1"), "ce_meta", []byte(`{"user":"eve"}`), "ce_type", []byte("depo\x00sited"))
	f.Add([]byte(nil), []byte("x"), "ce_time", []byte("2026-01-02T03:04:05.000006Z"), "ce_streamversion", []byte("0x7"), "ce_position", []byte("99"))
	f.Add([]byte("9"), []byte("x"), "ce_correlationid", []byte("\xff"), "ce_causationid", []byte(""), "ce_source", []byte("BANK\xff"))
	f.Fuzz(func(t *testing.T, key, value []byte, name1 string, value1 []byte, name2 string, value2 []byte, name3 string, value3 []byte) {
		given := []confluent.Header{{Key: name1, Value: value1}, {Key: name2, Value: value2}, {Key: name3, Value: value3}}
		decodes(t, &confluent.Message{Key: key, Value: value, Headers: given})
		// With the headers that an event must have; the given ones override some of them.
		whole := []confluent.Header{
			{Key: "ce_source", Value: []byte("BANK1")}, {Key: "ce_type", Value: []byte("deposited")}, {Key: "ce_subject", Value: append([]byte("account/"), key...)},
			{Key: "ce_time", Value: []byte("2026-01-02T03:04:05.000006Z")}, {Key: "ce_streamversion", Value: []byte("7")}, {Key: "ce_position", Value: []byte("99")},
		}
		decodes(t, &confluent.Message{Key: key, Value: value, Headers: append(whole, given...)})
	})
}

// decodes decodes a message and checks the guarantees of Decode.
func decodes(t *testing.T, m *confluent.Message) {
	store, r, err := kafka.Decode(m)
	if err != nil {
		if !errors.Is(err, es.ErrInvalid) {
			t.Errorf("%v: want an error that wraps es.ErrInvalid", err)
		}
		return
	}
	if err := es.CheckAppends(es.Append{Stream: r.Stream, Expected: es.AnyVersion, Events: []es.Record{r}}); err != nil && len(r.Data) <= es.MaxData {
		t.Errorf("%+v is a record that no store accepts: %v", r, err)
	}
	if r.Time.Nanosecond()%1000 != 0 || r.Time.Location() != time.UTC {
		t.Errorf("the time %v is not in UTC and whole microseconds", r.Time)
	}
	for _, encoding := range []kafka.Encoding{kafka.CloudEvents, kafka.Compact} {
		again, err := encoding.Encode(store, r, "bank.account")
		if err != nil {
			t.Fatalf("%+v cannot be written: %v", r, err)
		}
		from, back, err := kafka.Decode(again)
		if err != nil {
			t.Fatalf("%+v cannot be read back: %v", r, err)
		}
		if diff := cmp.Diff(r, back); diff != "" || from != store {
			t.Errorf("%v, read back: store %q, was %q %s", encoding, from, store, diff)
		}
	}
}
