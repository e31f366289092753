package kafka_test

import (
	"encoding/json"
	"fmt"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
)

// A public event says less than the stored one, and has some metadata as headers, by which other programs filter.
func ExampleRelay_transform() {
	relay := &kafka.Relay{
		Prefix: "bank.public",
		Transform: func(r es.Record) ([]kafka.Message, error) {
			if r.Type != "withdrawn" {
				return nil, nil
			}
			var event struct {
				Amount int64  `json:"amount"`
				Note   string `json:"note"` // stays private
			}
			if err := json.Unmarshal(r.Data, &event); err != nil {
				return nil, err
			}
			data, err := json.Marshal(map[string]int64{"cents": event.Amount})
			return []kafka.Message{
				{Type: "bank.moved", Data: data, Headers: map[string]string{"tenant": r.Meta["tenant"]}},
				{Type: "bank.checked", Meta: map[string]string{es.MetaCorrelation: r.Meta[es.MetaCorrelation]}},
			}, err
		},
	}
	messages, err := relay.Transform(es.Record{Type: "withdrawn", Data: []byte(`{"amount":5,"note":"rent"}`), Meta: map[string]string{"tenant": "blue"}})
	for _, m := range messages {
		fmt.Printf("%s %s %v\n", m.Type, m.Data, m.Headers)
	}
	fmt.Println(err)
	// Output:
	// bank.moved {"cents":5} map[tenant:blue]
	// bank.checked  map[]
	// <nil>
}
