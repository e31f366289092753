package memory

import (
	"cmp"
	"context"
	"slices"

	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/internal/part"
)

// of returns the timers of a part of the streams.
func (r *rows) of(p part.Part) []engine.Timer {
	var list []engine.Timer
	for _, t := range r.timers {
		if isOf(t, p) {
			list = append(list, t)
		}
	}
	return list
}

// isOf reports whether a timer is of a part of the streams.
func isOf(t engine.Timer, p part.Part) bool { return part.Of(t.Stream.String(), p.Of) == p }

func (r *rows) removeTimers(is func(t engine.Timer) bool) {
	r.timers = slices.DeleteFunc(slices.Clone(r.timers), is)
}

// Now implements [engine.Ledger].
func (l *ledger) Now(ctx context.Context) (int64, error) { return now(), l.check(ctx) }

// Due implements [engine.Ledger].
func (l *ledger) Due(ctx context.Context, k engine.Key, p part.Part, at int64, limit int) ([]engine.Timer, error) {
	at = cmp.Or(at, now())
	var list []engine.Timer
	for _, t := range l.read(k).timers {
		if t.Due > at || len(list) == limit {
			break
		}
		if isOf(t, p) {
			list = append(list, t)
		}
	}
	return list, l.check(ctx)
}

// NextDue implements [engine.Ledger].
func (l *ledger) NextDue(ctx context.Context, k engine.Key, p part.Part, at int64) (next, counts int64, found bool, err error) {
	at = cmp.Or(at, now())
	for _, t := range l.read(k).timers {
		if isOf(t, p) {
			return t.Due, at, true, l.check(ctx)
		}
	}
	return 0, at, false, l.check(ctx)
}

// Timers implements [engine.Ledger].
func (l *ledger) Timers(ctx context.Context, k engine.Key, after engine.Timer, limit int) ([]engine.Timer, error) {
	all := l.read(k).timers
	i, found := slices.BinarySearchFunc(all, after, engine.CompareTimers)
	if found {
		i++
	}
	return slices.Clone(all[i:min(i+limit, len(all))]), l.check(ctx)
}

// Enrol implements [engine.Ledger].
func (l *ledger) Enrol(_ context.Context, tx *Tx, k engine.Key, timers []engine.Timer) error {
	r := l.edit(tx, k)
	r.timers = slices.Concat(r.timers, timers)
	slices.SortFunc(r.timers, engine.CompareTimers)
	r.timers = slices.CompactFunc(r.timers, func(a, b engine.Timer) bool { return engine.CompareTimers(a, b) == 0 })
	return nil
}

// Settle implements [engine.Ledger].
func (l *ledger) Settle(_ context.Context, tx *Tx, k engine.Key, p part.Part, last engine.Timer) error {
	l.edit(tx, k).removeTimers(func(t engine.Timer) bool {
		return engine.CompareTimers(t, last) <= 0 && isOf(t, p)
	})
	return nil
}
