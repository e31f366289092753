package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
)

// A ledger records the results of Append and compares the database with them, on its own connection.
type ledger struct {
	mu      sync.Mutex
	said    map[string]verdict // by the name of the append, which is the data of its only record
	written int
}

type verdict struct {
	position es.Position
	err      error
}

func newLedger() *ledger { return &ledger{said: make(map[string]verdict)} }

// named returns an append of one event with a name.
func named(name string, stream es.Stream, expected es.Version) es.Append {
	return es.Append{Stream: stream, Expected: expected, Events: []es.Record{{Type: "named", Data: []byte(name)}}}
}

// append appends an event with a unique name and records the result.
func (l *ledger) append(ctx context.Context, s es.Store, a es.Append) error {
	position, err := s.Append(ctx, a)
	l.note(a, position, err)
	return err
}

// note records the result of an append.
func (l *ledger) note(a es.Append, position es.Position, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said[string(a.Events[0].Data)] = verdict{position, err}
	if err == nil {
		l.written++
	}
}

// count returns the number of acknowledged appends.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written
}

// forget drops the acknowledged appends after a position, because the database has lost them.
func (l *ledger) forget(after es.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.said, func(_ string, said verdict) bool { return said.err == nil && said.position > after })
}

// unknown returns the number of appends that returned es.ErrUnknownOutcome.
func (l *ledger) unknown() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, said := range l.said {
		if errors.Is(said.err, es.ErrUnknownOutcome) {
			n++
		}
	}
	return n
}

// check compares a database with the ledger. Acknowledged appends are there once, at their acknowledged positions. Refused ones are not
// there. Unknown ones are there at most once. Nothing else is there. Positions and versions are dense.
func (l *ledger) check(t testing.TB, url string) {
	t.Helper()
	found := make(map[string][]es.Position)
	heads := make(map[es.Stream]es.Version)
	for i, r := range stored(t, url) {
		heads[r.Stream]++
		if r.Position != es.Position(i+1) || r.Version != heads[r.Stream] {
			t.Fatalf("row %d is %s at position %d: want version %d at position %d", i+1, r.ID(), r.Position, heads[r.Stream], i+1)
		}
		found[string(r.Data)] = append(found[string(r.Data)], r.Position)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, said := range l.said {
		at := found[name]
		delete(found, name)
		switch {
		case said.err == nil:
			if !slices.Equal(at, []es.Position{said.position}) {
				t.Errorf("%s was acknowledged at position %d, and is at %v", name, said.position, at)
			}
		case errors.Is(said.err, es.ErrUnknownOutcome):
			if len(at) > 1 {
				t.Errorf("%s is there more than once, at %v: %v", name, at, said.err)
			}
		case len(at) > 0:
			t.Errorf("%s is there, at %v, although Append returned %v", name, at, said.err)
		}
	}
	for name, at := range found {
		t.Errorf("%q is there, at %v, and was never appended", name, at)
	}
}

// stored reads the table without the store.
func stored(t testing.TB, url string) []es.Record {
	t.Helper()
	rows, err := connect(t, url).Query(t.Context(), "select position, kind, id, version, data from es.events order by position")
	if err != nil {
		t.Fatal(err)
	}
	records, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r es.Record, err error) {
		return r, row.Scan(&r.Position, &r.Stream.Kind, &r.Stream.ID, &r.Version, &r.Data)
	})
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// writers starts n goroutines that append to a few streams, at exact versions and at any, with and without command ids, until stop.
// The ledger records the results. An error that is neither a conflict nor allowed by may fails the test.
func (l *ledger) writers(t testing.TB, s es.Store, n int, may func(error) bool) (stop func()) {
	t.Helper()
	stopping := make(chan struct{})
	var done sync.WaitGroup
	for w := range n {
		done.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stopping:
					return
				default:
				}
				name := fmt.Sprintf("writer %d append %d", w, i)
				a := named(name, account(fmt.Sprint("shared ", w%4)), es.AnyVersion)
				if w%2 == 0 { // a stream of its own, at exact versions
					a.Stream = account(fmt.Sprint("own ", w))
					if a.Expected = head(t, s, a.Stream); a.Expected < 0 {
						continue // the server is not available
					}
				}
				if w%4 < 2 {
					a.Command = name
				}
				err := l.append(t.Context(), s, a)
				if err != nil && !isConflict(err) && !may(err) && t.Context().Err() == nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	stop = sync.OnceFunc(func() {
		close(stopping)
		done.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// head reads the version of a stream, or returns -1 on an error.
func head(t testing.TB, s es.Store, stream es.Stream) (v es.Version) {
	for r, err := range s.Read(t.Context(), stream, 0) {
		if err != nil {
			return -1
		}
		v = r.Version
	}
	return v
}
