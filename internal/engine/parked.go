package engine

import (
	"context"
	"slices"

	"github.com/thalo-go/es"
)

// serve carries out requests to retry or drop parked records.
func (s *shardWorker[Tx]) serve(ctx context.Context, requests []Request) error {
	for _, w := range requests {
		if err := s.retryParked(ctx, w.Stream); err != nil {
			return err
		}
	}
	if len(requests) > 0 {
		s.mu.Lock()
		s.orders.requests = slices.DeleteFunc(slices.Clone(s.orders.requests), func(w Request) bool { return slices.Contains(requests, w) })
		s.mu.Unlock()
	}
	return nil
}

// retryParked tries the parked records of a stream, in order, until one fails. The request is stored with the first of them.
func (s *shardWorker[Tx]) retryParked(ctx context.Context, stream es.Stream) error {
	for first := true; ; first = false {
		p, want, found, err := s.engine.ledger.FirstParked(ctx, s.key, stream)
		switch {
		case err != nil:
			return err
		case !found:
			delete(s.parked, stream)
			return nil
		case want == "" && first:
			return nil // already done
		}
		err = s.unpark(ctx, p.Record, want == RequestDrop)
		f := s.handlerErrorIn(ctx, err)
		if f == nil && err != nil {
			return err
		}
		if f != nil {
			if eventType, unknown := unknownType(f); unknown {
				return &unknownError{eventType, p.Record, f.error} // the request stays for a worker that knows it
			}
			s.task.log.Warn("parked record failed again", "record", p.Record.ID(), "err", f.error)
			return s.recordParkedError(ctx, p.Record, f)
		}
	}
}

// unpark removes a parked record. Unless it is dropped, the handler gets it in the same transaction.
func (s *shardWorker[Tx]) unpark(ctx context.Context, r es.Record, drop bool) error {
	if s.task.react != nil && !drop {
		if err := s.react(ctx, r); err != nil {
			return &handlerError{err}
		}
	}
	handled := false
	err := s.engine.ledger.Transact(ctx, Options{Idle: s.task.lease}, func(ctx context.Context, tx Tx) error {
		handled = false
		if err := s.move(ctx, tx, Target{s.row.Cursor, s.row.Time, false}); err != nil {
			return err
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
