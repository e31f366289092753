package kafka_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
)

// The bytes are those of Confluent's documentation of the wire format.
func TestTheWireFormatOfASchemaRegistry(t *testing.T) {
	for name, c := range map[string]struct {
		message []int
		want    []byte
	}{
		"JSON Schema":                     {nil, []byte{0, 0, 1, 226, 64, '{', '}'}},
		"the first message of a file":     {[]int{0}, []byte{0, 0, 1, 226, 64, 0, '{', '}'}},
		"the second message of a file":    {[]int{1}, []byte{0, 0, 1, 226, 64, 2, 2, '{', '}'}},
		"a nested message: the array 1 0": {[]int{1, 0}, []byte{0, 0, 1, 226, 64, 4, 2, 0, '{', '}'}},
	} {
		framed := kafka.Framed(123456, []byte("{}"), c.message...)
		if !bytes.Equal(framed, c.want) {
			t.Errorf("%s: %v, want %v", name, framed, c.want)
		}
		var schema uint32
		var message []int
		var data []byte
		var err error
		if c.message == nil {
			schema, data, err = kafka.Unframed(framed)
		} else {
			schema, message, data, err = kafka.UnframedProtobuf(framed)
		}
		if schema != 123456 || string(data) != "{}" || !slices.Equal(message, c.message) || err != nil {
			t.Errorf("%s: read back %d, %v, %q, %v", name, schema, message, data, err)
		}
	}
}

func FuzzUnframed(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 4, 2, 0, 7})
	f.Add([]byte{0, 0, 0, 0, 1, 0x81})
	f.Add([]byte(`{"not":"framed"}`))
	f.Fuzz(func(t *testing.T, framed []byte) {
		schema, message, data, err := kafka.UnframedProtobuf(framed)
		if err != nil {
			if !errors.Is(err, es.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if len(message) == 0 {
			t.Fatal("no message number")
		}
		again := kafka.Framed(schema, data, message...)
		if s, m, d, err := kafka.UnframedProtobuf(again); s != schema || !slices.Equal(m, message) || !bytes.Equal(d, data) || err != nil {
			t.Fatalf("%v comes back as %v", framed, again)
		}
	})
}
