package memory_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/projection/memory"
)

// add appends an event to a stream.
func add(t *testing.T, l es.Log) es.Position {
	t.Helper()
	at, err := l.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: "ann"}, Expected: es.AnyVersion, Events: []es.Record{{Type: "added"}}})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// apply runs a handler in a transaction that commits or not, on a projection of one record.
func apply(t *testing.T, handle func(tx *memory.Tx) error) {
	t.Helper()
	s := memory.New(new(es.Mem))
	add(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := s.Project(ctx, memory.Projection{
		Name: "p", Retries: -1,
		Handle:     func(_ context.Context, tx *memory.Tx, _ []es.Record) error { return handle(tx) },
		OnCaughtUp: func(context.Context) error { cancel(); return nil },
	})
	if stopped := new(projection.Error); !errors.Is(err, context.Canceled) && !errors.As(err, &stopped) {
		t.Fatal(err)
	}
}

func TestARollbackUndoesTheChangesInReverseOrder(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name string
		end  func() error
		want []string
	}{
		{"a commit undoes nothing", func() error { return nil }, nil},
		{"an error", func() error { return broken }, []string{"third", "second", "first"}},
		{"a panic", func() error { panic(broken) }, []string{"third", "second", "first"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var undone []string
			apply(t, func(tx *memory.Tx) error {
				for _, name := range []string{"first", "second", "third"} {
					tx.OnRollback(func() { undone = append(undone, name) })
				}
				return test.end()
			})
			if !slices.Equal(undone, test.want) {
				t.Errorf("undone: %q, want %q", undone, test.want)
			}
		})
	}
}

func TestMapsAreAsTheyWereAfterARollback(t *testing.T) {
	type balances map[string]int
	for _, committed := range []bool{false, true} {
		m := balances{"ann": 1, "bob": 2, "cy": 3}
		apply(t, func(tx *memory.Tx) error {
			memory.Set(tx, m, "ann", 10)
			memory.Set(tx, m, "ann", 11)
			memory.Set(tx, m, "dan", 4)
			memory.Delete(tx, m, "bob")
			memory.Delete(tx, m, "eve")
			if want := (balances{"ann": 11, "cy": 3, "dan": 4}); !maps.Equal(m, want) {
				t.Errorf("in the transaction: %v, want %v", m, want)
			}
			memory.Clear(tx, m)
			if len(m) != 0 {
				t.Errorf("after Clear: %v", m)
			}
			memory.Set(tx, m, "eve", 5)
			if committed {
				return nil
			}
			return errors.New("broken")
		})
		want := balances{"ann": 1, "bob": 2, "cy": 3}
		if committed {
			want = balances{"eve": 5}
		}
		if !maps.Equal(m, want) {
			t.Errorf("committed %t: %v, want %v", committed, m, want)
		}
	}
}

func TestATransactionThatHasEndedTakesNoUndo(t *testing.T) {
	var kept *memory.Tx
	apply(t, func(tx *memory.Tx) error { kept = tx; return nil })
	defer func() {
		if recover() == nil {
			t.Error("OnRollback after the end of the transaction did not panic")
		}
	}()
	kept.OnRollback(func() {})
}

func TestViewSeesNoTransactionInFlight(t *testing.T) {
	s := memory.New(new(es.Mem))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	half, done := make(chan struct{}), make(chan error, 1)
	resume := make(chan struct{})
	a, b := map[string]int{}, map[string]int{}
	go func() {
		done <- s.Project(ctx, memory.Projection{Name: "p", Handle: func(_ context.Context, tx *memory.Tx, _ []es.Record) error {
			memory.Set(tx, a, "n", 1)
			half <- struct{}{}
			<-resume
			memory.Set(tx, b, "n", 1)
			return nil
		}})
	}()
	add(t, s)
	<-half
	impatient, stop := context.WithCancel(ctx)
	stop()
	if err := s.View(impatient, func() { t.Error("View saw a transaction in flight") }); !errors.Is(err, context.Canceled) {
		t.Errorf("View: %v, want that its context ended", err)
	}
	close(resume)
	if err := s.View(ctx, func() {
		if a["n"] != 1 || b["n"] != 1 {
			t.Errorf("View saw %v and %v", a, b)
		}
	}); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAHandlerThatNeedsATransactionOfItsOwnIsRefused(t *testing.T) {
	s := memory.New(new(es.Mem))
	add(t, s)
	for name, call := range map[string]func(ctx context.Context) error{
		"Rebuild": func(ctx context.Context) error { return s.Rebuild(ctx, "p", 0) },
		"Forget":  func(ctx context.Context) error { return s.Forget(ctx, "p", 0) },
		"Retry":   func(ctx context.Context) error { return s.Retry(ctx, "p", 0, es.Stream{Kind: "account", ID: "ann"}) },
		"View":    func(ctx context.Context) error { return s.View(ctx, func() {}) },
	} {
		err := s.Project(t.Context(), memory.Projection{Name: name, Retries: -1, Handle: func(ctx context.Context, _ *memory.Tx, _ []es.Record) error { return call(ctx) }})
		if !errors.Is(err, es.ErrInvalid) {
			t.Errorf("%s in a handler: %v, want an error that wraps es.ErrInvalid", name, err)
		}
	}
}

// A handler may append and read the log, because appends are not part of its transaction.
func TestAHandlerMayReadTheStatus(t *testing.T) {
	s := memory.New(new(es.Mem))
	add(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := s.Project(ctx, memory.Projection{Name: "p", Retries: -1, Handle: func(ctx context.Context, _ *memory.Tx, _ []es.Record) error {
		all, err := s.Status(ctx)
		if err == nil && (len(all) != 1 || all[0].Cursor != 0) {
			err = fmt.Errorf("the status is %+v, want one shard at 0: the transaction is not committed", all)
		}
		cancel()
		return err
	}})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestCloseEndsTheRuns(t *testing.T) {
	s := memory.New(new(es.Mem))
	up, done := make(chan struct{}), make(chan error, 2)
	go func() {
		done <- s.Project(t.Context(), memory.Projection{
			Name: "p", Handle: func(context.Context, *memory.Tx, []es.Record) error { return nil },
			OnCaughtUp: func(context.Context) error { close(up); return nil },
		})
	}()
	<-up
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; !errors.Is(err, es.ErrClosed) {
		t.Errorf("Project returned %v, want an error that wraps es.ErrClosed", err)
	}
	if _, err := s.Status(t.Context()); !errors.Is(err, es.ErrClosed) {
		t.Errorf("Status returned %v, want an error that wraps es.ErrClosed", err)
	}
	if err := s.View(t.Context(), func() { t.Error("View called its function") }); !errors.Is(err, es.ErrClosed) {
		t.Errorf("View returned %v, want an error that wraps es.ErrClosed", err)
	}
}

// Nothing in the store waits for anything but its clock and its callers, so tests can use testing/synctest: pauses and leases then
// take no time.
func TestPausesTakeNoTimeInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(new(es.Mem))
		add(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		began, attempts := time.Now(), 0
		err := s.React(ctx, projection.Reaction{Name: "mail", From: projection.Beginning(), Handle: func(context.Context, es.Record) error {
			if attempts++; attempts <= 20 {
				return fmt.Errorf("the server is down: %w", es.ErrUnavailable)
			}
			cancel()
			return nil
		}})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if passed := time.Since(began); passed < 20*time.Second {
			t.Errorf("20 pauses took %v of the bubble's time, want more: they grow to 5s", passed)
		}
	})
}

// The retry of the last parked record of a stream takes longer than retries may at a time. A timer of the stream that is due then must not be
// parked behind a record that is not parked any more.
func TestATimerThatIsDueAfterASlowRetryIsHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(new(es.Mem))
		add(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		var handled []es.Version
		done := make(chan error, 1)
		attempts := 0
		go func() {
			done <- s.React(ctx, projection.Reaction{
				Name: "mail", From: projection.Beginning(), Retries: -1, OnError: es.Park,
				Due: func(r es.Record) (time.Time, error) {
					if r.Version == 2 {
						return r.Time.Add(time.Minute), nil
					}
					return time.Time{}, nil
				},
				Handle: func(_ context.Context, r es.Record) error {
					if r.Version == 1 {
						if attempts++; attempts == 1 {
							return errors.New("the server is down")
						}
						time.Sleep(2 * time.Minute)
					}
					handled = append(handled, r.Version)
					return nil
				},
			})
		}()
		time.Sleep(time.Second)
		add(t, s)
		time.Sleep(time.Second)
		if err := s.Retry(t.Context(), "mail", 0, es.Stream{Kind: "account", ID: "ann"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		for p, err := range s.Parked(t.Context()) {
			t.Errorf("%s is parked, error %v", p.Record.ID(), err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("React returned %v", err)
		}
		if !slices.Equal(handled, []es.Version{1, 2}) {
			t.Errorf("versions %d were handled, want 1 and 2", handled)
		}
	})
}
