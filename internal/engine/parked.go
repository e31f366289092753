package engine

import (
	"context"
	"slices"
	"time"

	"github.com/thalo-go/es"
)

// retryFor is how long parked records are retried before the other records of the shard are applied.
const retryFor = 100 * time.Millisecond

// serve carries out requests to retry or drop parked records, for a limited time, and reports whether there is more to do. It begins after
// the stream at which it stopped the last time, so that streams with many parked records do not delay the others.
func (s *shardWorker[Tx]) serve(ctx context.Context, requests []Request) (more bool, err error) {
	if len(requests) == 0 {
		return false, nil
	}
	i := 1 + slices.IndexFunc(requests, func(w Request) bool { return w.Stream == s.retried })
	requests = slices.Concat(requests[i:], requests[:i])
	until := time.Now().Add(retryFor)
	var done []Request
	for _, w := range requests {
		s.retried = w.Stream
		over, err := s.retryParked(ctx, w.Stream, until)
		if err != nil {
			return false, err
		}
		if over {
			done = append(done, w)
		}
		if time.Now().After(until) {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders.requests = slices.DeleteFunc(slices.Clone(s.orders.requests), func(w Request) bool { return slices.Contains(done, w) })
	return len(s.orders.requests) > 0, nil
}

// retryParked tries the parked records of a stream, in order, until one fails or the time is over. It reports whether nothing is left to do.
// The request is stored with the first of them, so that another worker can continue.
func (s *shardWorker[Tx]) retryParked(ctx context.Context, stream es.Stream, until time.Time) (over bool, err error) {
	for first := true; ; first = false {
		p, want, found, err := s.engine.ledger.FirstParked(ctx, s.key, stream)
		switch {
		case err != nil:
			return false, err
		case !found: // seen before anything else of the stream is handled, or that would be parked behind nothing
			delete(s.parked, stream)
			return true, nil
		case want == "" && first:
			return true, nil // already done
		case !first && !time.Now().Before(until):
			return false, nil
		}
		err = s.unpark(ctx, p.Record, want == RequestDrop)
		f := s.handlerErrorIn(ctx, err)
		if f == nil && err != nil {
			return false, err
		}
		if f != nil {
			if eventType, unknown := unknownType(f); unknown {
				return false, &unknownError{eventType, p.Record, f.error} // the request stays for a worker that knows it
			}
			s.task.log.Warn("parked record failed again", "record", p.Record.ID(), "err", f.error)
			return true, s.recordParkedError(ctx, p.Record, f)
		}
	}
}

// unpark removes a parked record. Unless it is dropped, the handler gets it in the same transaction.
func (s *shardWorker[Tx]) unpark(ctx context.Context, r es.Record, drop bool) error {
	var later []Timer
	if s.task.due != nil && !drop {
		var err error
		if later, err = s.stillEarly(ctx, r); err != nil && s.engine.ledger.Passing(err) {
			return err
		} else if err != nil {
			return &handlerError{err}
		}
	}
	if s.task.react != nil && !drop && len(later) == 0 {
		if err := s.react(ctx, r); err != nil {
			return &handlerError{err}
		}
	}
	handled := false
	err := s.transact(ctx, s.task.handle != nil && !drop, false, func(ctx context.Context, tx Tx) error {
		handled = false
		if err := s.move(ctx, tx, Target{s.row.Cursor, s.row.Time, false}); err != nil {
			return err
		}
		if len(later) > 0 {
			if err := s.engine.ledger.Enrol(ctx, tx, s.key, later); err != nil {
				return err
			}
		}
		if err := s.engine.ledger.Unpark(ctx, tx, s.key, r); err != nil || drop || s.task.handle == nil {
			return err
		}
		if err := s.task.guard(func() error { return s.task.handle(ctx, tx, []es.Record{r}) }); err != nil {
			return &handlerError{err}
		}
		handled = true
		return nil
	})
	if err == nil {
		s.enrolled(later)
	}
	if err != nil && handled && !s.engine.ledger.Passing(err) {
		return &handlerError{err}
	}
	return err
}

// recordParkedError stores the error of a parked record that failed again.
func (s *shardWorker[Tx]) recordParkedError(ctx context.Context, r es.Record, f *handlerError) error {
	return s.engine.ledger.Transact(ctx, Options{}, func(ctx context.Context, tx Tx) error {
		if err := s.move(ctx, tx, Target{s.row.Cursor, s.row.Time, false}); err != nil {
			return err
		}
		return s.engine.ledger.FailParked(ctx, tx, s.key, r, errorText(f.error))
	})
}
