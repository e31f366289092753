package kafka_test

import (
	"encoding/json"
	"fmt"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
)

// The ids are those under which a deployment has registered the schemas.
func ExampleFramed() {
	schemas := map[string]uint32{"deposited": 7}
	relay := &kafka.Relay{
		Prefix: "bank.public",
		Transform: func(r es.Record) ([]kafka.Message, error) {
			schema, public := schemas[r.Type]
			if !public {
				return nil, nil
			}
			return []kafka.Message{{Type: r.Type, Data: kafka.Framed(schema, r.Data), ContentType: "application/vnd.schemaregistry.v1+json"}}, nil
		},
	}
	messages, err := relay.Transform(es.Record{Type: "deposited", Data: []byte(`{"cents":5}`)})
	if err != nil {
		fmt.Println(err)
		return
	}
	schema, data, err := kafka.Unframed(messages[0].Data)
	var event struct{ Cents int }
	fmt.Println(schema, err, json.Unmarshal(data, &event), event.Cents)
	// Output: 7 <nil> <nil> 5
}

// The data is what proto.Marshal returns for a message, here the first one of its file.
func ExampleFramed_protobuf() {
	data := []byte{8, 5} // a message whose field 1 is 5
	framed := kafka.Framed(7, data, 0)
	fmt.Printf("%v\n", framed)
	schema, message, data, err := kafka.UnframedProtobuf(framed)
	fmt.Printf("%v %v %v %v\n", schema, message, data, err)
	// Output:
	// [0 0 0 0 7 0 8 5]
	// 7 [0] [8 5] <nil>
}
