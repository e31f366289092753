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
	closed struct{}
	line   struct {
		Price int64
		Name  string
	}
	base  struct{ Number int64 }
	order struct {
		base
		Note  string
		Lines []line
		Total *line
		By    map[string]line
		Next  *order
	}
	texts  struct{ Lists [][]string }
	count  int
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
		{"an event without a name", es.JSON(map[string]any{"moved": moved{}}), []any{whole, secret{}}, []string{"Encode returned", "unknown event"}},
		{"an event that cannot be read", refuses.codec(), []any{whole}, []string{"Decode of \"moved\"", "cannot read"}},
		{"a name that no store accepts", data("").codec(), []any{whole}, []string{"no store accepts", "event type"}},
		{"a name that changes", unstable.codec(), []any{whole}, []string{`"moved1" at first and "moved2" when it is encoded again`}},
		{"an event that Encode modifies", modifies.codec(), []any{whole}, []string{"Encode modifies the event"}},
		{"data that Decode modifies", overwrites.codec(), []any{whole}, []string{"Decode modifies the data"}},
		{"a type without a sample", es.JSON(map[string]any{"moved": moved{}, "closed": closed{}}), []any{whole}, []string{`the event "closed" has no sample`}},
		{"an event with every field zero", es.JSON(map[string]any{"moved": moved{}}), []any{moved{}}, []string{"estest_test.moved: Amount, At, From, Tags: zero or empty in every sample"}},
		{"a field that no sample sets", es.JSON(map[string]any{"order": order{}}), []any{
			order{Note: "x", Lines: []line{{Price: 1}, {}}, Total: &line{Price: 2, Name: "y"}, By: map[string]line{"a": {1, "z"}}, base: base{Number: 1}, Next: &order{}},
		}, []string{"estest_test.order: Lines[].Name: zero or empty in every sample"}},
		{"an empty element", es.JSON(map[string]any{"texts": texts{}}), []any{texts{Lists: [][]string{{}}}}, []string{"estest_test.texts: Lists[]: zero"}},
		{"a plain type that is zero", es.JSON(map[string]any{"count": count(0)}), []any{count(0)}, []string{"estest_test.count: the value: zero"}},
		{"a promise that holds", es.JSON(map[string]any{"texts": texts{}}).Exact("texts"), []any{texts{Lists: [][]string{{"a"}, {}}}, texts{Lists: [][]string{{"b"}, nil}}}, nil},
		{"a promise that does not hold of a time", es.JSON(map[string]any{"moved": moved{}}).Exact(), []any{whole}, []string{`stored as "moved"`, "Exact says that it is equal"}},
		{"fields set in several samples", es.JSON(map[string]any{"moved": moved{}, "closed": closed{}}), []any{
			moved{Amount: 1, From: &from}, moved{At: time.Now(), Tags: []string{"b"}}, closed{},
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			recorder.Fails(t, func(t testing.TB) { estest.TestCodec(t, test.codec, test.events) }, test.texts...)
		})
	}
}
