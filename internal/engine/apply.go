package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/guard"
	"github.com/thalo-go/es/internal/step"
	"github.com/thalo-go/es/projection"
)

// handlerError is an error caused by the handler, including a constraint violation at commit.
type handlerError struct{ error }

func (f *handlerError) Unwrap() error { return f.error }

// handlerErrorIn returns the handlerError in err. It returns nil for anything else: a fault of the database, the end of the context,
// a lost shard.
func (s *shardWorker[Tx]) handlerErrorIn(ctx context.Context, err error) *handlerError {
	f, handlers := errors.AsType[*handlerError](err)
	if !handlers || ctx.Err() != nil || s.passing(err) {
		f = nil
	}
	return f
}

// passing reports whether an error is transient: a fault of the database, or an error that wraps es.ErrUnavailable. A network error is not
// transient by itself, because the record may name a host that does not exist.
func (s *shardWorker[Tx]) passing(err error) bool {
	return s.engine.ledger.Passing(err) || errors.Is(err, es.ErrUnavailable)
}

// apply applies a piece to the read model. A piece that fails is retried, and then divided to find the record that fails.
func (s *shardWorker[Tx]) apply(ctx context.Context, p piece) error {
	err := s.attempt(ctx, p)
	f := s.handlerErrorIn(ctx, err)
	if f == nil {
		return err
	}
	if eventType, unknown := unknownType(f); unknown && s.task.react == nil {
		return s.unknown(ctx, p, f, eventType)
	}
	if p.due != nil {
		return s.handleFailed(ctx, s.firing.part(0, 1), f)
	}
	if s.task.react != nil { // the records before the one that failed have been handled
		return s.handleFailed(ctx, p.part(len(p.records)-len(s.pending.Records), len(p.records)).part(0, 1), f)
	}
	if len(p.records) > 1 && p.to > s.suspect {
		if f, err = s.retry(ctx, p, f); f == nil {
			return err
		}
	}
	s.suspect = max(s.suspect, p.to)
	return s.search(ctx, p, f)
}

// retry tries a piece again, with growing pauses. It returns the last handlerError, or nil if there was another result.
func (s *shardWorker[Tx]) retry(ctx context.Context, p piece, f *handlerError) (*handlerError, error) {
	var pause pause
	for range s.task.retries {
		s.retrying(ctx, f)
		if err := pause.wait(ctx); err != nil {
			return nil, err
		}
		err := s.attempt(ctx, p)
		if f = s.handlerErrorIn(ctx, err); f == nil {
			return nil, err
		}
	}
	return f, nil
}

// search divides a failed piece until the record that fails is alone, and applies the records before it.
// Later records are left for the next call of apply.
func (s *shardWorker[Tx]) search(ctx context.Context, p piece, f *handlerError) error {
	for len(s.unblocked(p.records)) > 1 {
		half := len(p.records) / 2
		left, right := p.part(0, half), p.part(half, len(p.records))
		err := s.attempt(ctx, left)
		if failed := s.handlerErrorIn(ctx, err); failed != nil {
			p, f = left, failed
			continue
		}
		if err == nil {
			err = s.attempt(ctx, right)
		}
		if p, f = right, s.handlerErrorIn(ctx, err); f == nil {
			return err
		}
	}
	return s.handleFailed(ctx, p, f)
}

// handleFailed retries the one record of a piece that the handler failed on, and then parks it or stops.
func (s *shardWorker[Tx]) handleFailed(ctx context.Context, p piece, f *handlerError) error {
	if eventType, unknown := unknownType(f); unknown {
		return &unknownError{eventType, s.unblocked(p.records)[0], f.error}
	}
	f, err := s.retry(ctx, p, f)
	if f == nil {
		return err
	}
	culprit := s.unblocked(p.records)[0]
	if s.task.onError == es.Park {
		s.task.log.Error("record parked", "record", culprit.ID(), "position", int64(culprit.Position), "err", f.error)
		return s.commit(ctx, p, nil, f)
	}
	s.recordError(ctx, f.error)
	return &projection.Error{Name: s.key.Name, Version: s.key.Version, Record: culprit, Err: f.error}
}

// attempt applies a piece once.
func (s *shardWorker[Tx]) attempt(ctx context.Context, p piece) error {
	if s.task.react != nil {
		return s.reactTo(ctx, p)
	}
	return s.commit(ctx, p, s.task.handle, nil)
}

// commit moves the checkpoint to the end of a piece, in one transaction with what handle writes, if it is not nil. It also parks
// the blocked records, and the one that failed if f is not nil.
func (s *shardWorker[Tx]) commit(ctx context.Context, p piece, handle func(context.Context, Tx, []es.Record) error, f *handlerError) error {
	good, handled, began := s.unblocked(p.records), false, time.Now()
	at := s.row.Time
	if n := len(p.records); n > 0 {
		at = p.records[n-1].Time.UnixMicro()
	}
	err := s.transact(ctx, handle != nil && len(good) > 0, len(p.records) == 0, func(ctx context.Context, tx Tx) error {
		handled = false
		to := Target{p.to, at, p.end()}
		if p.due != nil {
			to = Target{s.row.Cursor, s.row.Time, false}
		}
		if err := s.move(ctx, tx, to); err != nil {
			return err
		}
		if err := s.keepTimers(ctx, tx, p); err != nil {
			return err
		}
		if handle != nil && len(good) > 0 {
			if err := s.task.guard(func() error { return handle(ctx, tx, slices.Clip(good)) }); err != nil {
				return &handlerError{err}
			}
		}
		if err := s.parkBlocked(ctx, tx, p, f); err != nil {
			return err
		}
		handled = handle != nil && len(good) > 0
		return nil
	})
	s.adapt(time.Since(began))
	if err != nil {
		if handled && !errors.Is(err, ErrEndsTransaction) && !s.engine.ledger.Passing(err) {
			return &handlerError{err} // a deferred constraint, or an error that the handler ignored
		}
		return err
	}
	if f != nil {
		s.parked[good[0].Stream] = true
	}
	return s.applied(p)
}

// transact runs a transaction of the shard, which may call the handler.
func (s *shardWorker[Tx]) transact(ctx context.Context, calls, quiet bool, work func(ctx context.Context, tx Tx) error) error {
	o := Options{Idle: s.task.lease, Quiet: quiet}
	if !calls {
		return s.engine.ledger.Transact(ctx, o, work)
	}
	o.Handler = s.handler(ctx)
	return s.task.transact(ctx, o, work)
}

// move moves the checkpoint from the last known cursor, under the last known claim. This compare-and-set makes delivery exactly-once.
func (s *shardWorker[Tx]) move(ctx context.Context, tx Tx, to Target) error {
	moved, err := s.engine.ledger.Move(ctx, tx, s.key, s.row, to)
	if err == nil && !moved {
		err = errLost
	}
	return err
}

// parkBlocked parks the records of a piece that wait for another of their stream, and the one that failed if f is not nil.
func (s *shardWorker[Tx]) parkBlocked(ctx context.Context, tx Tx, p piece, f *handlerError) error {
	for i := range p.records {
		r := &p.records[i]
		message, attempts := "", 0
		if !s.isBlocked(*r) || p.isLater(r.Position) {
			if f == nil {
				continue
			}
			message, attempts = errorText(f.error), 1+max(s.task.retries, 0)
		}
		if err := s.engine.ledger.Park(ctx, tx, s.key, s.shard, r, message, attempts); err != nil {
			return err
		}
	}
	return nil
}

// adapt adjusts the number of records in a transaction, so that it neither blocks other writers nor lasts for too long.
func (s *shardWorker[Tx]) adapt(took time.Duration) {
	hold := s.engine.ledger.Hold()
	switch {
	case took >= s.task.lease, hold > 0 && took > 2*hold:
		s.limit = max(1, s.limit/2)
	case hold == 0 || took < hold/2:
		s.limit = min(2*s.limit, s.task.batch)
	}
}

// checkpointEvery is the longest time between two moves of the checkpoint of a busy reaction.
const checkpointEvery = time.Second

// reactTo reacts to the records of a piece, one by one, and moves the checkpoint past those that succeeded.
func (s *shardWorker[Tx]) reactTo(ctx context.Context, p piece) error {
	began := time.Now()
	var later []Timer
	for i, r := range p.records {
		var err error
		var due int64
		if p.due == nil {
			due, err = s.task.dueAt(r)
		}
		switch {
		case err != nil && !s.isBlocked(r):
			return s.commitHandled(ctx, p, i, later, &handlerError{err})
		case due > 0 && !s.isDue(due):
			later = append(later, timerOf(r, due))
			continue
		case s.isBlocked(r), p.due != nil && r.Version == 0:
			continue
		}
		if !s.task.isAlive() {
			err = errLost // another worker may have the shard
		} else if f := s.react(ctx, r); f != nil {
			err = &handlerError{f}
		}
		switch {
		case err != nil:
			return s.commitHandled(ctx, p, i, later, err)
		case time.Since(began) >= checkpointEvery:
			return s.commit(ctx, p.part(0, i+1).with(later), nil, nil)
		}
	}
	return s.commit(ctx, p.with(later), nil, nil)
}

// react calls the handler of a reaction. Its context has the identity for the ids of commands.
func (s *shardWorker[Tx]) react(ctx context.Context, r es.Record) error {
	ctx = step.With(ctx, &step.Handling{By: s.row.Identity, Record: r.ID(), Meta: r.Meta, Carry: s.task.carry})
	return s.task.guard(func() error { return s.task.react(ctx, r) })
}

// commitHandled moves the checkpoint past the first n records of a piece and returns err. It also works after the context has ended,
// so that these records are not handled again.
func (s *shardWorker[Tx]) commitHandled(ctx context.Context, p piece, n int, later []Timer, err error) error {
	if n == 0 {
		return err
	}
	brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.commit(brief, p.part(0, n).with(later), nil, nil); err != nil {
		return err
	}
	return err
}

// guard turns a panic of the program's code into an error, and logs its stack.
func (t *task[Tx]) guard(f func() error) error {
	err := guard.Call(f)
	if p, ok := err.(*es.PanicError); ok { //nolint:errorlint // one that the code returned has its stack elsewhere
		t.log.Error("panic", "err", p, "stack", string(p.Stack))
	}
	return err
}
