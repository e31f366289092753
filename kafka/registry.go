package kafka

import (
	"encoding/binary"

	"github.com/thalo-go/es/kafka/internal/client"
)

// Framed returns data in the wire format of Confluent's schema registry: a zero byte, the id of the schema in four bytes, and the data.
// It is for [Message.Data], or for a codec. For Protobuf, message is the number of the message's type in its file, and the numbers of nested
// types follow; the first type of a file is 0. For JSON Schema and Avro there is none. Nothing is asked of a registry.
func Framed(schema uint32, data []byte, message ...int) []byte {
	framed := binary.BigEndian.AppendUint32([]byte{0}, schema)
	switch {
	case len(message) == 1 && message[0] == 0:
		framed = append(framed, 0) // short for a list of one zero
	case len(message) > 0:
		framed = binary.AppendVarint(framed, int64(len(message)))
		for _, number := range message {
			framed = binary.AppendVarint(framed, int64(number))
		}
	}
	return append(framed, data...)
}

// Unframed returns the schema id and the data of what [Framed] returns. The error wraps [es.ErrInvalid].
func Unframed(framed []byte) (schema uint32, data []byte, err error) {
	if len(framed) < 5 || framed[0] != 0 {
		return 0, nil, client.Invalid("data of %d bytes has no schema id: it begins with a zero byte and four bytes", len(framed))
	}
	return binary.BigEndian.Uint32(framed[1:]), framed[5:], nil
}

// UnframedProtobuf is [Unframed] for Protobuf, and also returns the number of the message's type in its file, with those of nested types.
func UnframedProtobuf(framed []byte) (schema uint32, message []int, data []byte, err error) {
	schema, data, err = Unframed(framed)
	if err != nil {
		return 0, nil, nil, err
	}
	next := func() int64 {
		n, read := binary.Varint(data)
		if read <= 0 {
			err = client.Invalid("data of schema %d has no message number", schema)
			return 0
		}
		data = data[read:]
		return n
	}
	count := next()
	if count == 0 && err == nil {
		return schema, []int{0}, data, nil
	}
	if count < 0 || count > int64(len(data)) {
		err = client.Invalid("data of schema %d has %d message numbers", schema, count)
	}
	for range count {
		if err != nil {
			break
		}
		message = append(message, int(next()))
	}
	if err != nil {
		return 0, nil, nil, err
	}
	return schema, message, data, nil
}
