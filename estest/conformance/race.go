package conformance

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/thalo-go/es"
)

// raceClauses test concurrent writers, also through several stores on one database.
func raceClauses() []clause {
	return []clause{
		{"one writer wins a race and the others get a conflict",
			"Two decisions on the same version exclude each other. The losers get a *es.ConflictError, not the database's error about a key, a lock or a serialization failure, because a Repo retries only after a conflict.",
			func(t *trial) { oneWinner(t, 1, 16) }},
		{"one writer wins a race through several stores",
			"Several processes may share one database. A version cached or a lock held in one process does not stop another process, so the database must decide.",
			func(t *trial) { oneWinner(t, 4, 4) }},
		{"lost race writes nothing",
			"A call that loses the race for one of its streams must leave nothing in the others. Otherwise half a transfer is written.",
			loserWritesNothing},
		{"no update is lost",
			"Writers load, decide, append at the loaded version, and retry on conflict. Every event must be decided on all events before it, or one writer overwrites another's decision.",
			noUpdateIsLost},
		{"records of one call have consecutive positions",
			"Callers count back from the position that Append returns. A record of another call in between makes them wait for, or read, the wrong record.",
			callStandsTogether},
		{"acknowledged appends are visible through every store",
			"An append that one process acknowledged is history for all of them. A store that answers from its cache lets a user read a write on one server and miss it on the next.",
			storesSeeEachOther},
	}
}

func oneWinner(t *trial, stores, each int) {
	all := t.stores(stores)
	a := stream("a")
	version := es.Version(0)
	for range 5 {
		errs := make([]error, stores*each)
		t.race(len(errs), func(i int) {
			e := event(fmt.Sprint(i))
			_, errs[i] = all[i%stores].Append(t.ctx, es.Append{Stream: a, Expected: version, Events: []es.Record{e, e}})
		})
		var winners []string
		for i, err := range errs {
			var conflict *es.ConflictError
			switch {
			case err == nil:
				winners = append(winners, fmt.Sprint(i), fmt.Sprint(i))
			case !errors.As(err, &conflict):
				t.Errorf("a writer that lost the race for version %d got %v: want a *es.ConflictError", version+1, err)
			case !reflect.DeepEqual(*conflict, es.ConflictError{Stream: a, Expected: version}):
				t.Errorf("a writer that lost the race got the conflict %+v: want the stream and version it gave, %s and %d", *conflict, a, version)
			}
		}
		if len(winners) != 2 {
			t.Fatalf("of %d writers that expected version %d of %s, %d succeeded: want 1", len(errs), version, a, len(winners)/2)
		}
		if got := data(t.read(all[0], a)[version:]); !slices.Equal(got, winners) {
			t.Fatalf("after a race for version %d the events are those of writers %v: want those of the one that succeeded, %v", version+1, got, winners)
		}
		version += 2
	}
}

func loserWritesNothing(t *trial) {
	const writers, rounds = 8, 5
	stores := t.stores(2)
	for round := range es.Version(rounds) {
		taken := make([]bool, writers)
		t.race(writers, func(i int) {
			_, err := stores[i%len(stores)].Append(t.ctx,
				add(stream(fmt.Sprint("own ", round, " ", i)), 1),
				es.Append{Stream: stream("contested"), Expected: round, Events: events(1)},
				add(stream(fmt.Sprint("own ", round, " ", i)), 1))
			taken[i] = err == nil
		})
		for i, taken := range taken {
			if own := stream(fmt.Sprint("own ", round, " ", i)); !taken {
				t.empty(stores[0], "after a lost race", own)
			}
		}
	}
}

func noUpdateIsLost(t *trial) {
	const writers, updates = 9, 5
	stores := t.stores(3)
	a := stream("a")
	t.race(writers, func(i int) {
		s := stores[i%len(stores)]
		for range updates {
			for {
				records := t.read(s, a)
				head := es.Version(0)
				if len(records) > 0 {
					head = records[len(records)-1].Version
				}
				_, err := s.Append(t.ctx, es.Append{Stream: a, Expected: head, Events: []es.Record{event(fmt.Sprint(len(records) + 1))}})
				if err == nil {
					break
				}
				if t.ctx.Err() != nil {
					t.Fatalf("a writer did not succeed before the timeout: %v", err)
				}
			}
		}
	})
	want := data(events(writers * updates))
	t.equal("the number of events up to and including each event, as its writer counted them", data(t.read(stores[0], a)), want)
}

func callStandsTogether(t *trial) {
	const writers, calls = 8, 5
	stores := t.stores(2)
	shared := stream("shared")
	t.race(writers, func(i int) {
		for call := range calls {
			own, at := stream(fmt.Sprint(i)), func(n int) es.Record { return event(fmt.Sprintf("%d/%d/%d", i, call, n)) }
			t.append(stores[i%len(stores)],
				es.Append{Stream: own, Expected: es.AnyVersion, Events: []es.Record{at(0)}},
				es.Append{Stream: shared, Expected: es.AnyVersion, Events: []es.Record{at(1), at(2)}},
				es.Append{Stream: own, Expected: es.AnyVersion, Events: []es.Record{at(3)}})
		}
	})
	records := t.read(stores[0], shared)
	for i := range writers {
		records = append(records, t.read(stores[0], stream(fmt.Sprint(i)))...)
	}
	position := make(map[string]es.Position)
	for _, r := range records {
		position[string(r.Data)] = r.Position
	}
	for i := range writers {
		for call := range calls {
			first := position[fmt.Sprintf("%d/%d/0", i, call)]
			for n := range es.Position(4) {
				if got := position[fmt.Sprintf("%d/%d/%d", i, call, n)]; got != first+n {
					t.Fatalf("record %d of a call has position %d, and the first one %d: want %d", n+1, got, first, first+n)
				}
			}
		}
	}
}

func storesSeeEachOther(t *trial) {
	a, b := t.store(), t.store()
	shared := stream("shared")
	for version := es.Version(0); version < 10; version += 2 {
		for i, writer := range []es.Store{a, b} {
			other, at := []es.Store{b, a}[i], version+es.Version(i)
			if _, err := writer.Append(t.ctx, es.Append{Stream: shared, Expected: at, Events: events(1)}); err != nil {
				t.Fatalf("Append at version %d, which the other store wrote, returned %v: want no error", at, err)
			}
			if n := len(t.read(other, shared)); n != int(at)+1 {
				t.Fatalf("another store read %d records after %d were written", n, at+1)
			}
			if _, err := other.Append(t.ctx, es.Append{Stream: shared, Expected: at, Events: events(1)}); err == nil {
				t.Fatalf("Append at version %d succeeded after another store had written version %d: want a conflict", at, at+1)
			}
		}
	}
}
