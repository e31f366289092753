package estest

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
)

// TestCodec tests that events survive encoding and decoding: each is decoded to an equal event, with all its fields,
// and is stored under a name that stores accept.
//
// It requires a sample of each event that the codec names, and each field set in at least one of them, also within nested structs, pointers,
// slices and maps, because a zero field survives any codec. For a codec of [es.CodecFunc], which has no names, it cannot know which samples are missing.
//
// The events that [es.Codec.Exact] is about must be equal in all their parts: an empty slice is no nil one, and a time keeps its zone. Protocol
// buffers are equal if their text forms are.
//
// TestCodec cannot test that names and shapes are those of earlier releases; [TestSchemas] does.
func TestCodec[E any](t testing.TB, codec *es.Codec[E], samples []E) {
	t.Helper()
	if len(samples) == 0 {
		t.Errorf("there are no events to test the codec with: give one of each type")
	}
	for _, event := range samples {
		if problem := roundTrip(codec, event); problem != "" {
			t.Errorf("%#v: %s", event, problem)
		}
	}
	checkSamples(t, codec, samples)
}

// roundTrip encodes and decodes an event. It returns a description of the problem, or "".
func roundTrip[E any](codec *es.Codec[E], event E) string {
	before := picture(event)
	record, err := codec.Encode(event)
	if err != nil {
		return fmt.Sprintf("Encode returned %v", err)
	}
	if after := picture(event); after != before {
		return "Encode modifies the event"
	}
	if err := es.CheckAppends(es.Append{Stream: es.Stream{Kind: "estest", ID: "codec"}, Events: []es.Record{record}}); err != nil {
		return fmt.Sprintf("Encode returned a record that no store accepts: %v", err)
	}
	record.Stream, record.Version, record.Position = es.Stream{Kind: "estest", ID: "codec"}, 1, 1
	given := record
	given.Data = bytes.Clone(record.Data)
	back, err := codec.Decode(given)
	if err != nil {
		return fmt.Sprintf("Decode of %q, %.1000s, returned %v", record.Type, record.Data, err)
	}
	if was, is := reflect.TypeOf(event), reflect.TypeOf(back); was != is {
		return fmt.Sprintf("it is stored as %q, which is decoded to another type, %v: give each type its own name", record.Type, is)
	}
	if diff := difference(event, back); diff != "" {
		return fmt.Sprintf("it is stored as %q %.1000s, which is decoded to another value (-stored +decoded):\n%s", record.Type, record.Data, diff)
	}
	if codec.Form().Exact[record.Type] && picture(event) != picture(back) {
		return fmt.Sprintf("it is stored as %q %.1000s, which is decoded to a value with other parts, although Exact says that it is equal:\n%s", record.Type, record.Data,
			cmp.Diff(strings.Split(picture(event), "\n"), strings.Split(picture(back), "\n")))
	}
	if !bytes.Equal(given.Data, record.Data) {
		return "Decode modifies the data of the record, which may be shared"
	}
	again, err := codec.Encode(back)
	if err != nil {
		return fmt.Sprintf("Encode of the decoded event returned %v", err)
	}
	if again.Type != record.Type {
		return fmt.Sprintf("its name is %q at first and %q when it is encoded again: the name of an event must not change", record.Type, again.Type)
	}
	return ""
}
