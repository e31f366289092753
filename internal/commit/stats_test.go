package commit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/batch"
	"github.com/thalo-go/es/internal/commit"
)

// A caller that asks learns how many appends its transaction had, and how long it has waited for that alone.
func TestCallersLearnAboutTheirTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{write: func(context.Context) { time.Sleep(time.Second) }}
		q := b.queue(commit.Options{})
		type told struct {
			Size   int
			Waited time.Duration
		}
		var infos []*batch.Info
		var answers []<-chan result
		for i := range 4 {
			ctx, info := batch.Ask(t.Context())
			infos = append(infos, info)
			appends := request(fmt.Sprint(i), 1, 0)
			if i == 3 {
				appends = append(appends, request("more", 1, 0)...)
			}
			answers = append(answers, send(ctx, q, appends))
			if i == 1 {
				time.Sleep(300 * time.Millisecond)
			}
		}
		if waiting := q.Stats().Waiting; waiting != 3 {
			t.Errorf("%d calls wait, want 3", waiting)
		}
		for _, answer := range answers {
			<-answer
		}
		var got []told
		for _, info := range infos {
			got = append(got, told{info.Size(), info.Waited()})
		}
		want := []told{{1, 0}, {4, time.Second}, {4, 700 * time.Millisecond}, {4, 700 * time.Millisecond}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("what the callers were told (-want +got):\n%s", diff)
		}
		stats := q.Stats()
		if stats.Batches != 2 || stats.BatchSize.Sum != 5 || stats.Batch.Sum != 2 || stats.Waiting != 0 {
			t.Errorf("got %+v, want two transactions of 5 appends and a second each", stats)
		}
		q.Close()
	})
}

// A transaction that could not begin is none, and the caller gets no answer about one.
func TestATransactionThatDoesNotBeginIsNotCounted(t *testing.T) {
	away := errors.New("away")
	b := &backend{begin: func(context.Context) error { return away }}
	q := b.queue(commit.Options{})
	ctx, info := batch.Ask(t.Context())
	if _, err := q.Append(ctx, request("a", 1, 0)); !errors.Is(err, away) {
		t.Fatal(err)
	}
	if stats := q.Stats(); stats.Batches != 0 || stats.BatchSize.Count() != 0 || info.Size() != 0 {
		t.Errorf("got %+v and the size %d, want none", stats, info.Size())
	}
}

// Every call is counted once, by what its error is, however that is wrapped.
func TestCallsAreCountedByTheirError(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("x: %w", err) }
	for _, test := range []struct {
		name string
		err  error
		want es.Stats
	}{
		{"success", nil, es.Stats{Events: 2}},
		{"conflict", wrap(&es.ConflictError{}), es.Stats{Conflicts: 1}},
		{"duplicate", wrap(&es.DuplicateError{}), es.Stats{Duplicates: 1}},
		{"unknown outcome", wrap(fmt.Errorf("%w: %w", es.ErrUnknownOutcome, context.Canceled)), es.Stats{Unknown: 1}},
		{"invalid input", wrap(es.ErrInvalid), es.Stats{Refused: 1}},
		{"refusal of a handler with a conflict", wrap(refuses{&es.ConflictError{}}), es.Stats{Refused: 1}},
		{"end of the context", wrap(context.Canceled), es.Stats{Failed: 1}},
		{"closed store", wrap(es.ErrClosed), es.Stats{Failed: 1}},
		{"unavailable database", wrap(es.ErrUnavailable), es.Stats{Failed: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := commit.New(nil, commit.Options{})
			q.Count(q.Clock(), request("a", 2, 0), test.err)
			got := q.Stats()
			if n := got.Append.Count(); n != 1 {
				t.Errorf("%d calls have a duration", n)
			}
			got.Append, got.Batch, got.BatchSize = es.Histogram{}, es.Histogram{}, es.Histogram{}
			test.want.Appends = 1
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
		})
	}
}

type refuses struct{ error }

func (r refuses) Unwrap() error { return r.error }
func (r refuses) Refuses()      {}
