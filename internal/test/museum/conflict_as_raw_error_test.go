package museum_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/thalo-go/es"
)

// The failure: the version is compared first, and most conflicts are reported well. A writer that loses the race
// between that and the insert gets the driver's unique violation.
//
// Not here: each backend maps the driver's error by its code. Every lost race is a *ConflictError, which Execute
// retries.
func TestConflictAsRawError(t *testing.T) {
	ours(t, func(t *testing.T, p place) error {
		log := p.open(t)
		return rawConflicts(t, race{
			append: func(ctx context.Context, stream string) error {
				_, err := log.Append(ctx, es.Append{Stream: account(stream), Expected: 0, Events: []es.Record{noted("x")}})
				return err
			},
			begin: feedOf(t, p).begin,
			waits: func(t *testing.T) {
				if p.name == "Postgres" {
					locked(t, p.url)
				}
			},
			isConflict: isConflict,
		})
	})
	t.Run("Postgres, with an insert by hand that takes no lock", func(t *testing.T) {
		p := onPostgres(t)
		log := p.open(t)
		finds(t, false, rawConflicts(t, race{
			append: func(ctx context.Context, stream string) error {
				_, err := log.Append(ctx, es.Append{Stream: account(stream), Expected: 0, Events: []es.Record{noted("x")}})
				return err
			},
			begin: func(t testing.TB, text string) func() {
				tx, err := connect(t, p.url).Begin(t.Context())
				must(t, err)
				_, err = tx.Exec(t.Context(), `insert into es.events (position, kind, id, version, time, type, data, meta, token)
					select count(*) + 1, 'account', $1, 1, now(), 'noted', '', '', -1 from es.events`, text)
				must(t, err)
				return func() { must(t, tx.Commit(t.Context())) }
			},
			waits:      func(t *testing.T) { locked(t, p.url) },
			isConflict: isConflict,
		}))
	})
	control(t, "compare, then insert", func(t *testing.T) error {
		p := onPostgres(t)
		b := newTextbook(t, p.url)
		return rawConflicts(t, race{
			append:     func(ctx context.Context, stream string) error { return b.append(ctx, stream, 0, "x") },
			begin:      func(t testing.TB, text string) func() { return b.begin(t, text, text) },
			waits:      func(t *testing.T) { locked(t, p.url) },
			isConflict: func(err error) bool { return errors.Is(err, errConflict) },
		})
	})
}

// A race is between appends that each expect the stream to be new.
type race struct {
	append     func(ctx context.Context, stream string) error
	begin      func(t testing.TB, stream string) (commit func()) // nil if no transaction stays open
	waits      func(t *testing.T)                                // until an append waits for the transaction
	isConflict func(error) bool
}

// rawConflicts looks for a lost race that is not reported as a conflict.
func rawConflicts(t *testing.T, r race) error {
	if r.begin != nil {
		commit := r.begin(t, "held")
		lost := make(chan error, 1)
		go func() { lost <- r.append(t.Context(), "held") }()
		r.waits(t)
		commit()
		if err := <-lost; !r.isConflict(err) {
			return fmt.Errorf("an append that waited for the winner's commit got: %w", err)
		}
	}
	const racers = 32
	errs := make([]error, racers)
	var all sync.WaitGroup
	for i := range racers {
		all.Go(func() { errs[i] = r.append(t.Context(), "open") })
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !r.isConflict(err):
			return fmt.Errorf("a loser got: %w", err)
		}
	}
	if won != 1 {
		return fmt.Errorf("%d of %d appends to a new stream succeeded", won, racers)
	}
	return nil
}
