package projection_test

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

type counted struct{ N int }

var countedCodec = es.JSON(map[string]counted{"counted": {}}).Retire("printed")

// noSQL is a transaction of a database that has nothing and forgets everything.
type noSQL struct{ projection.SQL }

func (noSQL) Query(context.Context, string, ...any) iter.Seq2[projection.Row, error] {
	return func(func(projection.Row, error) bool) {}
}

func (noSQL) Exec(context.Context, string, ...any) (int64, error) { return 1, nil }

// Each, Typed and Documents have one rule for records without an event.
func TestRecordsWithoutAnEvent(t *testing.T) {
	var seen []int
	note := func(e counted) { seen = append(seen, e.N) }
	each := projection.Each(countedCodec, func(_ context.Context, _ int, _ es.Record, e counted) error { note(e); return nil })
	typed := projection.Typed(countedCodec, func(_ context.Context, _ es.Record, e counted) error { note(e); return nil })
	handlers := map[string]func(records []es.Record) error{
		"Each": func(records []es.Record) error { return each(t.Context(), 0, records) },
		"Typed": func(records []es.Record) error {
			for _, r := range records {
				if err := typed(t.Context(), r); err != nil {
					return err
				}
			}
			return nil
		},
		"Documents": func(records []es.Record) error {
			d := projection.NewDocuments("counts", countedCodec, func(s []int, e counted) []int {
				note(e)
				return append(s, e.N)
			})
			return d.Handle(t.Context(), noSQL{}, records)
		},
	}
	record := func(eventType, data string) es.Record {
		return es.Record{Stream: es.Stream{Kind: "thing", ID: "1"}, Version: 1, Type: eventType, Data: []byte(data)}
	}
	good := record("counted", `{"N":1}`)
	for name, handle := range handlers {
		for _, test := range []struct {
			what string
			r    es.Record
			is   func(err error) bool
		}{
			{"retired", record("printed", "?"), func(err error) bool { return err == nil }},
			{"redacted", record(es.TypeRedacted, ""), func(err error) bool { return err == nil }},
			{"the note of a redaction", record(es.TypeRedaction, "{}"), func(err error) bool { return err == nil }},
			{"unknown", record("new", "{}"), func(err error) bool {
				var unknown *es.UnknownEventError
				return errors.As(err, &unknown) && unknown.Type == "new"
			}},
			{"damaged", record("counted", "{"), func(err error) bool {
				var unknown *es.UnknownEventError
				return err != nil && !errors.As(err, &unknown)
			}},
		} {
			seen = nil
			if err := handle([]es.Record{good, test.r, good}); !test.is(err) {
				t.Errorf("%s, a record that is %s: %v", name, test.what, err)
			} else if err == nil && len(seen) != 2 {
				t.Errorf("%s, a record that is %s: got %d events, want 2", name, test.what, len(seen))
			}
		}
	}
}
