package engine

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// A failure is what a handler returned, or a commit that was refused for what the handler has written.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

// failed returns the failure in an error, or nil if it is something else: the database's fault, the end of the context, a lost shard.
func (s *session[Tx]) failed(ctx context.Context, err error) *failure {
	f, handlers := errors.AsType[*failure](err)
	if !handlers || ctx.Err() != nil || s.passing(err) {
		f = nil
	}
	return f
}

// passing tells whether an error is likely to pass: one of the database, or of something else that the handler uses and that says so. An error
// of the network does not by itself: the record may be what names a host that is not there, and it would be tried for ever.
func (s *session[Tx]) passing(err error) bool {
	return s.db.Passing(err) || errors.Is(err, es.ErrUnavailable)
}

// apply brings a piece of the shard into the read model. One that fails is tried again, and then divided to find the record that fails.
func (s *session[Tx]) apply(ctx context.Context, p piece) error {
	err := s.attempt(ctx, p)
	f := s.failed(ctx, err)
	if f == nil {
		return err
	}
	if s.react != nil { // it has come as far as the record that fails
		return s.single(ctx, p.part(len(p.records)-len(s.pending.Records), len(p.records)).part(0, 1), f)
	}
	if len(p.records) > 1 && p.to > s.suspect {
		if f, err = s.retry(ctx, p, f); f == nil {
			return err
		}
	}
	s.suspect = max(s.suspect, p.to)
	return s.search(ctx, p, f)
}

// retry tries a piece again, with growing pauses. It returns the last failure, or none if it came to another end.
func (s *session[Tx]) retry(ctx context.Context, p piece, f *failure) (*failure, error) {
	var pause pause
	for range s.retries {
		s.note(ctx, f)
		if err := pause.wait(ctx); err != nil {
			return nil, err
		}
		err := s.attempt(ctx, p)
		if f = s.failed(ctx, err); f == nil {
			return nil, err
		}
	}
	return f, nil
}

// search divides a piece that has failed until the record that fails stands alone, and applies what stands before it.
// What comes behind is left for the next turn.
func (s *session[Tx]) search(ctx context.Context, p piece, f *failure) error {
	for len(s.good(p.records)) > 1 {
		half := len(p.records) / 2
		left, right := p.part(0, half), p.part(half, len(p.records))
		err := s.attempt(ctx, left)
		if failed := s.failed(ctx, err); failed != nil {
			p, f = left, failed
			continue
		}
		if err == nil {
			err = s.attempt(ctx, right)
		}
		if p, f = right, s.failed(ctx, err); f == nil {
			return err
		}
	}
	return s.single(ctx, p, f)
}

// single is about a piece in which one record is for the handler, which failed on it.
func (s *session[Tx]) single(ctx context.Context, p piece, f *failure) error {
	f, err := s.retry(ctx, p, f)
	if f == nil {
		return err
	}
	culprit := s.good(p.records)[0]
	if s.onError == es.Park {
		s.log.Error("parked", "record", culprit.ID(), "position", int64(culprit.Position), "error", f.error)
		return s.commit(ctx, p, nil, f)
	}
	s.tell(ctx, f.error)
	return &projection.Error{Name: s.name, Version: s.version, Record: culprit, Err: f.error}
}

// attempt applies a piece once.
func (s *session[Tx]) attempt(ctx context.Context, p piece) error {
	if s.react != nil {
		return s.reactTo(ctx, p)
	}
	return s.commit(ctx, p, s.handle, nil)
}

// commit moves the checkpoint to the end of a piece, in one transaction with what the handler makes of its records, if there is one,
// and with those that are parked: they wait behind another, or are the one that failed.
func (s *session[Tx]) commit(ctx context.Context, p piece, handle func(context.Context, Tx, []es.Record) error, f *failure) error {
	good, handled, began := s.good(p.records), false, time.Now()
	at := s.row.time
	if n := len(p.records); n > 0 {
		at = p.records[n-1].Time.UnixMicro()
	}
	err := s.db.Transact(ctx, Options{Idle: s.lease, Quiet: len(p.records) == 0}, func(ctx context.Context, tx Tx) error {
		handled = false
		if err := s.move(ctx, tx, p.to, at, p.end()); err != nil {
			return err
		}
		if handle != nil && len(good) > 0 {
			if err := guard(func() error { return handle(ctx, tx, slices.Clip(good)) }); err != nil {
				return &failure{err}
			}
		}
		if err := s.putAside(ctx, tx, p, f); err != nil {
			return err
		}
		handled = handle != nil && len(good) > 0
		return nil
	})
	s.adapt(time.Since(began))
	if err != nil {
		if handled && !s.db.Passing(err) {
			return &failure{err} // a constraint that is looked at only now, or an error that the handler kept to itself
		}
		return err
	}
	if f != nil {
		s.parked[good[0].Stream] = true
	}
	return s.applied(p)
}

// move moves the checkpoint from where the session believes it to be, under the claim that it believes to have. Everything rests on this.
func (s *session[Tx]) move(ctx context.Context, tx Tx, to projection.Cursor, at int64, end bool) error {
	n, err := s.db.Exec(ctx, tx, s.say.move, s.with(s.shard, s.row.claim, int64(s.row.cursor), int64(to), at, end)...)
	if err == nil && n == 0 {
		err = errLost
	}
	return err
}

// putAside parks the records of a piece that wait behind another of their stream, and the one that failed, if there is one.
func (s *session[Tx]) putAside(ctx context.Context, tx Tx, p piece, f *failure) error {
	for i := range p.records {
		r := &p.records[i]
		message, attempts := "", 0
		if !s.waits(*r) {
			if f == nil {
				continue
			}
			message, attempts = messageOf(f.error), 1+max(s.retries, 0)
		}
		if err := s.park(ctx, tx, s.key, s.shard, r, message, attempts); err != nil {
			return err
		}
	}
	return nil
}

// adapt finds out how many records a transaction can have without keeping others from writing for too long, or standing still for too long.
func (s *session[Tx]) adapt(took time.Duration) {
	hold := s.db.Hold()
	switch {
	case took >= s.lease, hold > 0 && took > 2*hold:
		s.limit = max(1, s.limit/2)
	case hold == 0 || took < hold/2:
		s.limit = min(2*s.limit, s.batch)
	}
}

// checkpointEvery is how long a reaction goes on before it notes how far it has come.
const checkpointEvery = time.Second

// reactTo reacts to the records of a piece, one by one, and moves the checkpoint past those that went well.
func (s *session[Tx]) reactTo(ctx context.Context, p piece) error {
	began := time.Now()
	for i, r := range p.records {
		if s.waits(r) {
			continue
		}
		var err error
		if !s.beating() {
			err = errLost // somebody else may be at it
		} else if f := guard(func() error { return s.react(ctx, r) }); f != nil {
			err = &failure{f}
		}
		switch {
		case err != nil:
			return s.reactedTo(ctx, p, i, err)
		case time.Since(began) >= checkpointEvery:
			return s.commit(ctx, p.part(0, i+1), nil, nil)
		}
	}
	return s.commit(ctx, p, nil, nil)
}

// reactedTo moves the checkpoint past the records before one that failed, and returns its error. Also when the context has ended: what went
// well is better not done again.
func (s *session[Tx]) reactedTo(ctx context.Context, p piece, n int, err error) error {
	if n == 0 {
		return err
	}
	brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.commit(brief, p.part(0, n), nil, nil); err != nil {
		return err
	}
	return err
}

// guard turns a panic into an error.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &es.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}
