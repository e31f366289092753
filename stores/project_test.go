package stores_test

import (
	"context"
	"errors"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/internal/test/recorder"
	"github.com/thalo-go/es/projection"
)

func TestProjectAppliesGivenRecords(t *testing.T) {
	each(t, func(t *testing.T, open func() projection.Database) {
		store := open()
		d := newCarts("carts")
		p := projection.SQLProjection{Name: "carts", Prepare: d.Prepare, Handle: d.Handle, Partitions: 3, Batch: 2, Filter: es.Filter{Kinds: []string{"cart"}}}
		is := func(id string, sum int) {
			t.Helper()
			if c, _, err := d.Get(t.Context(), store, id); err != nil || c.Sum != sum {
				t.Errorf("%s has %d, %v: want %d", id, c.Sum, err, sum)
			}
		}
		estest.Project(t, store, p, nil)
		is("a", 0)
		records := estest.Records(t, carts, "cart/a", []cartEvent{put{1}, put{2}, put{3}})
		records = append(records, estest.Records(t, carts, "cart/b", []cartEvent{put{4}})...)
		records = append(records, estest.Records(t, carts, "other/c", []cartEvent{put{5}})...)
		estest.Project(t, store, p, records)
		is("a", 6)
		is("b", 4)
		is("c", 0)
		estest.Project(t, store, p, nil)
		estest.Project(t, store, p, estest.Records(t, carts, "cart/a", []cartEvent{put{10}}))
		is("a", 16)
		if records[0].Position != 0 || records[2].Version != 3 || !records[0].Time.Before(records[1].Time) {
			t.Errorf("the records are %v", records)
		}
	})
}

func TestProjectFailsTheTest(t *testing.T) {
	store := opened(t, "mem:")
	records := estest.Records(t, carts, "cart/a", []cartEvent{put{1}, put{2}})
	for name, p := range map[string]projection.SQLProjection{
		"stops": {Handle: func(context.Context, projection.SQL, []es.Record) error { return errors.New("broken") }},
		"parks": {OnError: es.Park, Handle: func(context.Context, projection.SQL, []es.Record) error { return errors.New("broken") }},
		"hides": {Handle: func(ctx context.Context, tx projection.SQL, _ []es.Record) error {
			_, _ = tx.Exec(ctx, "broken")
			return nil
		}},
	} {
		p.Name = name
		recorder.Fails(t, func(t testing.TB) { estest.Project(t, store, p, records) }, name, "cart/a/1", "broken")
	}
	recorder.Fails(t, func(t testing.TB) { estest.Records(t, carts, "cart", []cartEvent{put{1}}) }, "cart")
	recorder.Fails(t, func(t testing.TB) { estest.Records(t, carts, "cart/a", []cartEvent{nil}) }, "cart/a")
}
