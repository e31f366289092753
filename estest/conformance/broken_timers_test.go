package conformance_test

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/projection"
)

const (
	timersFire    = "record is handled when it is due and never before"
	timersByClock = "record is due by the clock of the database"
	timersStay    = "timers survive workers, repartitioning and Rename"
	timersPark    = "timer that fails is parked with the later ones of its stream"
	dueFails      = "error of Due is an error of its record"
	timersMany    = "many timers are worked off while new records go on"
	dueChanges    = "timer keeps its time when Due changes"
	timersBack    = "clock that is set back delays timers and loses none"
	timersInTurn  = "record that is due when it is read takes its turn"
	timersRemoved = "Replay and Forget remove timers"
	timersShown   = "Status and Timers show what waits"
	dueNeedsALog  = "Due needs a source that can be read again"
)

func (w workshop) brokenTimers() []defect[conformance.Listed] {
	return []defect[conformance.Listed]{
		w.broken("timers fire a minute early", timersFire, beginning(func(r *projection.Reaction) {
			now := r.Now
			r.Now = func() time.Time { return now().Add(time.Minute) }
		})),
		w.broken("a record that is read again has other tags", timersFire, beginning(func(r *projection.Reaction) {
			handle := r.Handle
			r.Handle = func(ctx context.Context, record es.Record) error {
				record.Tags = append(record.Tags, record.Stream.ID)
				return handle(ctx, record)
			}
		})),
		w.broken("timers never fire", timersFire, beginning(func(r *projection.Reaction) {
			r.Now = func() time.Time { return time.Unix(1, 0) }
		})).blocking(),
		w.broken("records behind a timer wait for it", timersFire, beginning(func(r *projection.Reaction) {
			due, last := r.Due, time.Time{}
			r.Due = func(r es.Record) (at time.Time, err error) {
				if at, err = due(r); at.IsZero() {
					at = last
				}
				last = at
				return at, err
			}
		})),
		w.broken("timers fire early by the clock of the database", timersByClock, beginning(func(r *projection.Reaction) {
			due := r.Due
			r.Due = func(r es.Record) (time.Time, error) {
				at, err := due(r)
				return at.Add(-100 * time.Millisecond), err
			}
		})),
		w.broken("Rename loses the timers", timersStay,
			triggering("create trigger broken after update of name on es_timers begin delete from es_timers where name = new.name; end")),
		w.broken("a timer that waits behind a parked one is lost", timersPark,
			triggering("create trigger broken before insert on es_parked when new.error = '' begin select raise(ignore); end")),
		w.broken("an error of Due means now", dueFails, beginning(func(r *projection.Reaction) {
			due := r.Due
			r.Due = func(r es.Record) (time.Time, error) {
				at, err := due(r)
				if err != nil || at.Year() > 9999 {
					at, err = time.Time{}, nil
				}
				return at, err
			}
		})).blocking(),
		w.broken("transactions of timers are not bounded", timersMany, beginning(func(r *projection.Reaction) { r.Batch = 100_000 })),
		w.broken("timers are lost when Due is removed", dueChanges, func(f *faultySide) {
			f.onReact = func(ctx context.Context, r projection.Reaction) error {
				if r.Due == nil {
					if _, err := f.DB().ExecContext(ctx, "delete from es_timers"); err != nil {
						return err
					}
				}
				return f.Store.React(ctx, r)
			}
		}),
		w.broken("the clock of timers never goes back", timersBack, beginning(func() func(r *projection.Reaction) {
			var latest atomic.Int64
			return func(r *projection.Reaction) {
				now := r.Now
				r.Now = func() time.Time {
					latest.Store(max(latest.Load(), now().UnixMicro()))
					return time.UnixMicro(latest.Load())
				}
			}
		}())),
		w.broken("a record that is due when it is read goes before timers", timersInTurn, beginning(func(r *projection.Reaction) {
			due, now := r.Due, r.Now
			r.Due = func(r es.Record) (time.Time, error) {
				at, err := due(r)
				if at.Before(now()) {
					at = time.Time{}
				}
				return at, err
			}
		})),
		w.broken("Replay keeps the timers", timersRemoved, func(f *faultySide) {
			f.onReplay = func(ctx context.Context, name string, version int, from projection.Start) error {
				_, err := f.DB().ExecContext(ctx, "create table kept as select * from es_timers")
				err = errors.Join(err, f.Store.Replay(ctx, name, version, from))
				_, failed := f.DB().ExecContext(ctx, "insert or ignore into es_timers select * from kept")
				return errors.Join(err, failed)
			}
		}),
		w.broken("Forget keeps the timers", timersRemoved, func(f *faultySide) {
			f.onForget = func(ctx context.Context, name string, version int) error {
				_, err := f.DB().ExecContext(ctx, "create table kept as select * from es_timers")
				err = errors.Join(err, f.Store.Forget(ctx, name, version))
				_, failed := f.DB().ExecContext(ctx, "insert or ignore into es_timers select * from kept")
				return errors.Join(err, failed)
			}
		}),
		w.broken("Status does not count timers", timersShown, reporting(func(s *projection.Status) { s.Waiting = 0 })),
		w.broken("Status has no next timer", timersShown, reporting(func(s *projection.Status) { s.NextDue = time.Time{} })),
		w.broken("Due is ignored for topics", dueNeedsALog, beginning(func(r *projection.Reaction) { r.Due = nil })),
	}
}
