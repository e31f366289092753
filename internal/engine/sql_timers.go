package engine

import (
	"context"
	"slices"

	"github.com/thalo-go/es/internal/part"
	"github.com/thalo-go/es/projection"
)

// enrolments are the numbers of rows for which there is a statement, from the largest on.
var enrolments = []int{256, 64, 16, 4, 1}

// timersOf reads rows of the columns that all statements about timers have.
func (l *sqlLedger[Tx]) timersOf(ctx context.Context, sql string, args ...any) (list []Timer, err error) {
	err = l.View(ctx, func(scan func(...any) error) error {
		var t Timer
		err := scan(&t.Due, &t.Position, &t.Stream.Kind, &t.Stream.ID, &t.Version)
		list = append(list, t)
		return err
	}, sql, args...)
	return list, err
}

// Now implements [Ledger].
func (l *sqlLedger[Tx]) Now(ctx context.Context) (now int64, err error) {
	err = l.View(ctx, func(scan func(...any) error) error { return scan(&now) }, l.stmts.now)
	return now, err
}

// Due implements [Ledger].
func (l *sqlLedger[Tx]) Due(ctx context.Context, k Key, p part.Part, from Timer, now int64, limit int) (d Due, err error) {
	err = l.View(ctx, func(scan func(...any) error) error {
		var t Timer
		list := 0
		err := scan(&list, &t.Due, &t.Position, &t.Stream.Kind, &t.Stream.ID, &t.Version)
		switch list {
		case 0:
			d.Timers = append(d.Timers, t)
		case 1:
			d.Next = t.Due
		default:
			d.Now = t.Due
		}
		return err
	}, l.stmts.due, k.with(int64(p.I), int64(p.Of), from.Due, int64(from.Position), now, int64(limit))...)
	slices.SortFunc(d.Timers, CompareTimers) // as they are, but no clause says so
	return d, err
}

// Timers implements [Ledger].
func (l *sqlLedger[Tx]) Timers(ctx context.Context, k Key, after Timer, limit int) ([]Timer, error) {
	return l.timersOf(ctx, l.stmts.timers, k.with(after.Due, int64(after.Position), int64(limit))...)
}

// Enrol implements [Ledger].
func (l *sqlLedger[Tx]) Enrol(ctx context.Context, tx Tx, k Key, timers []Timer) error {
	if l.stmts.enrolAll != "" {
		_, err := l.Exec(ctx, tx, l.stmts.enrolAll, k.with(arraysOf(timers)...)...)
		return err
	}
	for i, rows := range enrolments {
		for len(timers) >= rows {
			args := k.with()
			for _, t := range timers[:rows] {
				args = append(args, t.Due, int64(t.Position), t.Stream.Kind, t.Stream.ID, int64(t.Version), int64(part.Hash(t.Stream.String())))
			}
			if _, err := l.Exec(ctx, tx, l.stmts.enrol()[i], args...); err != nil {
				return err
			}
			timers = timers[rows:]
		}
	}
	return nil
}

// arraysOf returns an array for each column of timers.
func arraysOf(timers []Timer) []any {
	n := len(timers)
	due, positions, versions, hashes := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	kinds, ids := make([]string, n), make([]string, n)
	for i, t := range timers {
		due[i], positions[i], kinds[i], ids[i] = t.Due, int64(t.Position), t.Stream.Kind, t.Stream.ID
		versions[i], hashes[i] = int64(t.Version), int64(part.Hash(t.Stream.String()))
	}
	return []any{due, positions, kinds, ids, versions, hashes}
}

// Settle implements [Ledger].
func (l *sqlLedger[Tx]) Settle(ctx context.Context, tx Tx, k Key, p part.Part, first, last Timer) error {
	return l.set(ctx, tx, l.stmts.settle, k.with(int64(p.I), int64(p.Of), first.Due, int64(first.Position), last.Due, int64(last.Position))...)
}

// countTimers fills in the timers of each shard.
func (l *sqlLedger[Tx]) countTimers(ctx context.Context, list []projection.Status) error {
	return l.View(ctx, func(scan func(...any) error) error {
		var k Key
		var i, next int64
		var n int
		if err := scan(&k.Name, &k.Version, &i, &n, &next); err != nil {
			return err
		}
		j := slices.IndexFunc(list, func(s projection.Status) bool {
			p, err := part.Parse(s.Shard)
			return err == nil && s.Name == k.Name && s.Version == k.Version && int64(p.I) == i
		})
		if j >= 0 {
			list[j].Waiting, list[j].NextDue = n, TimeOf(next)
		}
		return nil
	}, l.stmts.timerCounts)
}
