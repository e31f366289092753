package postgres_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// holdLock holds the lock that all appends need, until it is released.
func holdLock(t testing.TB, s *postgres.Store, url string) (release func()) {
	t.Helper()
	tx, err := connect(t, url).BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s.In(tx), add(account("any"), 0)) // asks and writes nothing, under the lock
	return func() {
		t.Helper()
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// inside waits until n goroutines are in a function.
func inside(t testing.TB, n int, function string) {
	t.Helper()
	stacks := make([]byte, 16<<20)
	eventually(t, fmt.Sprintf("%d goroutines are in %s", n, function), func() bool {
		return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), function+"(") >= n
	})
}

// functionCalls returns how often each function of the store was called, by ended sessions with track_functions on.
func functionCalls(t testing.TB, url string) map[string]int64 {
	t.Helper()
	var calls map[string]int64
	if err := connect(t, url).QueryRow(t.Context(), "select coalesce(jsonb_object_agg(funcname, calls), '{}') from pg_stat_user_functions").Scan(&calls); err != nil {
		t.Fatal(err)
	}
	return calls
}

// appendCalls returns the number of calls that knew the heads, and of those that looked them up.
func appendCalls(t testing.TB, url string, total int64) (known, judged int64) {
	t.Helper()
	eventually(t, fmt.Sprintf("the server has counted %d calls", total), func() bool {
		calls := functionCalls(t, url)
		known, judged = calls["append_one"]+calls["append_known"], calls["append_judged"]
		return known+judged >= total
	})
	return known, judged
}

func TestGather(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := open(t, with(url, "track_functions=all"))
		mustAppend(t, s, at(account("full"), 0, 3), es.Append{Stream: account("done"), Expected: 0, Events: events(2), Command: "once"})
		release := holdLock(t, s, url)

		var all sync.WaitGroup
		var mu sync.Mutex
		verdicts := make(map[string][]error)
		callers := 0
		call := func(name string, appends ...es.Append) {
			callers++
			all.Go(func() {
				position, err := s.Append(t.Context(), appends...)
				if (position > 0) != (err == nil && len(appends[0].Events) > 0) {
					t.Errorf("%s: position %d with error %v", name, position, err)
				}
				mu.Lock()
				defer mu.Unlock()
				verdicts[name] = append(verdicts[name], err)
			})
		}
		for i := range 20 {
			call("a new stream", at(account(fmt.Sprint("new", i)), 0, 2))
			call("a stale version", at(account("full"), 2, 1))
			call("a version that is not there yet", at(account("full"), 99, 1))
			call("one place for all", at(account("one"), 0, 1))
			call("any version", add(account("any"), 1))
			call("a command for the first time", es.Append{Stream: account(fmt.Sprint("c", i)), Expected: 0, Events: events(1), Command: "once"})
			call("one command for all", es.Append{Stream: account("raced"), Expected: es.AnyVersion, Events: events(2), Command: "once"})
			call("a command that is there", es.Append{Stream: account("done"), Expected: 0, Events: events(1), Command: "once"})
			call("a good question", at(account("full"), 3, 0))
			call("a bad question", at(account("full"), 0, 0))
			call("two streams", at(account(fmt.Sprint("l", i)), 0, 1), at(account(fmt.Sprint("r", i)), 0, 1))
			call("two streams, one of them stale", at(account(fmt.Sprint("L", i)), 0, 1), at(account("full"), 0, 1))
		}
		inside(t, callers, "commit.(*Queue).Append")
		release()
		all.Wait()

		for _, want := range []struct {
			name                        string
			good, conflicts, duplicates int
		}{
			{"a new stream", 20, 0, 0},
			{"a stale version", 0, 20, 0},
			{"a version that is not there yet", 0, 20, 0},
			{"one place for all", 1, 19, 0},
			{"any version", 20, 0, 0},
			{"a command for the first time", 20, 0, 0},
			{"one command for all", 1, 0, 19},
			{"a command that is there", 0, 0, 20},
			{"a good question", 20, 0, 0},
			{"a bad question", 0, 20, 0},
			{"two streams", 20, 0, 0},
			{"two streams, one of them stale", 0, 20, 0},
		} {
			good, conflicts, duplicates := count(verdicts[want.name])
			if good != want.good || conflicts != want.conflicts || duplicates != want.duplicates {
				t.Errorf("%s: %d good, %d conflicts, %d duplicates; want %d, %d, %d: %v", want.name,
					good, conflicts, duplicates, want.good, want.conflicts, want.duplicates, errors.Join(verdicts[want.name]...))
			}
		}
		streams := make(map[es.Stream]int)
		for _, r := range dense(t, s) {
			streams[r.Stream]++
		}
		for stream, want := range map[string]int{"full": 3, "new7": 2, "one": 1, "any": 20, "c7": 1, "raced": 2, "done": 2, "l7": 1, "r7": 1, "L7": 0} {
			if got := streams[account(stream)]; got != want {
				t.Errorf("account/%s has %d records, want %d", stream, got, want)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		// A batch has each command once, so those that repeat one take a round trip each.
		known, judged := appendCalls(t, url, 3)
		if known+judged > int64(callers/4) {
			t.Errorf("%d callers took %d round trips", callers, known+judged)
		}
	})
}

func count(errs []error) (good, conflicts, duplicates int) {
	for _, err := range errs {
		var conflict *es.ConflictError
		var duplicate *es.DuplicateError
		switch {
		case err == nil:
			good++
		case errors.As(err, &conflict):
			conflicts++
		case errors.As(err, &duplicate) && duplicate.First == 1 && duplicate.Last == 2:
			duplicates++
		}
	}
	return good, conflicts, duplicates
}

func TestKnownHeads(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		for _, test := range []struct {
			name          string
			do            func(t *testing.T, s, other *postgres.Store)
			known, judged int64
		}{
			{"a stream that the store has written is not looked up", func(t *testing.T, s, _ *postgres.Store) {
				for n := range es.Version(10) { // of two events each: single ones come to go another way, see TestFastPath
					mustAppend(t, s, at(account("a"), 2*n, 2))
				}
			}, 10, 0},
			{"nor one that it has read", func(t *testing.T, s, _ *postgres.Store) {
				collect(t, s.Read(t.Context(), account("before"), 0))
				mustAppend(t, s, at(account("before"), 3, 1))
				mustAppend(t, s, add(account("before"), 1))
			}, 2, 0},
			{"nor one that it has read and others have just written", func(t *testing.T, s, other *postgres.Store) {
				mustAppend(t, other, at(account("a"), 0, 3))
				collect(t, s.Read(t.Context(), account("a"), 0))
				mustAppend(t, s, at(account("a"), 3, 1))
			}, 1, 0},
			{"one that it has never seen is looked up once", func(t *testing.T, s, _ *postgres.Store) {
				mustAppend(t, s, at(account("before"), 3, 2))
				mustAppend(t, s, at(account("before"), 5, 2))
			}, 1, 1},
			{"when another store was faster it is looked up", func(t *testing.T, s, other *postgres.Store) {
				mustAppend(t, s, at(account("a"), 0, 1))
				mustAppend(t, other, at(account("a"), 1, 1))
				_, err := s.Append(t.Context(), at(account("a"), 1, 1))
				if conflict := (*es.ConflictError)(nil); !errors.As(err, &conflict) {
					t.Errorf("got %v, want a conflict", err)
				}
			}, 2, 1},
			{"a version that the stream is past is refused without a look if there is something else to write", func(t *testing.T, s, other *postgres.Store) {
				mustAppend(t, s, at(account("a"), 0, 5))
				_, errs := s.WriteTogether(t.Context(), []es.Append{at(account("a"), 2, 1)}, []es.Append{at(account("a"), 5, 1)}, []es.Append{at(account("a"), 3, 1)})
				if good, conflicts, _ := count(errs); good != 1 || conflicts != 2 {
					t.Errorf("got %v, want a conflict, nothing and a conflict", errs)
				}
			}, 2, 0},
			{"after a conflict a few batches look, and then none", func(t *testing.T, s, other *postgres.Store) {
				mustAppend(t, s, at(account("a"), 0, 1))
				mustAppend(t, other, add(account("a"), 1))
				mustAppend(t, s, add(account("a"), 1))
				for n := range es.Version(20) {
					mustAppend(t, s, at(account("a"), 3+2*n, 2))
				}
			}, 2 + 20 - 8, 1 + 8},
		} {
			t.Run(test.name, func(t *testing.T) {
				empty(t, url)
				other := open(t, url)
				mustAppend(t, other, at(account("before"), 0, 3))
				s := open(t, with(url, "track_functions=all"))
				test.do(t, s, other)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				known, judged := appendCalls(t, url, test.known+test.judged)
				if known != test.known || judged != test.judged {
					t.Errorf("%d appends on known heads and %d that looked, want %d and %d", known, judged, test.known, test.judged)
				}
				dense(t, other)
			})
		}
	})
}
