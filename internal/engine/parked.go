package engine

import (
	"context"
	"slices"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// grant does what somebody wants of parked records.
func (s *session[Tx]) grant(ctx context.Context, wishes []wish) error {
	for _, w := range wishes {
		if err := s.again(ctx, w.stream); err != nil {
			return err
		}
	}
	if len(wishes) > 0 {
		s.mu.Lock()
		s.orders.wishes = slices.DeleteFunc(slices.Clone(s.orders.wishes), func(w wish) bool { return slices.Contains(wishes, w) })
		s.mu.Unlock()
	}
	return nil
}

// again tries the parked records of a stream, in order, until one fails. The first of them says what is wanted.
func (s *session[Tx]) again(ctx context.Context, stream es.Stream) error {
	for first := true; ; first = false {
		var p projection.Parked
		var want string
		found := false
		err := s.db.View(ctx, func(scan func(...any) error) (err error) {
			found = true
			p, err = scanParked(scan, &want)
			return err
		}, s.say.parkedOf, s.with(stream.Kind, stream.ID)...)
		switch {
		case err != nil:
			return err
		case !found:
			delete(s.parked, stream)
			return nil
		case want == "" && first:
			return nil // done already
		}
		err = s.unpark(ctx, p.Record, want == wantDrop)
		f := s.failed(ctx, err)
		if f == nil && err != nil {
			return err
		}
		if f != nil {
			s.log.Warn("stays parked", "record", p.Record.ID(), "error", f.error)
			return s.stays(ctx, p.Record, f)
		}
	}
}

// unpark takes a record out of those that are parked: the handler is given it, unless it is dropped.
func (s *session[Tx]) unpark(ctx context.Context, r es.Record, drop bool) error {
	if s.react != nil && !drop {
		if err := guard(func() error { return s.react(ctx, r) }); err != nil {
			return &failure{err}
		}
	}
	handled := false
	err := s.db.Transact(ctx, Options{Idle: s.lease}, func(ctx context.Context, tx Tx) error {
		handled = false
		if err := s.move(ctx, tx, s.row.cursor, s.row.time, false); err != nil {
			return err
		}
		if err := s.exec(ctx, tx, s.say.unpark, s.with(identity(r)...)...); err != nil || drop || s.handle == nil {
			return err
		}
		if err := guard(func() error { return s.handle(ctx, tx, []es.Record{r}) }); err != nil {
			return &failure{err}
		}
		handled = true
		return nil
	})
	if err != nil && handled && !s.db.Passing(err) {
		return &failure{err}
	}
	return err
}

// stays notes that a record failed again.
func (s *session[Tx]) stays(ctx context.Context, r es.Record, f *failure) error {
	return s.db.Transact(ctx, Options{}, func(ctx context.Context, tx Tx) error {
		if err := s.move(ctx, tx, s.row.cursor, s.row.time, false); err != nil {
			return err
		}
		return s.exec(ctx, tx, s.say.failParked, s.with(append(identity(r), messageOf(f.error), int64(1))...)...)
	})
}

func identity(r es.Record) []any { return []any{r.Stream.Kind, r.Stream.ID, int64(r.Version)} }
