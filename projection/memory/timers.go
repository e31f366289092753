package memory

import (
	"cmp"
	"context"
	"iter"
	"math"
	"slices"

	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/internal/part"
)

// timers are in their order, in chunks that are not empty. A change replaces the chunks that it concerns and the slice of all chunks, so what is
// committed stays as it is, and a change among many timers copies few of them.
type timers [][]engine.Timer

// chunk is the number of timers in a chunk, at most.
const chunk = 1024

// lastTimer comes after all others.
var lastTimer = engine.Timer{Due: math.MaxInt64, Position: math.MaxInt64}

// from returns the timers that do not come before one, in their order.
func (ts timers) from(first engine.Timer) iter.Seq[engine.Timer] {
	return func(yield func(engine.Timer) bool) {
		for _, c := range ts[ts.find(first):] {
			i, _ := slices.BinarySearchFunc(c, first, engine.CompareTimers)
			for _, t := range c[i:] {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// find returns the first chunk whose last timer does not come before one.
func (ts timers) find(t engine.Timer) int {
	i, _ := slices.BinarySearchFunc(ts, t, func(c []engine.Timer, t engine.Timer) int { return engine.CompareTimers(c[len(c)-1], t) })
	return i
}

// with returns the timers with others. One that is there already stays.
func (ts timers) with(others []engine.Timer) timers {
	others = slices.SortedFunc(slices.Values(others), engine.CompareTimers)
	all := make(timers, 0, len(ts)+len(others)/chunk+1)
	for i := 0; len(others) > 0; {
		j := max(i, min(ts.find(others[0]), len(ts)-1)) // what comes after all goes to the last chunk
		all, i = append(all, ts[i:max(j, i)]...), j+1
		var there []engine.Timer
		n := len(others)
		if j < len(ts) {
			there = ts[j]
		}
		if j+1 < len(ts) {
			n, _ = slices.BinarySearchFunc(others, ts[j+1][0], engine.CompareTimers)
		}
		merged := slices.Concat(there, others[:n])
		slices.SortStableFunc(merged, engine.CompareTimers)
		merged = slices.CompactFunc(merged, func(a, b engine.Timer) bool { return engine.CompareTimers(a, b) == 0 })
		all = slices.AppendSeq(all, slices.Chunk(merged, chunk))
		if others = others[n:]; len(others) == 0 && i < len(ts) {
			all = append(all, ts[i:]...)
		}
	}
	return all
}

// without returns the timers from one to another without those that a function selects.
func (ts timers) without(first, last engine.Timer, is func(t engine.Timer) bool) timers {
	i, j := ts.find(first), ts.find(last)
	all := slices.Clone(ts[:i])
	for ; i < len(ts) && i <= j; i++ {
		kept := slices.DeleteFunc(slices.Clone(ts[i]), func(t engine.Timer) bool {
			return engine.CompareTimers(t, first) >= 0 && engine.CompareTimers(t, last) <= 0 && is(t)
		})
		if len(kept) > 0 {
			all = append(all, kept)
		}
	}
	return append(all, ts[i:]...)
}

// of returns how many timers a part of the streams has, and when the first of them is due.
func (ts timers) of(p part.Part) (n int, next int64) {
	for t := range ts.from(engine.Timer{}) {
		if isOf(t, p) {
			if n++; n == 1 {
				next = t.Due
			}
		}
	}
	return n, next
}

// isOf reports whether a timer is of a part of the streams.
func isOf(t engine.Timer, p part.Part) bool {
	return p.Of == 1 || part.Of(t.Stream.String(), p.Of) == p
}

// Now implements [engine.Ledger].
func (l *ledger) Now(ctx context.Context) (int64, error) { return now(), l.check(ctx) }

// Due implements [engine.Ledger].
func (l *ledger) Due(ctx context.Context, k engine.Key, p part.Part, from engine.Timer, at int64, limit int) (engine.Due, error) {
	due := engine.Due{Now: cmp.Or(at, now())}
	for t := range l.read(k).timers.from(from) {
		switch {
		case !isOf(t, p):
			continue
		case t.Due > due.Now:
			due.Next = t.Due
			return due, l.check(ctx)
		case len(due.Timers) < limit:
			due.Timers = append(due.Timers, t)
			continue
		}
		break
	}
	return due, l.check(ctx)
}

// Timers implements [engine.Ledger].
func (l *ledger) Timers(ctx context.Context, k engine.Key, after engine.Timer, limit int) ([]engine.Timer, error) {
	var list []engine.Timer
	for t := range l.read(k).timers.from(after) {
		if len(list) == limit {
			break
		}
		if engine.CompareTimers(t, after) > 0 {
			list = append(list, t)
		}
	}
	return list, l.check(ctx)
}

// Enrol implements [engine.Ledger].
func (l *ledger) Enrol(_ context.Context, tx *Tx, k engine.Key, timers []engine.Timer) error {
	r := l.edit(tx, k)
	r.timers = r.timers.with(timers)
	return nil
}

// Settle implements [engine.Ledger].
func (l *ledger) Settle(_ context.Context, tx *Tx, k engine.Key, p part.Part, first, last engine.Timer) error {
	r := l.edit(tx, k)
	r.timers = r.timers.without(first, last, func(t engine.Timer) bool { return isOf(t, p) })
	return nil
}
