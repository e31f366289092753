// Package protobuf stores events as protocol buffers:
//
//	var Codec = protobuf.New(map[string]proto.Message{
//		"opened":   (*walletpb.Opened)(nil),
//		"received": (*walletpb.Received)(nil),
//	})
//
// Events are pointers to generated messages. Nothing may modify one once Decide has returned it or Decode has made it, because states and
// results share it; proto.Clone makes a copy. Compare messages by proto.Equal, not by == or reflect.DeepEqual.
//
// A state had better consist of plain Go values that Evolve takes out of the messages. One that holds messages has no snapshots, because they
// do not survive encoding/json.
//
// What may change about a stored message is what protocol buffers permit: fields may be added, and renamed. The number and the type of
// a field are permanent, and the number of a removed field stays reserved. TestSchemas of package estest checks that.
package protobuf

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/thalo-go/es"
)

// ContentType is the media type of the data.
const ContentType = "application/protobuf"

// New returns a codec that stores each event as a protocol buffer under the name that the map gives for its message. The map holds one
// pointer of each type of message, which may be nil. E is proto.Message, an interface of the program that contains it, or one type of messages.
//
// Unknown fields of stored data are kept in the message. Encode refuses a nil message, text that is not UTF-8, and a message without
// a required field. See [es.NewCodec] for the rest.
//
// New panics on two names for one message, and on messages without generated code.
func New[E proto.Message](events map[string]E) *es.Codec[E] {
	for _, name := range slices.Sorted(maps.Keys(events)) {
		if t := reflect.TypeOf(events[name]); t != nil && descriptor(t) == nil {
			panic(fmt.Sprintf("protobuf: %q, %v, is not a pointer to a generated message", name, t))
		}
	}
	c := es.NewCodec(ContentType, events, marshal, unmarshal)
	f := c.Form()
	f.Schema, f.JSON, f.Fields, f.Sample = schema, toJSON, fields, sample
	return c
}

// descriptor returns the descriptor of a type of messages, or nil if it has none of its own: a type that embeds a message, which would lose
// its other fields, or that of package dynamicpb.
func descriptor(t reflect.Type) (d protoreflect.MessageDescriptor) {
	if t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return nil
	}
	m, isMessage := reflect.TypeAssert[proto.Message](reflect.New(t.Elem()))
	if !isMessage {
		return nil
	}
	defer func() {
		if recover() != nil { // the descriptor is a value of the message
			d = nil
		}
	}()
	if reflect.TypeOf(m.ProtoReflect().Interface()) != t {
		return nil
	}
	return m.ProtoReflect().Descriptor()
}

func marshal(v any) ([]byte, error) {
	// Deterministic, so that one build writes one message in one way.
	return proto.MarshalOptions{Deterministic: true}.Marshal(v.(proto.Message))
}

func unmarshal(data []byte, v any) error {
	m, isMessage := v.(proto.Message)
	if !isMessage {
		return fmt.Errorf("%T is not a message: upcast from a pointer to a generated message", v)
	}
	return proto.Unmarshal(data, m)
}

func toJSON(event any) ([]byte, error) {
	m, isMessage := event.(proto.Message)
	if !isMessage {
		return nil, fmt.Errorf("%T is not a message", event)
	}
	data, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var v json.RawMessage = data
	return json.Marshal(v) // without the random spaces of protojson
}
