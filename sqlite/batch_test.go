package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

// queued is an append that waits for the lock, with the expected verdict.
type queued struct {
	name     string
	appends  []es.Append
	position es.Position // 0 means that it must be refused
	err      func(error) bool
}

// oneBatch writes the appends in one transaction, in order. Another connection holds the write lock until all of them wait.
func oneBatch(t *testing.T, path string, s *sqlite.Store, requests []queued) {
	t.Helper()
	holder := connect(t, path)
	do(t, holder, "begin immediate")
	var wg sync.WaitGroup
	for _, q := range requests {
		wg.Go(func() {
			position, err := s.Append(t.Context(), q.appends...)
			switch {
			case q.err == nil && (err != nil || position != q.position):
				t.Errorf("%s: %d, %v; expected position %d", q.name, position, err, q.position)
			case q.err != nil && (!q.err(err) || position != 0):
				t.Errorf("%s: the verdict is %d, %v", q.name, position, err)
			}
		})
		synctest.Wait()
	}
	do(t, holder, "rollback")
	wg.Wait()
}

// countCommits counts the transactions that the store's writer commits from now on.
func countCommits(t *testing.T, s *sqlite.Store) *atomic.Int64 {
	t.Helper()
	commits := new(atomic.Int64)
	err := s.OnWriter(func(conn *sqlite3.SQLiteConn) error {
		conn.RegisterCommitHook(func() int { commits.Add(1); return 0 })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return commits
}

func isConflict(expected es.Version) func(error) bool {
	return func(err error) bool {
		var conflict *es.ConflictError
		return errors.As(err, &conflict) && conflict.Expected == expected
	}
}

func isDuplicate(first, last es.Version) func(error) bool {
	return func(err error) bool {
		var duplicate *es.DuplicateError
		return errors.As(err, &duplicate) && duplicate.First == first && duplicate.Last == last
	}
}

func one(a es.Append) []es.Append { return []es.Append{a} }

func TestBatchHasAVerdictForEach(t *testing.T) {
	t.Run("each append in a transaction has its own verdict", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path := file(t)
			s := open(t, path)
			add(t, s, at("old", 0, "o1", "o2"))
			add(t, open(t, path), command("far", 0, "c", "f1")) // by another store, so that this one has not cached it
			commits := countCommits(t, s)
			oneBatch(t, path, s, []queued{
				{"a new stream", one(at("a", 0, "a1")), 4, nil},
				{"the same stream taken for new", one(at("a", 0, "x")), 0, isConflict(0)},
				{"the same stream as the first one left it", one(at("a", 1, "a2")), 5, nil},
				{"a command", one(command("b", 0, "c", "b1", "b2")), 7, nil},
				{"the same command again", one(command("b", 2, "c", "x")), 0, isDuplicate(1, 2)},
				{"the same command with the version of the first time", one(command("b", 0, "c", "x")), 0, isDuplicate(1, 2)},
				{"a command of long ago", one(command("far", es.AnyVersion, "c", "x")), 0, isDuplicate(1, 1)},
				{"an old stream at its version", one(at("old", 2, "o3")), 8, nil},
				{"an old stream behind its version", one(at("old", 2, "x")), 0, isConflict(2)},
				{"a stream that never came so far", one(at("young", 7, "x")), 0, isConflict(7)},
				{"several streams", []es.Append{at("p", 0, "p1"), at("q", 0, "q1", "q2"), at("p", 1, "p2")}, 12, nil},
				{"several streams, one at the wrong version", []es.Append{at("p", 2, "x"), at("q", 9, "x")}, 0, isConflict(9)},
				{"several streams, one with a command of before", []es.Append{at("p", 2, "x"), command("b", es.AnyVersion, "c", "x")}, 0, isDuplicate(1, 2)},
				{"a question that holds", one(at("p", 2)), 0, nil},
				{"a question that does not", one(at("p", 1)), 0, isConflict(1)},
				{"any version", one(at("q", es.AnyVersion, "q3")), 13, nil},
			})
			expectTexts(t, s, "o1", "o2", "f1", "a1", "a2", "b1", "b2", "o3", "p1", "q1", "q2", "p2", "q3")
			if n := commits.Load(); n != 1 {
				t.Errorf("%d transactions; this test is about one", n)
			}
		})
	})
	t.Run("stream that was wrongly assumed to be new affects only its own append", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path := file(t)
			s := open(t, path)
			add(t, open(t, path), at("there", 0, "t1"))
			oneBatch(t, path, s, []queued{
				{"before it", one(command("a", 0, "c", "a1")), 2, nil},
				{"the stream", one(at("there", 0, "x")), 0, isConflict(0)},
				{"the stream at its version", one(at("there", 1, "t2")), 3, nil},
				{"with others, taken for new", []es.Append{at("b", 0, "x"), at("there", 0, "x")}, 0, isConflict(0)},
				{"with others, at its version", []es.Append{at("b", 0, "b1"), at("there", 2, "t3")}, 5, nil},
				{"after it", one(command("a", 1, "d", "a2")), 6, nil},
			})
			expectTexts(t, s, "t1", "a1", "t2", "b1", "t3", "a2")
			_, err := s.Append(t.Context(), command("a", es.AnyVersion, "d", "x"))
			if !isDuplicate(2, 2)(err) {
				t.Errorf("the command was noted wrongly: %v", err)
			}
		})
	})
}

func TestBatch(t *testing.T) {
	t.Run("without a valid append, nothing is written", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path := file(t)
			s := open(t, path)
			add(t, s, command("a", 0, "c", "a1"))
			commits := countCommits(t, s)
			oneBatch(t, path, s, []queued{
				{"conflict", one(at("a", 7, "x")), 0, isConflict(7)},
				{"duplicate", one(command("a", 1, "c", "x")), 0, isDuplicate(1, 1)},
				{"nothing to write", one(at("a", 1)), 0, nil},
			})
			if commits.Load() > 0 {
				t.Error("a transaction was committed that has nothing in it")
			}
			expectTexts(t, s, "a1")
		})
	})
	t.Run("more than 4,096 events are written in several transactions", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path := file(t)
			s := open(t, path)
			var requests []queued
			for i := range 7 {
				requests = append(requests, queued{fmt.Sprint(i), one(at(fmt.Sprint(i), 0, make([]string, 1000)...)), es.Position(1000 * (i + 1)), nil})
			}
			commits := countCommits(t, s)
			oneBatch(t, path, s, requests)
			if records := all(t, s); len(records) != 7000 || commits.Load() != 2 {
				t.Errorf("%d records in %d transactions; expected 7000 in 2", len(records), commits.Load())
			}
		})
	})
	t.Run("the largest allowed append is written in one", func(t *testing.T) {
		s := open(t, file(t))
		commits := countCommits(t, s)
		large := at("a", 0, make([]string, es.MaxEvents)...)
		large.Events[7].Data = make([]byte, es.MaxData)
		if position := add(t, s, large, at("b", 0)); position != es.MaxEvents {
			t.Errorf("position %d; expected %d", position, es.MaxEvents)
		}
		if records := all(t, s); len(records) != es.MaxEvents || commits.Load() != 1 {
			t.Errorf("%d records in %d transactions; expected %d in one", len(records), commits.Load(), es.MaxEvents)
		}
	})
	t.Run("after a failure, no verdict relies on its rows", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path := file(t)
			s := open(t, path)
			add(t, s, at("a", 0, "a1"))
			limit(t, s, 3)
			full := func(err error) bool { return isCode(err, sqlite3.ErrFull) }
			large := strings.Repeat("x", 1<<20)
			oneBatch(t, path, s, []queued{
				{"too much for the disk", one(command("b", 0, "c", large)), 0, full},
				{"the same command: it is not there", one(command("b", 0, "c", large)), 0, full},
				{"the same stream: it is new still", one(at("b", 0, "x")), 0, full},
			})
			limit(t, s, 1<<20)
			add(t, s, command("b", 0, "c", "b1"))
			expectTexts(t, s, "a1", "b1")
		})
	})
}

func TestWaitingForTheLock(t *testing.T) {
	t.Run("if the context ends first, its error is the verdict and nothing is written", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path := file(t)
			s := open(t, path)
			holder := connect(t, path)
			do(t, holder, "begin immediate")
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var wg sync.WaitGroup
			for i := range 3 { // the first waits for the lock, the others for the first
				wg.Go(func() {
					_, err := s.Append(ctx, at(fmt.Sprint(i), 0, "x"))
					expectError(t, err, context.DeadlineExceeded)
					if errors.Is(err, es.ErrUnknownOutcome) {
						t.Errorf("the outcome is said to be unknown: %v", err)
					}
				})
				synctest.Wait()
			}
			patient := make(chan error, 1)
			go func() {
				_, err := s.Append(t.Context(), at("patient", 0, "p"))
				patient <- err
			}()
			wg.Wait()
			synctest.Wait()
			do(t, holder, "rollback")
			expectError(t, <-patient, nil)
			expectTexts(t, s, "p")
		})
	})
	t.Run("longer than BusyTimeout results in an error with the cause", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path := file(t)
			s := openWith(t, path, sqlite.Config{BusyTimeout: time.Second})
			holder := connect(t, path)
			do(t, holder, "begin immediate")
			var wg sync.WaitGroup
			for i := range 3 {
				wg.Go(func() {
					_, err := s.Append(t.Context(), at(fmt.Sprint(i), 0, "x"))
					if !isCode(err, sqlite3.ErrBusy) || !errors.Is(err, es.ErrUnavailable) || !strings.Contains(err.Error(), "for more than 1s: another process holds the lock; nothing was written") {
						t.Errorf("the verdict is %v", err)
					}
				})
				synctest.Wait()
			}
			started := time.Now()
			wg.Wait()
			if took := time.Since(started); took > 1100*time.Millisecond {
				t.Errorf("it took %v", took)
			}
			err := s.SaveSnapshot(t.Context(), es.Snapshot{Stream: stream("a"), Version: 1})
			if !isCode(err, sqlite3.ErrBusy) {
				t.Errorf("a snapshot: %v", err)
			}
			do(t, holder, "rollback")
			add(t, s, at("a", 0, "a1"))
			expectTexts(t, s, "a1")
		})
	})
}

func TestSecondTry(t *testing.T) {
	t.Run("waits for the lock again, up to BusyTimeout", func(t *testing.T) {
		path := file(t)
		s, other := open(t, path), open(t, path)
		add(t, other, at("a", 0, "a1"))
		// The other process takes the lock at the moment when this one releases it.
		holder := connect(t, path)
		released := make(chan struct{})
		var once sync.Once
		err := s.OnWriter(func(conn *sqlite3.SQLiteConn) error {
			conn.RegisterRollbackHook(func() {
				once.Do(func() {
					_, err := holder.ExecContext(context.Background(), "begin immediate")
					time.AfterFunc(20*time.Millisecond, func() {
						defer close(released)
						if _, ended := holder.ExecContext(context.Background(), "rollback"); errors.Join(err, ended) != nil {
							t.Errorf("the other process: %v, %v", err, ended)
						}
					})
				})
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Append(t.Context(), at("a", 0, "x"))
		if !isConflict(0)(err) {
			t.Errorf("the verdict is %v; expected a conflict", err)
		}
		<-released
	})
}

func TestCallersThatLeave(t *testing.T) {
	s := open(t, file(t))
	var wg sync.WaitGroup
	var mu sync.Mutex
	sent := make(map[string]string) // the error that each caller received
	for w := range 16 {
		wg.Go(func() {
			for i := range 100 {
				text := fmt.Sprint(w, "-", i)
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*time.Millisecond))
				_, err := s.Append(ctx, at(fmt.Sprint(w), es.AnyVersion, text))
				cancel()
				told := "written"
				if err != nil {
					expectError(t, err, context.DeadlineExceeded)
					told = "nothing was written"
				}
				if errors.Is(err, es.ErrUnknownOutcome) {
					told = "unknown"
				}
				mu.Lock()
				sent[text] = told
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	add(t, s, at("after", 0, "after"))
	told := make(map[string]int)
	for _, text := range texts(all(t, s)) {
		told[sent[text]]++
		if sent[text] == "nothing was written" {
			t.Errorf("%s is there, against what its caller was told", text)
		}
		delete(sent, text)
	}
	for text, told := range sent {
		if told == "written" {
			t.Errorf("%s is not there, against what its caller was told", text)
		}
	}
	t.Logf("of those that are there, their callers were told: %v", told)
}

func TestLoneWriterStartsNoGoroutine(t *testing.T) {
	s := open(t, file(t))
	ctx, cancel := context.WithCancel(t.Context()) // go-sqlite3 starts one for each call whose context can end
	defer cancel()
	add(t, s, at("a", 0, "first"))
	before := goroutinesCreated()
	const appends = 200
	for v := range es.Version(appends) {
		if _, err := s.Append(ctx, at("a", v+1, "next")); err != nil {
			t.Fatal(err)
		}
	}
	if created := goroutinesCreated() - before; created > appends/10 { // the runtime may start some itself
		t.Errorf("%d appends started %d goroutines", appends, created)
	}
}

func goroutinesCreated() uint64 {
	sample := []metrics.Sample{{Name: "/sched/goroutines-created:goroutines"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
