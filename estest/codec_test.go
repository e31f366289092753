package estest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/internal/test/recorder"
)

// custom is a codec of two functions.
type custom struct {
	encode func(event any) (es.Record, error)
	decode func(r es.Record) (any, error)
}

func (c custom) codec() *es.Codec[any] { return es.CodecFunc(c.encode, c.decode) }

type (
	moved struct {
		Amount int64
		From   *string
		Tags   []string
		At     time.Time
	}
	secret struct {
		Amount int64
		Pin    string `json:"-"`
	}
)

func TestCodecFindsDefects(t *testing.T) {
	from := "ann"
	whole := moved{7, &from, []string{"a"}, time.Now()}
	data := func(name string) custom {
		return custom{
			encode: func(event any) (es.Record, error) {
				data, err := json.Marshal(event)
				return es.Record{Type: name, Data: data}, err
			},
			decode: func(r es.Record) (any, error) {
				var m moved
				err := json.Unmarshal(r.Data, &m)
				return m, err
			},
		}
	}
	n := 0
	unstable := data("moved")
	encode := unstable.encode
	unstable.encode = func(event any) (es.Record, error) {
		n++
		r, err := encode(event)
		r.Type = fmt.Sprint("moved", n)
		return r, err
	}
	modifies := data("moved")
	modifies.encode = func(event any) (es.Record, error) {
		r, err := encode(event)
		if m, ok := event.(moved); ok {
			*m.From += "!"
		}
		return r, err
	}
	overwrites := data("moved")
	overwrites.decode = func(r es.Record) (any, error) {
		event, err := data("moved").decode(r)
		clear(r.Data)
		return event, err
	}
	refuses := data("moved")
	refuses.decode = func(es.Record) (any, error) { return nil, errors.New("cannot read") }

	for _, test := range []struct {
		name   string
		codec  *es.Codec[any]
		events []any
		texts  []string
	}{
		{"nothing", es.JSON(map[string]any{"moved": moved{}}), []any{whole, moved{}}, nil},
		{"no events", data("moved").codec(), nil, []string{"no events"}},
		{"a field", es.JSON(map[string]any{"secret": secret{}}), []any{secret{1, "1234"}}, []string{`stored as "secret" {"Amount":1}`, "Pin", "1234"}},
		{"a type", data("moved").codec(), []any{whole, &whole}, []string{`stored as "moved"`, "another type, estest_test.moved"}},
		{"an event without a name", es.JSON(map[string]any{"moved": moved{}}), []any{secret{}}, []string{"Encode returned", "unknown event"}},
		{"an event that cannot be read", refuses.codec(), []any{whole}, []string{"Decode of \"moved\"", "cannot read"}},
		{"a name that no store accepts", data("").codec(), []any{whole}, []string{"no store accepts", "event type"}},
		{"a name that changes", unstable.codec(), []any{whole}, []string{`"moved1" at first and "moved2" when it is encoded again`}},
		{"an event that Encode modifies", modifies.codec(), []any{whole}, []string{"Encode modifies the event"}},
		{"data that Decode modifies", overwrites.codec(), []any{whole}, []string{"Decode modifies the data"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			recorder.Fails(t, func(t testing.TB) { estest.TestCodec(t, test.codec, test.events) }, test.texts...)
		})
	}
}
