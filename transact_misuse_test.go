package es_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es"
)

func TestATransactIsUsedInOneWay(t *testing.T) {
	other := newTally(new(es.Mem))
	var kept *es.Tx
	one := func(ctx context.Context, repo *tallies, tx *es.Tx, options ...es.ExecuteOption) error {
		_, err := repo.ExecuteTx(ctx, tx, "1", add(1), options...)
		return err
	}
	for name, test := range map[string]struct {
		options []es.ExecuteOption
		f       func(ctx context.Context, repo *tallies, tx *es.Tx) error
		want    string
	}{
		"ExpectVersion of Transact": {[]es.ExecuteOption{es.ExpectVersion(1)}, nil, "give it to ExecuteTx"},
		"CommandID of a command": {nil, func(ctx context.Context, repo *tallies, tx *es.Tx) error {
			return one(ctx, repo, tx, es.CommandID("x"))
		}, "give them to Transact"},
		"Step of a command": {nil, func(ctx context.Context, repo *tallies, tx *es.Tx) error {
			return one(ctx, repo, tx, es.Step("x"))
		}, "give them to Transact"},
		"NotAfter of a command": {nil, func(ctx context.Context, repo *tallies, tx *es.Tx) error {
			return one(ctx, repo, tx, es.NotAfter(time.Now()))
		}, "give them to Transact"},
		"Step without a handler": {[]es.ExecuteOption{es.Step("x")}, nil, "ctx is not that of"},
		"an empty command id":    {[]es.ExecuteOption{es.CommandID("")}, nil, "is empty"},
		"a command id that leaves no space for the number of a second command": {[]es.ExecuteOption{es.CommandID(strings.Repeat("x", es.MaxCommand))},
			func(ctx context.Context, repo *tallies, tx *es.Tx) error {
				_ = one(ctx, repo, tx)
				return one(ctx, repo, tx)
			}, "the limit is"},
		"another store": {nil, func(ctx context.Context, repo *tallies, tx *es.Tx) error {
			_ = one(ctx, repo, tx)
			return one(ctx, other, tx)
		}, "another store"},
		"an invalid stream": {nil, func(ctx context.Context, repo *tallies, tx *es.Tx) error {
			_, err := repo.ExecuteTx(ctx, tx, "", add(1))
			return err
		}, "id of stream"},
		"a negative version": {nil, func(ctx context.Context, repo *tallies, tx *es.Tx) error {
			return one(ctx, repo, tx, es.ExpectVersion(-1))
		}, "expected version -1"},
		"a version of a decision": {nil, func(ctx context.Context, _ *tallies, tx *es.Tx) error {
			_, err := newCountdown(new(es.Mem)).ExecuteTx(ctx, tx, tick{Tag: "t"}, es.ExpectVersion(0))
			return err
		}, "has no version"},
		"no Tx":     {nil, func(ctx context.Context, repo *tallies, _ *es.Tx) error { return one(ctx, repo, nil) }, "not that of a Transact"},
		"a zero Tx": {nil, func(ctx context.Context, repo *tallies, _ *es.Tx) error { return one(ctx, repo, new(es.Tx)) }, "not that of a Transact"},
		"a Tx that is over": {nil, func(ctx context.Context, repo *tallies, _ *es.Tx) error {
			if _, err := es.Transact(ctx, func(tx *es.Tx) error { kept = tx; return one(ctx, repo, tx) }); err != nil {
				return err
			}
			return one(ctx, repo, kept)
		}, "busy or over"},
		"a command within another": {nil, func(ctx context.Context, repo *tallies, tx *es.Tx) error {
			var inner error
			_, err := repo.ExecuteTx(ctx, tx, "1", func(total) ([]added, error) {
				inner = one(ctx, repo, tx)
				return nil, nil
			})
			return errors.Join(err, inner)
		}, "busy or over"},
	} {
		f := test.f
		if f == nil {
			f = func(ctx context.Context, repo *tallies, tx *es.Tx) error { return one(ctx, repo, tx) }
		}
		for _, ignored := range []bool{false, true} {
			store := newSpy()
			_, err := es.Transact(t.Context(), func(tx *es.Tx) error {
				err := f(t.Context(), newTally(store), tx)
				if ignored && tx != nil && !strings.Contains(name, "Tx") {
					return nil
				}
				return err
			}, test.options...)
			if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 250 {
				t.Errorf("%s, error ignored %t: %v; want ErrInvalid with %q", name, ignored, err, test.want)
			}
			if records := collect(t, store, 0); len(records) != 0 && name != "a Tx that is over" {
				t.Errorf("%s: %d records were written", name, len(records))
			}
		}
	}
}

// One goroutine is still in ExecuteTx when another one uses the Tx, and when the function returns.
func TestATransactBelongsToOneGoroutine(t *testing.T) {
	for _, wait := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			store := newSpy()
			repo := newTally(store)
			hold, done := make(chan struct{}), make(chan struct{})
			_, err := es.Transact(t.Context(), func(tx *es.Tx) error {
				go func() {
					defer close(done)
					_, _ = repo.ExecuteTx(t.Context(), tx, "1", func(total) ([]added, error) { <-hold; return []added{{1}}, nil })
				}()
				synctest.Wait()
				if wait {
					_, err := repo.ExecuteTx(t.Context(), tx, "2", add(1))
					close(hold)
					<-done
					if !errors.Is(err, es.ErrInvalid) {
						t.Errorf("a second goroutine: %v; want ErrInvalid", err)
					}
					return nil
				}
				time.AfterFunc(time.Second, func() { close(hold) })
				return nil
			})
			<-done
			if !errors.Is(err, es.ErrInvalid) {
				t.Errorf("two goroutines, waited %t: %v; want ErrInvalid", wait, err)
			}
			if records := collect(t, store, 0); len(records) != 0 {
				t.Errorf("%d records were written", len(records))
			}
		})
	}
}

func TestPanicsInATransact(t *testing.T) {
	store := newSpy()
	repo := newTally(store)
	if _, err := repo.Execute(t.Context(), "1", add(1)); err != nil {
		t.Fatal(err)
	}
	boom := func(total) ([]added, error) { panic("boom") }
	for name, test := range map[string]struct {
		f    func(tx *es.Tx) error
		want any
	}{
		"in the function": {func(tx *es.Tx) error {
			_, _ = repo.ExecuteTx(t.Context(), tx, "1", add(1))
			panic("mine")
		}, "mine"},
		"in Decide": {func(tx *es.Tx) error {
			_, _ = repo.ExecuteTx(t.Context(), tx, "1", add(1))
			_, err := repo.ExecuteTx(t.Context(), tx, "2", boom)
			return err
		}, "boom"},
		"in Decide, recovered": {func(tx *es.Tx) error {
			_, _ = repo.ExecuteTx(t.Context(), tx, "1", add(1))
			defer func() { _ = recover() }()
			_, err := repo.ExecuteTx(t.Context(), tx, "2", boom)
			return err
		}, nil},
	} {
		panicked, err := func() (panicked any, err error) {
			defer func() { panicked = recover() }()
			_, err = es.Transact(t.Context(), test.f)
			return nil, err
		}()
		var p *es.PanicError
		if e, ok := panicked.(error); ok && errors.As(e, &p) {
			panicked = p.Value
		}
		if panicked != test.want || test.want == nil && (err == nil || !strings.Contains(err.Error(), "panicked")) {
			t.Errorf("%s: panic %v, %v; want %v", name, panicked, err, test.want)
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = es.Transact(t.Context(), func(tx *es.Tx) error {
			_, err := repo.ExecuteTx(t.Context(), tx, "1", func(total) ([]added, error) { runtime.Goexit(); return nil, nil })
			return err
		})
		t.Error("Transact returned although the rules have ended its goroutine")
	}()
	<-ended
	if got, err := repo.Execute(t.Context(), "1", add(1)); err != nil || got.Version != 2 || got.State.N != 2 {
		t.Errorf("after the panics: %+v, %v", got, err)
	}
	if err := repo.Close(t.Context()); err != nil {
		t.Errorf("Close after the panics: %v", err)
	}
}

func TestCloseWaitsForATransact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo, late := newTally(store), newTally(store)
		closed := make(chan error, 1)
		last, err := es.Transact(t.Context(), func(tx *es.Tx) error {
			if _, err := repo.ExecuteTx(t.Context(), tx, "1", add(1)); err != nil {
				return err
			}
			go func() { closed <- repo.Close(t.Context()) }()
			synctest.Wait()
			if len(closed) > 0 {
				t.Error("Close did not wait for a transaction in flight")
			}
			_, err := repo.ExecuteTx(t.Context(), tx, "2", add(1))
			return err
		})
		if err != nil || last != 2 {
			t.Errorf("the transaction in flight: %d, %v", last, err)
		}
		if err := <-closed; err != nil {
			t.Errorf("Close: %v", err)
		}
		if _, err := es.Transact(t.Context(), func(tx *es.Tx) error {
			_, err := late.ExecuteTx(t.Context(), tx, "1", add(1))
			if err == nil {
				_, err = repo.ExecuteTx(t.Context(), tx, "1", add(1))
			}
			return err
		}); !errors.Is(err, es.ErrClosed) {
			t.Errorf("after Close: %v; want ErrClosed", err)
		}
		if records := collect(t, store, 2); len(records) != 0 {
			t.Errorf("%d records were written after Close", len(records))
		}
	})
}

func TestTransactReturnsTheErrorOfItsContext(t *testing.T) {
	store := newSpy()
	repo := newTally(store)
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	_, err := es.Transact(ctx, func(tx *es.Tx) error {
		_, err := repo.ExecuteTx(ctx, tx, "1", add(1))
		cancel(over)
		return err
	})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, over) {
		t.Errorf("%v; want the error of the context, with its cause", err)
	}
	if _, err := es.Transact(ctx, func(*es.Tx) error { t.Error("the function ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want the error of the context", err)
	}
	if records := collect(t, store, 0); len(records) != 0 {
		t.Errorf("%d records were written", len(records))
	}
}

// Many transactions of one process use the same accounts, in both orders. Each has its turn, so the default number of retries is enough.
func TestTransactsOfOneProcessTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers = 64
		store := newSpy()
		b := newBank(store)
		opened(t, b, "ann", 10*callers)
		opened(t, b, "bob", 10*callers)
		store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
			time.Sleep(time.Millisecond)
			return write()
		}
		var all sync.WaitGroup
		for n := range callers {
			all.Go(func() {
				for range 3 {
					transfer(t, b, []string{"ann", "bob"}[n%2], []string{"bob", "ann"}[n%2], 1)
				}
			})
		}
		all.Wait()
		holds(t, store, map[string]int64{"ann": 10 * callers, "bob": 10 * callers})
		if n := b.Stats().Retries; n > 4*callers {
			t.Errorf("%d retries of %d transfers", n, 3*callers)
		}
	})
}

// A Transact within the function of another one uses the same stream. It must not wait for it without end.
func TestATransactWithinAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo := newTally(store)
		runs := 0
		_, err := es.Transact(t.Context(), func(tx *es.Tx) error {
			if _, err := repo.ExecuteTx(t.Context(), tx, "1", add(1)); err != nil || runs > 0 {
				return err
			}
			runs++
			_, err := es.Transact(t.Context(), func(tx *es.Tx) error {
				_, err := repo.ExecuteTx(t.Context(), tx, "1", add(10))
				return err
			})
			return err
		})
		if at, loading := repo.Load(t.Context(), "1"); err != nil || loading != nil || at.State.N != 11 || at.Version != 2 {
			t.Errorf("%v, %+v, %v; want both to take effect", err, at, loading)
		}
	})
}
