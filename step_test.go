package es_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/internal/step"
)

// handling returns the context that a reaction's handler gets for a record.
func handling(t *testing.T, by string, r es.Record, carry ...string) context.Context {
	t.Helper()
	return step.With(t.Context(), &step.Handling{By: by, Record: r.ID(), Meta: r.Meta, Carry: carry})
}

var caused = es.Record{Stream: es.Stream{Kind: "order", ID: "7"}, Version: 3, Meta: map[string]string{"user": "ann", "traceparent": "00-1", es.MetaCorrelation: "c"}}

func TestAStepTakesEffectOnceForEachReactionRecordAndName(t *testing.T) {
	store := newSpy()
	repo := newBank(store)
	execute(t, repo, "1", account.Open{Owner: "Ada"})
	another := caused
	another.Version++
	for range 2 {
		for _, s := range []struct {
			by   string
			r    es.Record
			name string
		}{{"x.1", caused, "points"}, {"y.1", caused, "points"}, {"x.1", caused, "mails"}, {"x.1", another, "points"}, {"x.2", caused, "points"}} {
			if _, err := repo.Execute(handling(t, s.by, s.r), "1", account.Deposit{Amount: 1}, es.Step(s.name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if at, err := repo.Load(t.Context(), "1"); err != nil || at.State.Balance != 5 {
		t.Errorf("5 steps, each twice, made a balance of %d, %v", at.State.Balance, err)
	}
}

func TestAStepSetsMetadata(t *testing.T) {
	store := newSpy()
	repo := newBank(store)
	execute(t, repo, "1", account.Open{Owner: "Ada"})
	meta := func(ctx context.Context, options ...es.ExecuteOption) map[string]string {
		t.Helper()
		if _, err := repo.Execute(ctx, "1", account.Deposit{Amount: 1}, options...); err != nil {
			t.Fatal(err)
		}
		all := stored(t, store, es.Stream{Kind: "account", ID: "1"})
		return all[len(all)-1].Meta
	}
	got := meta(handling(t, "x.1", caused, "user", "tenant"), es.Step("a"))
	if diff := cmp.Diff(map[string]string{"user": "ann", es.MetaCorrelation: "c", es.MetaCausation: "order/7/3"}, got); diff != "" {
		t.Errorf("the metadata of a step (-want +got):\n%s", diff)
	}
	got = meta(handling(t, "x.1", caused, "user"), es.Meta(map[string]string{"user": "bob"}), es.Step("b"))
	if diff := cmp.Diff(map[string]string{"user": "bob", es.MetaCorrelation: "c", es.MetaCausation: "order/7/3"}, got); diff != "" {
		t.Errorf("the metadata of a step with Meta (-want +got):\n%s", diff)
	}
	first := caused
	first.Meta = nil
	if got = meta(handling(t, "x.1", first), es.Step("c")); got[es.MetaCorrelation] != "order/7/3" {
		t.Errorf("a chain began with the metadata %v", got)
	}
}

func TestAStepIsRefused(t *testing.T) {
	repo := newBank(newSpy())
	inside := handling(t, "x.1", caused)
	for name, test := range map[string]struct {
		ctx     context.Context
		options []es.ExecuteOption
	}{
		"outside a handler":          {t.Context(), []es.ExecuteOption{es.Step("a")}},
		"beside a command id":        {inside, []es.ExecuteOption{es.Step("a"), es.CommandID("b")}},
		"without a name":             {inside, []es.ExecuteOption{es.Step("")}},
		"with a slash":               {inside, []es.ExecuteOption{es.Step("a/b")}},
		"with a name of 1,000 bytes": {inside, []es.ExecuteOption{es.Step(string(make([]byte, 1000)))}},
	} {
		if _, err := repo.Execute(test.ctx, "1", account.Open{Owner: "Ada"}, test.options...); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("a step %s: got %v, want an error that wraps ErrInvalid", name, err)
		}
	}
	if at, err := repo.Load(t.Context(), "1"); err != nil || at.Version != 0 {
		t.Errorf("the refused steps left version %d, %v", at.Version, err)
	}
}

// A reaction with a checkpoint of a release before has executed commands with the ids of its records.
func TestAStepOfAnOldCheckpointHasTheIDOfItsRecord(t *testing.T) {
	repo := newBank(newSpy())
	execute(t, repo, "1", account.Open{Owner: "Ada"})
	execute(t, repo, "2", account.Open{Owner: "Bob"})
	first := execute(t, repo, "1", account.Deposit{Amount: 1}, es.CommandID(caused.ID()))
	ctx := handling(t, "", caused)
	for range 2 {
		second, err := repo.Execute(ctx, "1", account.Deposit{Amount: 1}, es.Step("pay"))
		if err != nil || !second.Repeated || second.Version != first.Version {
			t.Errorf("the step came to version %d, %v: want that of its first run, %d", second.Version, err, first.Version)
		}
	}
	if _, err := repo.Execute(ctx, "2", account.Deposit{Amount: 1}, es.Step("other")); err != nil {
		t.Errorf("a step on another stream: %v", err)
	}
	if _, err := repo.Execute(ctx, "1", account.Deposit{Amount: 1}, es.Step("other")); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("a second step on the stream came to %v: it would be taken for the first", err)
	}
}

func TestNotAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo := newBank(store)
		execute(t, repo, "1", account.Open{Owner: "Ada"})
		deadline := es.NotAfter(time.Now().Add(time.Minute))
		id := es.CommandID("in time")
		first := execute(t, repo, "1", account.Deposit{Amount: 1}, deadline, id)
		execute(t, repo, "1", account.Deposit{Amount: 1}, es.NotAfter(time.Time{}))
		time.Sleep(time.Minute)
		execute(t, repo, "1", account.Deposit{Amount: 1}, deadline)
		time.Sleep(time.Nanosecond)
		for _, options := range [][]es.ExecuteOption{{deadline}, {deadline, es.CommandID("late")}, {deadline, es.ExpectVersion(1)}} {
			if _, err := repo.Execute(t.Context(), "1", account.Deposit{Amount: 1}, options...); !errors.Is(err, es.ErrExpired) {
				t.Errorf("after the time: got %v, want ErrExpired", err)
			}
		}
		again(t, repo, account.Deposit{Amount: 1}, first, deadline, id)
		if at, err := repo.Load(t.Context(), "1"); err != nil || at.State.Balance != 3 {
			t.Errorf("the balance is %d, %v, want 3", at.State.Balance, err)
		}
	})
}

// A command whose time runs out while it waits for a conflict to be resolved is refused too.
func TestNotAfterCountsForEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo := newBank(store)
		execute(t, repo, "1", account.Open{Owner: "Ada"})
		store.append = func(_ context.Context, appends []es.Append, _ func() (es.Position, error)) (es.Position, error) {
			time.Sleep(time.Second)
			return 0, &es.ConflictError{Stream: appends[0].Stream, Expected: appends[0].Expected}
		}
		if _, err := repo.Execute(t.Context(), "1", account.Deposit{Amount: 1}, es.NotAfter(time.Now().Add(time.Second/2))); !errors.Is(err, es.ErrExpired) {
			t.Errorf("after a conflict the command came to %v: want ErrExpired", err)
		}
	})
}
