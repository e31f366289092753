// Package inlinetest tests projections that run in the transactions of appends. The tests are the same for each SQL backend.
package inlinetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// Store is the store that a backend opens.
type Store[Tx any] interface {
	es.Log
	projection.Projections[Tx]

	// Close closes the store.
	Close() error
}

// Backend is a database to test. Statements have the parameters $1, $2 and so on, in this order.
type Backend[Tx any] struct {
	// Database creates an empty database. Each call of open opens another store on it.
	Database func(t *testing.T) (open Open[Tx], query func(sql string) string)

	// Exec runs a statement in the transaction of a handler.
	Exec func(ctx context.Context, tx Tx, sql string, args ...any) error

	// End ends the transaction of a handler, which handlers must not do.
	End func(ctx context.Context, tx Tx) error

	// Together makes calls of Append that share one transaction, and returns the result of each.
	Together func(ctx context.Context, s Store[Tx], calls [][]es.Append) ([]es.Position, []error)

	// Events is the name of the table of events.
	Events string
}

// Open opens a store with inline projections.
type Open[Tx any] func(inline ...projection.Projection[Tx]) (Store[Tx], error)

// fixture is one database and the test that uses it.
type fixture[Tx any] struct {
	*Backend[Tx]
	*testing.T
	open  Open[Tx]
	query func(sql string) string
}

// Run runs the tests on a backend.
func Run[Tx any](t *testing.T, b Backend[Tx]) {
	for _, c := range []struct {
		name string
		test func(f *fixture[Tx])
	}{
		{"read model and events are written together", together[Tx]},
		{"handlers get the records that readers see", given[Tx]},
		{"appends in one transaction share a call of the handler", sharedCall[Tx]},
		{"failing handler fails only its append", failsAlone[Tx]},
		{"handler that fails on every append fails each", failsAll[Tx]},
		{"panic in a handler fails only its append", panics[Tx]},
		{"refused appends are not handled", notWritten[Tx]},
		{"unique names are unique", unique[Tx]},
		{"several projections all apply an append or none does", several[Tx]},
		{"filter selects records and the checkpoint passes the rest", filtered[Tx]},
		{"more than a batch is handled in several calls", batches[Tx]},
		{"append without events calls no handler", checks[Tx]},
		{"handlers cannot append", handlerAppends[Tx]},
		{"handler that hides an SQL error fails its append", hidden[Tx]},
		{"handler that ends the transaction fails its append", endsTransaction[Tx]},
		{"append whose context ends in the handler is not written", contextEnds[Tx]},
		{"new projection catches up when the store is opened", addedLater[Tx]},
		{"store opens while others append", openedMeanwhile[Tx]},
		{"records of stores without it are applied by the next append", others[Tx]},
		{"many records of stores without it are applied in batches", manyOthers[Tx]},
		{"failing record of another store is named and nothing is written", othersFail[Tx]},
		{"read model agrees while stores with and without it race", racing[Tx]},
		{"Status and WaitFor work as for any projection", status[Tx]},
		{"rebuild starts at the next append", rebuild[Tx]},
		{"new version is a read model of its own", newVersion[Tx]},
		{"Project and inline runs continue from each other", handedOver[Tx]},
		{"projection that cannot run inline is refused", refused[Tx]},
	} {
		t.Run(c.name, func(t *testing.T) {
			open, query := b.Database(t)
			c.test(&fixture[Tx]{&b, t, open, query})
		})
	}
}

// opened opens a store, which must succeed.
func (f *fixture[Tx]) opened(inline ...projection.Projection[Tx]) Store[Tx] {
	f.Helper()
	s, err := f.open(inline...)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := s.Close(); err != nil {
			f.Error(err)
		}
	})
	return s
}

// sums returns a projection that counts the events of each stream and keeps the position of the last. It fails on events of the type bad.
func (f *fixture[Tx]) sums() projection.Projection[Tx] { return f.sumsIn("sums") }

func (f *fixture[Tx]) sumsIn(table string) projection.Projection[Tx] {
	return projection.Projection[Tx]{
		Name: table,
		Prepare: func(ctx context.Context, tx Tx) error {
			return errors.Join(
				f.Exec(ctx, tx, "create table if not exists "+table+" (id text primary key, n bigint not null, last bigint not null)"),
				f.Exec(ctx, tx, "delete from "+table))
		},
		Handle: func(ctx context.Context, tx Tx, records []es.Record) error {
			for _, r := range records {
				if r.Type == "bad" {
					return &badError{r.ID()}
				}
				err := f.Exec(ctx, tx, "insert into "+table+" (id, n, last) values ($1, 1, $2) on conflict (id) do update set n = "+table+".n + 1, last = excluded.last",
					r.Stream.ID, int64(r.Position))
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

type badError struct{ id string }

func (e *badError) Error() string { return e.id + " is bad" }

// differences returns the number of streams whose row in the read model differs from their events, in one consistent read.
func (f *fixture[Tx]) differences() string { return f.differencesIn("sums") }

func (f *fixture[Tx]) differencesIn(table string) string {
	return f.query(`select coalesce(sum(case when n = m and last = l then 0 else 1 end), 0) from (
		select a.id, a.n, a.last, coalesce(b.n, 0) as m, coalesce(b.last, 0) as l from
			(select id, count(*) as n, max(position) as last from ` + f.Events + ` group by id) a left join ` + table + ` b on b.id = a.id
		union all select id, 0, 0, n, last from ` + table + ` where id not in (select id from ` + f.Events + `)) as x`)
}

// agrees fails the test if the read model differs from the events.
func (f *fixture[Tx]) agrees() {
	f.Helper()
	if n := f.differences(); n != "0" {
		f.Fatalf("%s streams differ between the read model and the log:\n%s\n%s", n,
			f.query("select id || ' ' || n || ' ' || last from sums order by id"), f.query("select position || ' ' || kind || ' ' || id || ' ' || version from "+f.Events+" order by position"))
	}
}

func stream(id string) es.Stream { return es.Stream{Kind: "account", ID: id} }

func event(kind, data string) es.Record { return es.Record{Type: kind, Data: []byte(data)} }

// at returns an Append of one event of a type at a version.
func at(id string, version es.Version, kind string) es.Append {
	return es.Append{Stream: stream(id), Expected: version, Events: []es.Record{event(kind, id)}}
}

// many returns an Append of n events at any version.
func many(id string, n int) es.Append {
	a := es.Append{Stream: stream(id), Expected: es.AnyVersion}
	for i := range n {
		a.Events = append(a.Events, event("good", fmt.Sprint(i)))
	}
	return a
}

func (f *fixture[Tx]) append(s es.Store, appends ...es.Append) es.Position {
	f.Helper()
	position, err := s.Append(f.Context(), appends...)
	if err != nil {
		f.Fatal(err)
	}
	return position
}

func (f *fixture[Tx]) all(s es.Log) []es.Record {
	f.Helper()
	var records []es.Record
	for r, err := range s.All(f.Context(), 0, es.Filter{}) {
		if err != nil {
			f.Fatal(err)
		}
		records = append(records, r)
	}
	return records
}

// tape records the records that a handler got.
type tape struct {
	mu    sync.Mutex
	calls [][]es.Record
}

// on returns the projection with its calls recorded on a tape.
func on[Tx any](p projection.Projection[Tx], t *tape) projection.Projection[Tx] {
	handle := p.Handle
	p.Handle = func(ctx context.Context, tx Tx, records []es.Record) error {
		t.mu.Lock()
		t.calls = append(t.calls, records)
		t.mu.Unlock()
		return handle(ctx, tx, records)
	}
	return p
}

func (t *tape) records() []es.Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Concat(t.calls...)
}

func (t *tape) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls = nil
}

// same compares records. Missing and empty data are equal.
func (f *fixture[Tx]) same(got, want []es.Record) {
	f.Helper()
	for _, records := range [][]es.Record{got, want} {
		for i := range records {
			if len(records[i].Data) == 0 {
				records[i].Data = nil
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.Errorf("the handler got other records than readers (-read +handled):\n%s", diff)
	}
}

func together[Tx any](f *fixture[Tx]) {
	s := f.opened(f.sums())
	f.agrees()
	f.append(s, at("a", 0, "good"))
	f.agrees()
	f.append(s, at("a", 1, "good"), at("b", 0, "good"), at("a", 2, "good"))
	f.agrees()
	f.append(s, many("b", 20), many("new", 1))
	f.agrees()
	repo := es.NewRepo(s, "account", counter{}, es.JSON(map[string]counted{"counted": {}}))
	for range 3 {
		if _, err := repo.Execute(f.Context(), "c", 1); err != nil {
			f.Fatal(err)
		}
		f.agrees()
	}
	if n := f.query("select cast(sum(n) as bigint) from sums"); n != "28" {
		f.Errorf("the read model counts %s events, want 28", n)
	}
}

func given[Tx any](f *fixture[Tx]) {
	var tape tape
	s := f.opened(on(f.sums(), &tape))
	f.append(s, at("a", 0, "good"))
	f.append(s, many("any", 3))
	f.append(s, es.Append{Stream: stream("b"), Expected: 0, Events: []es.Record{
		{Type: "meta", Meta: map[string]string{"user": "ann", "": "x"}}, {Type: "empty", Data: []byte{}, Meta: map[string]string{}}, {Type: "bytes", Data: []byte{0, 255, '\n'}},
	}}, at("a", 1, "good"), at("b", 3, "good"), es.Append{Stream: stream("c"), Expected: 0, Command: "once", Events: []es.Record{event("x", "1"), event("y", "2")}})
	f.Together(f.Context(), s, [][]es.Append{{at("a", 2, "one")}, {at("a", 2, "lost")}, {many("a", 2)}, {at("new", 0, "first"), at("a", 5, "two")}, {at("new", 0, "lost")}})
	data := []byte("as it was")
	f.append(s, es.Append{Stream: stream("memory"), Expected: 0, Events: []es.Record{{Type: "t", Data: data}}})
	copy(data, "OVERWRITE")
	f.same(tape.records(), f.all(s))
	f.agrees()
}

func sharedCall[Tx any](f *fixture[Tx]) {
	var tape tape
	s := f.opened(on(f.sums(), &tape))
	var calls [][]es.Append
	for i := range 40 {
		calls = append(calls, []es.Append{at(fmt.Sprint(i), 0, "good")})
	}
	_, errs := f.Together(f.Context(), s, calls)
	if err := errors.Join(errs...); err != nil {
		f.Fatal(err)
	}
	if len(tape.calls) != 1 {
		f.Errorf("the handler was called %d times", len(tape.calls))
	}
	f.agrees()
}

func failsAlone[Tx any](f *fixture[Tx]) {
	s := f.opened(f.sums())
	f.append(s, at("old", 0, "good"))
	var calls [][]es.Append
	bad := map[int]bool{0: true, 7: true, 20: true, 21: true, 31: true}
	for i := range 32 {
		switch {
		case i == 21: // in the middle of a call
			calls = append(calls, []es.Append{at("x", 0, "good"), at(fmt.Sprint(i), 0, "bad"), at("y", 0, "good")})
		case bad[i]:
			calls = append(calls, []es.Append{at(fmt.Sprint(i), 0, "bad")})
		default:
			calls = append(calls, []es.Append{at(fmt.Sprint(i), 0, "good"), at("old", es.AnyVersion, "good")})
		}
	}
	calls[8] = []es.Append{at("7", 1, "good")} // decided on an append that is not written
	positions, errs := f.Together(f.Context(), s, calls)
	last := es.Position(1)
	for i, err := range errs {
		var failed *badError
		var conflict *es.ConflictError
		switch {
		case bad[i]:
			if !errors.As(err, &failed) || failed.id != "account/"+fmt.Sprint(i)+"/1" || positions[i] != 0 || !strings.Contains(err.Error(), "sums") {
				f.Errorf("append %d, on which the handler fails, returned %d, %v", i, positions[i], err)
			}
		case i == 8:
			if !errors.As(err, &conflict) {
				f.Errorf("an append after one that failed returned %v, want a conflict", err)
			}
		default:
			if err != nil || positions[i] != last+2 {
				f.Errorf("append %d, on which the handler does not fail, returned %d, %v; want %d", i, positions[i], err, last+2)
			}
			last += 2
		}
	}
	f.agrees()
	if got := len(f.all(s)); got != int(last) {
		f.Errorf("the log has %d records, want %d", got, last)
	}
	f.append(s, at("7", 0, "good"))
	f.agrees()
}

func failsAll[Tx any](f *fixture[Tx]) {
	s := f.opened(f.sums())
	var calls [][]es.Append
	for i := range 9 {
		calls = append(calls, []es.Append{at(fmt.Sprint(i), 0, "bad")})
	}
	_, errs := f.Together(f.Context(), s, calls)
	for i, err := range errs {
		if failed := (*badError)(nil); !errors.As(err, &failed) || failed.id != "account/"+fmt.Sprint(i)+"/1" {
			f.Errorf("append %d returned %v", i, err)
		}
	}
	if got := f.all(s); len(got) > 0 {
		f.Errorf("the log has %v", got)
	}
	f.append(s, at("0", 0, "good"))
	f.agrees()
}

func panics[Tx any](f *fixture[Tx]) {
	p := f.sums()
	handle := p.Handle
	p.Handle = func(ctx context.Context, tx Tx, records []es.Record) error {
		if err := handle(ctx, tx, records); err != nil {
			panic(err)
		}
		return nil
	}
	s := f.opened(p)
	_, errs := f.Together(f.Context(), s, [][]es.Append{{at("a", 0, "good")}, {at("b", 0, "bad")}, {at("c", 0, "good")}})
	var failed *es.PanicError
	var bad *badError
	if !errors.As(errs[1], &failed) || !errors.As(errs[1], &bad) || !strings.Contains(string(failed.Stack), "inlinetest") {
		f.Errorf("the append on which the handler panics returned %v", errs[1])
	}
	if err := errors.Join(errs[0], errs[2]); err != nil {
		f.Error(err)
	}
	f.agrees()
}
