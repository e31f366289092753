package es_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

func TestCachedStateIsNotReadAgain(t *testing.T) {
	store := newSpy()
	repo := newBank(store)
	opened(t, repo, "1", 100)
	store.take()
	for range 5 {
		execute(t, repo, "1", account.Withdraw{Amount: 10})
	}
	if diff := cmp.Diff(notes{Appends: []int{1, 1, 1, 1, 1}}, store.take()); diff != "" {
		t.Errorf("what the store was asked (-want +got):\n%s", diff)
	}
}

func TestLeastRecentlyUsedStateIsEvicted(t *testing.T) {
	store := newSpy()
	repo := newBank(store)
	repo.CacheSize = 1
	opened(t, repo, "1", 100)
	opened(t, repo, "2", 100)
	store.take()
	execute(t, repo, "1", account.Deposit{Amount: 1})
	if got := store.take(); len(got.Reads) != 1 || got.Records != 2 {
		t.Errorf("the store was asked %+v, want one read of two records", got)
	}
}

func TestConflictReadsOnlyTheTail(t *testing.T) {
	store := newSpy()
	mine, theirs := newBank(store), newBank(store)
	opened(t, mine, "1", 100)
	for range 3 {
		execute(t, theirs, "1", account.Deposit{Amount: 1})
	}
	store.take()
	result := execute(t, mine, "1", account.Withdraw{Amount: 100})
	if result.State.Balance != 3 || result.Version != 6 {
		t.Errorf("got %+v, want 3 at version 6", result)
	}
	// From the record at which the cached state stands, version 2, on.
	if diff := cmp.Diff(notes{Reads: []es.Version{1}, Records: 4, Appends: []int{1, 1}}, store.take()); diff != "" {
		t.Errorf("what the store was asked (-want +got):\n%s", diff)
	}
}

func TestStaleRefusalIsDecidedAgain(t *testing.T) {
	store := newSpy()
	mine, theirs := newBank(store), newBank(store)
	opened(t, mine, "1", 10)
	execute(t, theirs, "1", account.Deposit{Amount: 90})
	if result := execute(t, mine, "1", account.Withdraw{Amount: 100}); result.State.Balance != 0 {
		t.Errorf("got %+v: the money was there, paid in through another repo", result)
	}
	execute(t, mine, "1", account.Close{})
	store.take()
	if result := execute(t, mine, "1", account.Close{}); result.Events != nil || result.Version != 5 || result.Position != 5 {
		t.Errorf("closing a closed account: %+v, want no events, at version and position 5", result)
	}
	if got := store.take(); len(got.Reads) != 1 || len(got.Appends) != 0 {
		t.Errorf("a no-op asked the store %+v, want one look at the tail", got)
	}
}

// always makes a rival write just before each of the first n appends.
func always(t *testing.T, store *spy, n int) *atomic.Int64 {
	rival := newBank(store.Log)
	var tries atomic.Int64
	store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
		if tries.Add(1) <= int64(n) {
			execute(t, rival, "1", account.Deposit{Amount: 1})
		}
		return write()
	}
	return &tries
}

func TestRetries(t *testing.T) {
	for _, test := range []struct {
		name             string
		retries, rivals  int
		tries            int64
		conflict, paused bool
	}{
		{"by default as often as is documented", 0, 16, 17, false, true},
		{"and then no more", 0, 100, 17, true, true},
		{"at once after the first conflict", 0, 1, 2, false, false},
		{"as often as is set", 3, 100, 4, true, true},
		{"not at all", -1, 100, 1, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newSpy()
				repo := newBank(store)
				repo.Retries = test.retries
				opened(t, newBank(store.Log), "1", 100)
				tries := always(t, store, test.rivals)
				begin := time.Now()
				_, err := repo.Execute(t.Context(), "1", account.Withdraw{Amount: 100})
				var conflict *es.ConflictError
				if errors.As(err, &conflict) != test.conflict || !test.conflict && err != nil {
					t.Errorf("got the error %v", err)
				}
				if tries.Load() != test.tries {
					t.Errorf("%d tries, want %d", tries.Load(), test.tries)
				}
				if paused := time.Since(begin) > 0; paused != test.paused {
					t.Errorf("there were pauses of %v in all", time.Since(begin))
				}
				if limit := 2 * time.Second; time.Since(begin) > limit {
					t.Errorf("the pauses add up to %v, want at most %v", time.Since(begin), limit)
				}
			})
		})
	}
}

func TestPauseEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo := newBank(store)
		repo.Retries = 1_000_000
		opened(t, newBank(store.Log), "1", 100)
		always(t, store, 1_000_000)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := repo.Execute(ctx, "1", account.Withdraw{Amount: 100}); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, es.ErrUnknownOutcome) {
			t.Errorf("got %v, want the end of the context, and nothing unknown", err)
		}
	})
}

func TestExpectVersion(t *testing.T) {
	store := newSpy()
	mine, theirs := newBank(store), newBank(store)
	opened(t, mine, "1", 100)
	execute(t, theirs, "1", account.Deposit{Amount: 1})

	t.Run("of the version that is there, which the cache does not know yet", func(t *testing.T) {
		if result := execute(t, mine, "1", account.Withdraw{Amount: 1}, es.ExpectVersion(3)); result.Version != 4 {
			t.Errorf("got %+v, want version 4", result)
		}
	})
	for _, v := range []es.Version{0, 2, 5} {
		t.Run(fmt.Sprintf("of version %d, which is not there", v), func(t *testing.T) {
			_, err := mine.Execute(t.Context(), "1", account.Withdraw{Amount: 1}, es.ExpectVersion(v))
			var conflict *es.ConflictError
			if !errors.As(err, &conflict) || conflict.Expected != v || conflict.Stream.ID != "1" {
				t.Errorf("got %v, want a conflict of version %d", err, v)
			}
		})
	}
	t.Run("does not retry a lost race", func(t *testing.T) {
		at, err := mine.Load(t.Context(), "1")
		version := at.Version
		if err != nil {
			t.Fatal(err)
		}
		tries := always(t, store, 1)
		_, err = mine.Execute(t.Context(), "1", account.Withdraw{Amount: 1}, es.ExpectVersion(version))
		var conflict *es.ConflictError
		if !errors.As(err, &conflict) || tries.Load() != 1 {
			t.Errorf("got %v after %d tries, want a conflict after one", err, tries.Load())
		}
	})
}

func TestLoadReadsTheStore(t *testing.T) {
	store := newSpy()
	mine, theirs := newBank(store), newBank(store)
	if at, err := mine.Load(t.Context(), "1"); err != nil || at.Version != 0 || at.State != (account.Account{}) {
		t.Errorf("of a stream without events: %+v, %d, %v", at.State, at.Version, err)
	}
	opened(t, mine, "1", 100)
	execute(t, theirs, "1", account.Deposit{Amount: 11})
	if at, err := mine.Load(t.Context(), "1"); err != nil || at.Version != 3 || at.State.Balance != 111 {
		t.Errorf("of a cached state: %+v, %d, %v; want what another repo has written", at.State, at.Version, err)
	}
	for v, want := range []int64{0, 0, 100, 111} {
		if at, err := mine.LoadAt(t.Context(), "1", es.Version(v)); err != nil || at.State.Balance != want {
			t.Errorf("at version %d: %+v, %v; want %d", v, at.State, err, want)
		}
	}
	for _, v := range []es.Version{-1, 4} {
		if _, err := mine.LoadAt(t.Context(), "1", v); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("at version %d: %v, want it refused", v, err)
		}
	}
}

func TestMetadata(t *testing.T) {
	store := newSpy()
	repo := newBank(store)
	execute(t, repo, "1", account.Open{}, es.Meta(map[string]string{"by": "ann", "from": "web"}), es.Meta(map[string]string{"by": "bob"}))
	first := stored(t, store, es.Stream{Kind: "account", ID: "1"})[0]
	if diff := cmp.Diff(map[string]string{"by": "bob", "from": "web"}, first.Meta); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	execute(t, repo, "2", account.Open{}, es.CausedBy(first))
	second := stored(t, store, es.Stream{Kind: "account", ID: "2"})[0]
	execute(t, repo, "3", account.Open{}, es.CausedBy(second))
	third := stored(t, store, es.Stream{Kind: "account", ID: "3"})[0]
	for _, r := range []struct {
		record    es.Record
		causation string
	}{{second, "account/1/1"}, {third, "account/2/1"}} {
		want := map[string]string{es.MetaCorrelation: "account/1/1", es.MetaCausation: r.causation}
		if diff := cmp.Diff(want, r.record.Meta); diff != "" {
			t.Errorf("%s (-want +got):\n%s", r.record.ID(), diff)
		}
	}
}

func TestInvalidInputIsRefusedBeforeTheStoreIsCalled(t *testing.T) {
	store := newSpy()
	repo := newBank(store)
	for name, do := range map[string]func() error{
		"an empty id":         func() error { _, err := repo.Execute(t.Context(), "", account.Open{}); return err },
		"an id with a NUL":    func() error { _, err := repo.Execute(t.Context(), "a\x00", account.Open{}); return err },
		"an empty command id": func() error { _, err := repo.Execute(t.Context(), "1", account.Open{}, es.CommandID("")); return err },
		"an expected version that cannot be": func() error {
			_, err := repo.Execute(t.Context(), "1", account.Open{}, es.ExpectVersion(es.AnyVersion))
			return err
		},
		"an empty id at version 0": func() error { _, err := repo.LoadAt(t.Context(), "", 0); return err },
		"a version below 0":        func() error { _, err := repo.LoadAt(t.Context(), "1", -1); return err },
		"a command id with a NUL": func() error {
			_, err := repo.Execute(t.Context(), "1", account.Open{}, es.CommandID("\x00"))
			return err
		},
	} {
		if err := do(); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
	if diff := cmp.Diff(notes{}, store.take()); diff != "" {
		t.Errorf("the store was asked (-want +got):\n%s", diff)
	}
}

func TestDivergedStateIsReloaded(t *testing.T) {
	now := new(es.Mem)
	store := newSpy()
	repo := newBank(store)
	opened(t, repo, "1", 100)
	execute(t, repo, "1", account.Deposit{Amount: 50})
	// The store is restored from an older copy, and others have written something else in place of what was lost.
	restored := newBank(now)
	opened(t, restored, "1", 100)
	execute(t, restored, "2", account.Open{Owner: "Bob"})
	execute(t, restored, "1", account.Deposit{Amount: 7})
	store.Log = now
	if at, err := repo.Load(t.Context(), "1"); err != nil || at.State.Balance != 107 || at.Version != 3 {
		t.Errorf("got %+v, %d, %v; want 107 at version 3", at.State, at.Version, err)
	}
	if result := execute(t, repo, "1", account.Withdraw{Amount: 107}); result.State.Balance != 0 || result.Version != 4 {
		t.Errorf("got %+v, want an empty account at version 4", result)
	}
}

func TestRewoundStoreIsReadFromTheBeginning(t *testing.T) {
	store := newSpy()
	repo := newBank(store)
	opened(t, repo, "1", 100)
	store.take()
	lost := true
	store.append = func(_ context.Context, appends []es.Append, write func() (es.Position, error)) (es.Position, error) {
		if lost {
			lost = false
			return 0, fmt.Errorf("%w: %w", &es.ConflictError{Stream: appends[0].Stream, Expected: appends[0].Expected}, es.ErrRewound)
		}
		return write()
	}
	execute(t, repo, "1", account.Withdraw{Amount: 1})
	if diff := cmp.Diff(notes{Reads: []es.Version{0}, Records: 2, Appends: []int{1, 1}}, store.take()); diff != "" {
		t.Errorf("what the store was asked (-want +got):\n%s", diff)
	}
}
