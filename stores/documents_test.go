package stores_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

type (
	// cart is the state of a document: what was added, in order, and what two streams share.
	cart struct {
		Items []int
		Sum   int
		Note  string
	}
	cartEvent interface{ apply(c cart) cart }
	put       struct{ Item int }
	noted     struct{ Note string }
	emptied   struct{}
)

func (e put) apply(c cart) cart {
	return cart{append(slices.Clip(c.Items), e.Item), c.Sum + e.Item, c.Note}
}
func (e noted) apply(c cart) cart { c.Note = e.Note; return c }
func (emptied) apply(cart) cart   { return cart{Note: "empty"} }

var carts = es.JSON(map[string]cartEvent{"put": put{}, "noted": noted{}, "emptied": emptied{}}).Retire("dropped")

func evolve(c cart, e cartEvent) cart { return e.apply(c) }

// newCarts returns documents with a column of each type.
func newCarts(table string) *projection.Documents[cart, cartEvent] {
	return projection.NewDocuments(table, carts, evolve).
		Column("sum", "bigint", func(c cart) any { return c.Sum }).
		Column(`the "note"`, "text", func(c cart) any { return c.Note }).
		Column("many", "boolean", func(c cart) any { return len(c.Items) > 2 }).
		Column("half", "double precision", func(c cart) any { return float64(c.Sum) / 2 }).
		Column("price", "numeric(20, 0)", func(c cart) any { return c.Sum }).
		Column("at", "timestamptz", func(c cart) any { return time.Unix(int64(c.Sum), 0) }).
		Column("first", "bigint", func(c cart) any {
			if len(c.Items) == 0 {
				return nil
			}
			return c.Items[0]
		}).
		Column("raw", "bytea", func(c cart) any { return []byte(c.Note) })
}

// fill appends random events to a few streams, with some that no document shows.
func fill(t *testing.T, store es.Store, n int) {
	t.Helper()
	for range n {
		var e cartEvent = put{rand.IntN(100)}
		switch rand.IntN(12) {
		case 0:
			e = emptied{}
		case 1:
			e = noted{`'"$1`}
		}
		r, err := carts.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if rand.IntN(9) == 0 {
			r = es.Record{Type: "dropped", Data: []byte("{")}
		}
		stream := es.Stream{Kind: "cart", ID: fmt.Sprint("ü'", rand.IntN(9))}
		if _, err := store.Append(t.Context(), es.Append{Stream: stream, Expected: es.AnyVersion, Events: []es.Record{r}}); err != nil {
			t.Fatal(err)
		}
	}
}

// folded returns the documents that a log results in.
func folded(t *testing.T, store es.Log, d *projection.Documents[cart, cartEvent]) map[string]cart {
	t.Helper()
	want := make(map[string]cart)
	for r, err := range store.All(t.Context(), 0, es.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		event, err := carts.Decode(r)
		if errors.Is(err, es.ErrRetired) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		key := r.Stream.ID
		if d.Key != nil {
			key = d.Key(r, event)
		}
		if key != "" {
			want[key] = event.apply(want[key])
		}
	}
	return want
}

func documents(d *projection.Documents[cart, cartEvent], name string, batch int) projection.SQLProjection {
	return projection.SQLProjection{Name: name, Batch: batch, Once: true, Prepare: d.Prepare, Handle: d.Handle}
}

// In any batches, with a handler that fails after it has written, the documents are those that the log results in.
func TestDocumentsAreWhatTheLogSays(t *testing.T) {
	each(t, func(t *testing.T, open func() projection.Database) {
		store := open()
		d := newCarts(`a "table"`)
		for _, batch := range []int{1, 7, 0} {
			fill(t, store, 60)
			p := documents(d, "carts", batch)
			failed := false
			p.Handle = func(ctx context.Context, tx projection.SQL, records []es.Record) error {
				err := d.Handle(ctx, tx, records)
				if err == nil && !failed {
					failed = true
					return errors.New("after it has written")
				}
				return err
			}
			if err := store.Project(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			want := folded(t, store, d)
			for key, c := range want {
				if got, found, err := d.Get(t.Context(), store, key); err != nil || !found || !reflect.DeepEqual(got, c) {
					t.Errorf("batches of %d: %s is %v, %t, %v: want %v", batch, key, got, found, err, c)
				}
				var sum, price int
				var first *int
				var note, state string
				var many bool
				var half float64
				var at time.Time
				var raw []byte
				err := store.QueryRow(t.Context(), `select sum, "the ""note""", many, half, price, at, first, raw, state->>'Note' from "a ""table""" where key = $1`, key).
					Scan(&sum, &note, &many, &half, &price, &at, &first, &raw, &state)
				switch {
				case err != nil:
					t.Error(err)
				case sum != c.Sum, price != c.Sum, note != c.Note, state != c.Note, string(raw) != c.Note, half != float64(c.Sum)/2, many != (len(c.Items) > 2),
					!at.Equal(time.Unix(int64(c.Sum), 0)), (first == nil) != (len(c.Items) == 0), first != nil && *first != c.Items[0]:
					t.Errorf("the columns of %s, %v, are %d %d %q %q %q %g %t %v %v", key, c, sum, price, note, state, raw, half, many, at, first)
				}
			}
			if n := count(t, store, `select count(*) from "a ""table"""`); int(n) != len(want) {
				t.Errorf("there are %d documents, want %d", n, len(want))
			}
		}
		if _, found, err := d.Get(t.Context(), store, "none"); found || err != nil {
			t.Errorf("a document that does not exist: %t, %v", found, err)
		}
	})
}

// Shards of several workers write the same few documents. Nothing is lost, also of documents that come and go.
func TestDocumentsOfSeveralShards(t *testing.T) {
	each(t, func(t *testing.T, open func() projection.Database) {
		for _, deletes := range []bool{false, true} {
			store := open()
			name := fmt.Sprint("shared_", deletes)
			// Sums do not depend on the order of streams.
			d := projection.NewDocuments(name, carts, func(sum map[string]int, e cartEvent) map[string]int {
				p, is := e.(put)
				if !is {
					return sum
				}
				next := map[string]int{"n": sum["n"] + 1, "sum": sum["sum"] + p.Item}
				if deletes && next["n"] == 2 {
					next["gone"] = 1
				}
				return next
			})
			d.Key = func(_ es.Record, e cartEvent) string {
				if p, is := e.(put); is && p.Item%2 == 0 {
					return fmt.Sprint(p.Item % 4)
				}
				return ""
			}
			if deletes {
				d.Delete = func(sum map[string]int) bool { return sum["n"] > 0 && sum["n"]%2 == 0 }
			}
			fill(t, store, 150)
			all := make(map[string]int)
			for r, err := range store.All(t.Context(), 0, es.Filter{Types: []string{"put"}}) {
				if err != nil {
					t.Fatal(err)
				}
				e, err := carts.Decode(r)
				if err != nil {
					t.Fatal(err)
				}
				all[d.Key(r, e)] += e.(put).Item
				if key := d.Key(r, e); key != "" {
					all["n "+key]++
				}
			}
			ended := make(chan error)
			for range 2 {
				worker := open()
				go func() {
					ended <- worker.Project(t.Context(), projection.SQLProjection{
						Name: name, Partitions: 4, Batch: 3, Once: true, Prepare: d.Prepare, Handle: d.Handle, Lease: 2 * time.Second,
					})
				}()
			}
			for range 2 {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
			for _, key := range []string{"0", "2"} {
				got, found, err := d.Get(t.Context(), store, key)
				if err != nil {
					t.Fatal(err)
				}
				if !deletes && (got["sum"] != all[key] || got["n"] != all["n "+key]) {
					t.Errorf("document %s is %v, want %d in %d", key, got, all[key], all["n "+key])
				}
				// Batches decide when a document is asked about, but every two events remove it or leave an even number.
				if deletes && found && got["n"]%2 != all["n "+key]%2 {
					t.Errorf("document %s has %d events, of %d", key, got["n"], all["n "+key])
				}
				if deletes && !found && all["n "+key]%2 != 0 {
					t.Errorf("document %s is gone, after %d events", key, all["n "+key])
				}
			}
		}
	})
}

func TestDocumentsAreDeleted(t *testing.T) {
	each(t, func(t *testing.T, open func() projection.Database) {
		store := open()
		d := newCarts("carts")
		d.Delete = func(c cart) bool { return c.Note == "empty" }
		apply := func(id string, events ...cartEvent) {
			t.Helper()
			for _, e := range events {
				r, err := carts.Encode(e)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := store.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "cart", ID: id}, Expected: es.AnyVersion, Events: []es.Record{r}}); err != nil {
					t.Fatal(err)
				}
			}
			if err := store.Project(t.Context(), documents(d, "carts", 0)); err != nil {
				t.Fatal(err)
			}
		}
		is := func(id string, want *cart) {
			t.Helper()
			got, found, err := d.Get(t.Context(), store, id)
			if err != nil || found != (want != nil) || found && !reflect.DeepEqual(got, *want) {
				t.Errorf("%s is %v, %t, %v: want %v", id, got, found, err, want)
			}
		}
		apply("a", put{1})
		apply("b", put{2})
		apply("a", put{3})
		is("a", &cart{[]int{1, 3}, 4, ""})
		apply("a", emptied{})
		is("a", nil)
		apply("a", noted{"again"})
		is("a", &cart{nil, 0, "again"})
		apply("a", put{1}, emptied{}, noted{"in one batch"})
		is("a", &cart{nil, 0, "in one batch"})
		apply("c", put{1}, emptied{})
		is("c", nil)
		is("b", &cart{[]int{2}, 2, ""})
	})
}

// More documents than a statement takes are in one batch.
func TestDocumentsOfALargeBatch(t *testing.T) {
	each(t, func(t *testing.T, open func() projection.Database) {
		store := open()
		d := newCarts("carts")
		const n = 2500
		appends := make([]es.Append, 0, 500)
		for i := range n {
			r, err := carts.Encode(put{i})
			if err != nil {
				t.Fatal(err)
			}
			if appends = append(appends, es.Append{Stream: es.Stream{Kind: "cart", ID: fmt.Sprint(i)}, Events: []es.Record{r}}); len(appends) == cap(appends) {
				if _, err := store.Append(t.Context(), appends...); err != nil {
					t.Fatal(err)
				}
				appends = appends[:0]
			}
		}
		if err := store.Project(t.Context(), documents(d, "carts", n)); err != nil {
			t.Fatal(err)
		}
		if got := count(t, store, "select count(*) from carts where sum = first and key = cast(sum as text)"); got != n {
			t.Errorf("%d documents are right, want %d", got, n)
		}
	})
}

// Unknown events wait, as with Each, and a state that a database would change is refused.
func TestDocumentsRefuse(t *testing.T) {
	each(t, func(t *testing.T, open func() projection.Database) {
		store := open()
		add(t, store, "1", 1)
		d := newCarts("carts")
		var unknown *es.UnknownEventError
		if err := store.Project(t.Context(), documents(d, "unknown", 0)); !errors.As(err, &unknown) {
			t.Errorf("got %v, want an UnknownEventError", err)
		}
		numbers := projection.NewDocuments("numbers", es.JSON(map[string]any{"added": put{}}), func(n int64, _ any) int64 { return n + 1 })
		err := store.Project(t.Context(), projection.SQLProjection{Name: "numbers", Once: true, Retries: -1, Prepare: numbers.Prepare, Handle: numbers.Handle})
		if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "bare number") {
			t.Errorf("got %v, want es.ErrInvalid for a bare number", err)
		}
	})
}

func TestDocumentsRefuseNames(t *testing.T) {
	column := func(name, sqlType string) func() {
		return func() { newCarts("carts").Column(name, sqlType, func(cart) any { return nil }) }
	}
	for name, f := range map[string]func(){
		"no name of the table":   func() { newCarts("") },
		"a long name":            func() { newCarts(strings.Repeat("x", 64)) },
		"a NUL in the table":     func() { newCarts("a\x00") },
		"no name of the column":  column("", "text"),
		"a column of Documents":  column("State", "text"),
		"a column twice":         column("SUM", "text"),
		"no type":                column("a", ""),
		"more than a type":       column("a", "text); drop table a; --"),
		"a default with a quote": column("a", "text default 'a'"),
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was taken", name)
				}
			}()
			f()
		}()
	}
}
