package es_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// again sends a command to account 1 a second time and compares the result with the first.
func again(t *testing.T, b *bank, c account.Command, first bankResult, options ...es.ExecuteOption) {
	t.Helper()
	second := execute(t, b, "1", c, options...)
	if diff := cmp.Diff(repeated(first), second); diff != "" {
		t.Errorf("another outcome the second time (-first +second):\n%s", diff)
	}
}

func TestCommandTakesEffectOnce(t *testing.T) {
	store := newSpy()
	repo := newBank(store)
	execute(t, repo, "other", account.Open{}) // so that positions are not versions
	id := es.CommandID("c1")
	open := execute(t, repo, "1", account.Open{Owner: "Ada"}, id)
	if open.Version != 1 || open.Position != 2 {
		t.Fatalf("got %+v", open)
	}
	t.Run("although the rules refuse it now", func(t *testing.T) {
		again(t, repo, account.Open{Owner: "Ada"}, open, id)
	})
	pay := execute(t, repo, "1", account.Deposit{Amount: 100}, es.CommandID("c2"))
	t.Run("although the rules would do it again", func(t *testing.T) {
		again(t, repo, account.Deposit{Amount: 100}, pay, es.CommandID("c2"))
	})
	execute(t, repo, "1", account.Withdraw{Amount: 100})
	end := execute(t, repo, "1", account.Close{}, es.CommandID("c3"))
	t.Run("although there is nothing to do now", func(t *testing.T) {
		again(t, repo, account.Close{}, end, es.CommandID("c3"))
	})
	t.Run("after much else has happened, with the state as it was then", func(t *testing.T) {
		again(t, repo, account.Deposit{Amount: 100}, pay, es.CommandID("c2"))
	})
	t.Run("through another repo, as after a restart", func(t *testing.T) {
		again(t, newBank(store), account.Deposit{Amount: 100}, pay, es.CommandID("c2"))
	})
	t.Run("although it expects a version that is gone", func(t *testing.T) {
		again(t, repo, account.Deposit{Amount: 100}, pay, es.CommandID("c2"), es.ExpectVersion(1))
	})
	t.Run("also from a snapshot", func(t *testing.T) {
		snapshots := newBank(store)
		snapshots.Snapshots, snapshots.SnapshotEvery = store.Log.(*es.Mem), 1
		if _, err := snapshots.Load(t.Context(), "1"); err != nil {
			t.Fatal(err)
		}
		if err := snapshots.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		later := newBank(store)
		later.Snapshots = store.Log.(*es.Mem)
		again(t, later, account.Deposit{Amount: 100}, pay, es.CommandID("c2"))
	})
	if n := len(stored(t, store, es.Stream{Kind: "account", ID: "1"})); n != 4 {
		t.Errorf("%d events are stored, want 4", n)
	}
}

func TestCommandIDIsPerAggregate(t *testing.T) {
	repo := newBank(newSpy())
	for _, id := range []string{"1", "2"} {
		if result := execute(t, repo, id, account.Open{}, es.CommandID("c")); result.Version != 1 {
			t.Errorf("on %s: %+v", id, result)
		}
	}
}

func TestRefusedCommandIsDecidedAgain(t *testing.T) {
	repo := newBank(newSpy())
	opened(t, repo, "1", 10)
	_, err := repo.Execute(t.Context(), "1", account.Withdraw{Amount: 100}, es.CommandID("c"))
	var refused *es.InvariantError
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, want it refused", err)
	}
	execute(t, repo, "1", account.Deposit{Amount: 90})
	if result := execute(t, repo, "1", account.Withdraw{Amount: 100}, es.CommandID("c")); result.State.Balance != 0 {
		t.Errorf("got %+v, want an empty account", result)
	}
}

func TestConcurrentDuplicatesTakeEffectOnce(t *testing.T) {
	store := newSpy()
	repos := []*bank{newBank(store), newBank(store), newBank(store)}
	opened(t, repos[0], "1", 10)
	results := make([]bankResult, 60)
	var group sync.WaitGroup
	for i := range results {
		group.Go(func() {
			var err error
			if results[i], err = repos[i%len(repos)].Execute(t.Context(), "1", account.Deposit{Amount: 5}, es.CommandID(fmt.Sprint("c", i%4))); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	firsts := make(map[int]int)
	for i := range results {
		if !results[i].Repeated {
			firsts[i%4]++
		}
		if diff := cmp.Diff(repeated(results[i%4]), repeated(results[i])); diff != "" {
			t.Errorf("two outcomes of one command:\n%s", diff)
		}
	}
	if diff := cmp.Diff(map[int]int{0: 1, 1: 1, 2: 1, 3: 1}, firsts); diff != "" {
		t.Errorf("results that are not repetitions, by command (-want +got):\n%s", diff)
	}
	if money, version := balance(t, store, "1"); money != 30 || version != 6 {
		t.Errorf("%d at version %d, want 30 at version 6", money, version)
	}
}

func TestRetryResolvesAnUnknownOutcome(t *testing.T) {
	store := newSpy()
	repo := newBank(store)
	opened(t, repo, "1", 10)
	broken := true
	store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
		position, err := write()
		if broken {
			broken = false
			return 0, fmt.Errorf("the wire broke: %w", es.ErrUnknownOutcome)
		}
		return position, err
	}
	command := account.Deposit{Amount: 5}
	if _, err := repo.Execute(t.Context(), "1", command, es.CommandID("c")); !errors.Is(err, es.ErrUnknownOutcome) {
		t.Fatalf("got %v, want that it is unknown", err)
	}
	if result := execute(t, repo, "1", command, es.CommandID("c")); result.State.Balance != 15 || result.Version != 3 {
		t.Errorf("got %+v, want 15 at version 3", result)
	}
}
