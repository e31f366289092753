package engine

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/part"
	"github.com/thalo-go/es/projection"
)

// A timer is a record that a reaction handles later. A record that is due when it is read is handled like one without a time. A timer is
// enrolled in the transaction that moves the checkpoint past the record, and removed in the one that notes that it was handled. Both compare
// the claim of a shard: that of the record's stream. The row has the stream and no shard, so a new division of the streams moves no timer.
// When a timer is due, its record is read again and handled like any other: it can be retried, parked, or wait for a parked record of its
// stream.

// Timer is a record that is handled at a time.
type Timer struct {
	Due      int64 // microseconds since 1970
	Position es.Position
	Stream   es.Stream
	Version  es.Version
}

// CompareTimers orders timers by the time at which they are due, and then by their positions.
func CompareTimers(a, b Timer) int {
	return cmp.Or(cmp.Compare(a.Due, b.Due), cmp.Compare(a.Position, b.Position))
}

// latest is the latest time at which a record can be due. Databases keep it, and it can be written with four digits for the year.
var latest = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// dueAt returns when a record is due, in microseconds since 1970; 0 means now.
func (t *task[Tx]) dueAt(r es.Record) (at int64, err error) {
	if t.due == nil {
		return 0, nil
	}
	var due time.Time
	if err := t.guard(func() (err error) { due, err = t.due(r); return err }); err != nil {
		return 0, err
	}
	switch {
	case due.IsZero():
		return 0, nil
	case due.After(latest):
		return 0, fmt.Errorf("%w: Due of %s is after the year 9999: filter out what is never due", es.ErrInvalid, r.ID())
	}
	if !due.After(time.Unix(0, 0)) {
		return 1, nil // microseconds since 1970 may not reach back to it
	}
	return max(due.UnixMicro(), 1), nil
}

func timerOf(r es.Record, due int64) Timer { return Timer{due, r.Position, r.Stream, r.Version} }

// clockTime returns the time that replaces the ledger's clock, or 0.
func (t *task[Tx]) clockTime() int64 {
	if t.now == nil {
		return 0
	}
	return t.now().UnixMicro()
}

// maxTimers is the most timers in a transaction.
const maxTimers = 1000

// fire handles timers that are due, in one transaction. It reports whether there were any.
func (s *shardWorker[Tx]) fire(ctx context.Context) (fired bool, err error) {
	if !s.row.Delays {
		return false, nil
	}
	if len(s.firing.records) == 0 {
		if time.Now().Before(s.lookAt) {
			return false, nil
		}
		if err := s.look(ctx); err != nil || len(s.firing.records) == 0 {
			return false, err
		}
	}
	return true, s.apply(ctx, s.firing.part(0, min(len(s.firing.records), s.limit)))
}

// look looks for timers that are due, and decides when to look again: at once if there are more, or else when the next is due, but after
// a third of the lease at the latest, because clocks step.
func (s *shardWorker[Tx]) look(ctx context.Context) error {
	p, err := part.Parse(s.shard)
	if err != nil {
		return err
	}
	limit := min(s.task.batch, maxTimers)
	due, err := s.engine.ledger.Due(ctx, s.key, p, s.from, s.task.clockTime(), limit)
	if err != nil {
		return err
	}
	n := len(due.Timers)
	s.lookedAt, s.lookedNow, s.sawAll = time.Now(), due.Now, n < limit
	s.lookAt = s.lookedAt.Add(s.task.lease / 3)
	if due.Next > 0 {
		s.expect(due.Next)
	}
	if n == 0 {
		return nil
	}
	s.from = due.Timers[0]
	if err := s.readAgain(ctx, due.Timers); err != nil {
		return err
	}
	if s.sawAll = s.sawAll && len(s.firing.due) == n; !s.sawAll {
		s.lookAt = time.Time{}
	}
	return nil
}

// isDue reports whether a record can be handled at once: it is due, and so were no timers that have not been handled. It costs no statement,
// so a record that becomes due about now may be enrolled first.
func (s *shardWorker[Tx]) isDue(at int64) bool {
	return s.sawAll && at <= s.lookedNow && len(s.firing.records) == 0
}

// expect has the worker look again when a timer is due, or before. If the clock has stepped, another look finds out.
func (s *shardWorker[Tx]) expect(due int64) {
	left := min(due-s.lookedNow, s.task.lease.Microseconds())
	if at := s.lookedAt.Add(time.Duration(left) * time.Microsecond); at.Before(s.lookAt) {
		s.lookAt = at
	}
}

// keepTimers adds and removes the timers of a piece, in the transaction that moves the checkpoint.
func (s *shardWorker[Tx]) keepTimers(ctx context.Context, tx Tx, p piece) error {
	if len(p.later) > 0 {
		return s.engine.ledger.Enrol(ctx, tx, s.key, p.later)
	}
	if len(p.due) == 0 {
		return nil
	}
	shard, err := part.Parse(s.shard)
	if err != nil {
		return err
	}
	return s.engine.ledger.Settle(ctx, tx, s.key, shard, p.due[0], p.due[len(p.due)-1])
}

// enrolled notes that timers have been enrolled. Timers are removed in order, so those that were found due and come after one of them are
// looked for again.
func (s *shardWorker[Tx]) enrolled(timers []Timer) {
	if len(timers) == 0 {
		return
	}
	first := slices.MinFunc(timers, CompareTimers)
	s.expect(first.Due)
	s.sawAll = s.sawAll && first.Due > s.lookedNow
	if CompareTimers(first, s.from) < 0 {
		s.from = first
	}
	if n, _ := slices.BinarySearchFunc(s.firing.due, first, CompareTimers); n < len(s.firing.due) {
		s.firing = s.firing.part(0, n)
	}
}

// stillEarly returns the timer of a parked record that is not due yet. One that failed in Due, or waited behind another, has never been due.
func (s *shardWorker[Tx]) stillEarly(ctx context.Context, r es.Record) (later []Timer, err error) {
	due, err := s.task.dueAt(r)
	if err != nil || due == 0 {
		return nil, err
	}
	now := s.task.clockTime()
	if s.task.now == nil {
		if now, err = s.engine.ledger.Now(ctx); err != nil {
			return nil, err
		}
	}
	if due <= now {
		return nil, nil
	}
	return []Timer{timerOf(r, due)}, nil
}

// readAgain reads the records of timers, and makes them the next to handle: fewer if they have too many bytes. A record that is not in the log
// any more is zero.
func (s *shardWorker[Tx]) readAgain(ctx context.Context, timers []Timer) error {
	var r recall
	for {
		r.begin(timers)
		fit, err := r.read(s.recalled(ctx, &r))
		if err != nil {
			return classifySourceError(fmt.Errorf("shard %s: read records that are due: %w", s.shard, err))
		}
		if fit {
			break
		}
		timers = timers[:len(timers)/2]
	}
	if err := s.reportMissing(ctx, logOf(s.task.source), timers, r.records); err != nil {
		return err
	}
	s.firing = piece{records: r.records, due: timers, last: maxCursor}
	return nil
}

// recalled returns the records of timers, and perhaps others, in the order of their positions.
func (s *shardWorker[Tx]) recalled(ctx context.Context, r *recall) iter.Seq2[es.Record, error] {
	if log := logOf(s.task.source); log != s.engine.ledger.Log() {
		return r.from(ctx, log)
	}
	return s.engine.ledger.Recall(ctx, r.positions())
}

// reportMissing logs which records are not in the log any more. It returns an error if the log has not got that far, such as on a replica.
func (s *shardWorker[Tx]) reportMissing(ctx context.Context, log es.Log, timers []Timer, records []es.Record) error {
	var head es.Position
	for i, t := range timers {
		if records[i].Version > 0 {
			continue
		}
		if head == 0 {
			var err error
			if head, err = es.Head(ctx, log); err != nil {
				return classifySourceError(err)
			}
		}
		if t.Position > head {
			return &sourceError{fmt.Errorf("source: %w: it ends at position %d, before the timer at %d", es.ErrUnavailable, head, t.Position)}
		}
		s.task.log.Warn("timer dropped: its record is not in the log any more", "stream", t.Stream.String(), "version", int64(t.Version), "position", int64(t.Position))
	}
	return nil
}

// with returns a piece some of whose records are handled later.
func (p piece) with(later []Timer) piece {
	p.later = later
	return p
}

// isLater reports whether the record at a position is handled later.
func (p piece) isLater(at es.Position) bool {
	_, found := slices.BinarySearchFunc(p.later, at, func(t Timer, at es.Position) int { return cmp.Compare(t.Position, at) })
	return found
}

// alarm is a timer that is set again and again.
type alarm struct{ timer *time.Timer }

func (a *alarm) at(t time.Time) <-chan time.Time {
	if a.timer == nil {
		a.timer = time.NewTimer(time.Until(t))
	} else {
		a.timer.Reset(time.Until(t))
	}
	return a.timer.C
}

func (a *alarm) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

// Timers implements [projection.Admin]. It reads them in pages.
func (e *Engine[Tx]) Timers(ctx context.Context, name string) iter.Seq2[projection.Timer, error] {
	return func(yield func(projection.Timer, error) bool) {
		query := func(ctx context.Context, after Timer, limit int) ([]Timer, error) {
			return e.ledger.Timers(ctx, Key{name, 0}, after, limit)
		}
		for t, err := range pages(ctx, "timers of "+name, Timer{Due: math.MinInt64}, 256, query) {
			var timer projection.Timer
			if err == nil {
				timer = projection.Timer{Name: name, Record: es.Record{Stream: t.Stream, Version: t.Version, Position: t.Position}, Due: TimeOf(t.Due)}
			}
			if !yield(timer, err) {
				return
			}
		}
	}
}
