package estest

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/thalo-go/es"
)

// TestCodec tests whether a codec keeps events: each comes back equal, with all its fields, under a name that a store takes.
// Give it at least one event of each type, with every field set: a field that is zero comes back right from any codec.
//
// What it cannot test: that names and shapes stay what they were in earlier releases. Keep some stored events for that.
func TestCodec[E any](t testing.TB, codec es.Codec[E], events []E) {
	t.Helper()
	if len(events) == 0 {
		t.Errorf("there are no events to try the codec on: give one of each type")
	}
	for _, event := range events {
		if problem := roundTrip(codec, event); problem != "" {
			t.Errorf("%#v: %s", event, problem)
		}
	}
}

// roundTrip encodes and decodes an event, and says what went wrong.
func roundTrip[E any](codec es.Codec[E], event E) string {
	before := picture(event)
	record, err := codec.Encode(event)
	if err != nil {
		return fmt.Sprintf("Encode returned %v", err)
	}
	if after := picture(event); after != before {
		return "Encode changes the event: it may only read it"
	}
	if err := es.CheckAppends(es.Append{Stream: es.Stream{Kind: "estest", ID: "codec"}, Events: []es.Record{record}}); err != nil {
		return fmt.Sprintf("no store takes what Encode returned: %v", err)
	}
	record.Stream, record.Version, record.Position = es.Stream{Kind: "estest", ID: "codec"}, 1, 1
	given := record
	given.Data = bytes.Clone(record.Data)
	back, err := codec.Decode(given)
	if err != nil {
		return fmt.Sprintf("Decode of %q, %.1000s, returned %v", record.Type, record.Data, err)
	}
	if was, is := reflect.TypeOf(event), reflect.TypeOf(back); was != is {
		return fmt.Sprintf("it is stored as a %q, which comes back as another type, %v: give each type a name of its own", record.Type, is)
	}
	if diff := difference(event, back); diff != "" {
		return fmt.Sprintf("it is stored as the %q %.1000s, which comes back changed (-stored +loaded):\n%s", record.Type, record.Data, diff)
	}
	if !bytes.Equal(given.Data, record.Data) {
		return "Decode changes the data it is given: others may hold it"
	}
	again, err := codec.Encode(back)
	if err != nil {
		return fmt.Sprintf("Encode of what Decode returned returned %v", err)
	}
	if again.Type != record.Type {
		return fmt.Sprintf("its name is %q the first time and %q the second: what is stored has one name, for ever", record.Type, again.Type)
	}
	return ""
}
