package conformance_test

import (
	"context"
	"slices"
	"sync"

	"github.com/thalo-go/es"
)

const (
	readHolds    = "Read holds nothing while the loop body runs"
	readAgain    = "ranging over Read again reads again"
	readReleases = "leaving a Read loop releases its resources"
	readObeys    = "Read returns an error when its context ends"
	allHolds     = "All holds nothing while the loop body runs"
	allAgain     = "ranging over All again reads again"
	allReleases  = "leaving an All loop releases its resources"
	allObeys     = "All returns an error when its context ends"
)

// loop is Read or All: loops over both can have the same defects.
type loop struct {
	name                          string
	holds, again, releases, obeys string // the clauses
	put                           func(f *faulty, around around)
}

// around returns a loop with a defect, given one without.
type around func(ctx context.Context, read func(context.Context) records) records

func brokenLoops() []defect[es.Log] {
	var defects []defect[es.Log]
	for _, l := range []loop{
		{"Read", readHolds, readAgain, readReleases, readObeys, func(f *faulty, around around) {
			f.onRead = func(ctx context.Context, stream es.Stream, after es.Version) records {
				return around(ctx, func(ctx context.Context) records { return f.Mem.Read(ctx, stream, after) })
			}
		}},
		{"All", allHolds, allAgain, allReleases, allObeys, func(f *faulty, around around) {
			f.onAll = func(ctx context.Context, after es.Position, filter es.Filter) records {
				return around(ctx, func(ctx context.Context) records { return f.Mem.All(ctx, after, filter) })
			}
		}},
	} {
		defects = slices.Concat(defects, l.holding(), l.leaving(), l.ending())
	}
	return defects
}

// with returns a log with the defect in its loops.
func (l loop) with(around around) func(m *es.Mem) *faulty {
	return func(m *es.Mem) *faulty {
		f := &faulty{Mem: m}
		l.put(f, around)
		return f
	}
}

func (l loop) holding() []defect[es.Log] {
	return []defect[es.Log]{
		broken(l.name+" holds a lock while the body runs", l.holds, func(m *es.Mem) *faulty {
			var mu sync.RWMutex
			f := l.with(func(ctx context.Context, read func(context.Context) records) records {
				return func(yield func(es.Record, error) bool) {
					mu.RLock()
					defer mu.RUnlock()
					read(ctx)(yield)
				}
			})(m)
			f.onAppend = func(ctx context.Context, appends []es.Append) (es.Position, error) {
				mu.Lock()
				defer mu.Unlock()
				return m.Append(ctx, appends...)
			}
			return f
		}).blocking(),
		broken(l.name+" holds one of 10 connections while the body runs", l.holds, func(m *es.Mem) *faulty {
			pool := make(chan struct{}, 10)
			return l.with(pooled(pool, func() { <-pool }))(m)
		}).blocking(),
		broken(l.name+" reads when it is called, not when it is ranged over", l.again, l.with(func(ctx context.Context, read func(context.Context) records) records {
			type item struct {
				es.Record
				error
			}
			var items []item
			for r, err := range read(ctx) {
				items = append(items, item{r, err})
			}
			return func(yield func(es.Record, error) bool) {
				for _, i := range items {
					if !yield(i.Record, i.error) {
						return
					}
				}
			}
		})).noticedBy(l.obeys),
	}
}

func (l loop) leaving() []defect[es.Log] {
	return []defect[es.Log]{
		broken(l.name+" keeps a connection when the loop is left", l.releases, func(m *es.Mem) *faulty {
			return l.with(pooled(make(chan struct{}, 60), func() {}))(m)
		}).blocking(),
		broken(l.name+" leaves a goroutine behind when the loop is left", l.releases, l.with(readAhead)).blocking().byItself(),
	}
}

func (l loop) ending() []defect[es.Log] {
	return []defect[es.Log]{
		broken(l.name+" ignores its context", l.obeys, l.with(func(ctx context.Context, read func(context.Context) records) records {
			return read(context.WithoutCancel(ctx))
		})).noticedBy(contextNamed, waits),
		broken(l.name+" ends without an error when its context does", l.obeys, l.with(func(ctx context.Context, read func(context.Context) records) records {
			return only(read(context.WithoutCancel(ctx)), func(es.Record) bool { return ctx.Err() == nil })
		})).noticedBy(contextNamed, waits),
		broken(l.name+" returns the last record with the error", l.obeys, l.with(func(ctx context.Context, read func(context.Context) records) records {
			return func(yield func(es.Record, error) bool) {
				var last es.Record
				for r, err := range read(ctx) {
					if err == nil {
						last = r
					}
					if !yield(last, err) {
						return
					}
				}
			}
		})),
		broken(l.name+" returns the error twice", l.obeys, l.with(func(ctx context.Context, read func(context.Context) records) records {
			return func(yield func(es.Record, error) bool) {
				for r, err := range read(ctx) {
					if !yield(r, err) || err != nil && !yield(r, err) {
						return
					}
				}
			}
		})),
	}
}

// pooled takes a connection from a pool for each loop. It returns the connection at the end of the loop; if the loop is left early it calls left.
func pooled(pool chan struct{}, left func()) around {
	return func(ctx context.Context, read func(context.Context) records) records {
		return func(yield func(es.Record, error) bool) {
			select {
			case pool <- struct{}{}:
			case <-ctx.Done():
				yield(es.Record{}, ended(ctx))
				return
			}
			ended := false
			defer func() {
				if ended {
					<-pool
				} else {
					left()
				}
			}()
			for r, err := range read(ctx) {
				if !yield(r, err) {
					return
				}
			}
			ended = true
		}
	}
}

// readAhead reads in a goroutine that does not end when the loop is left.
func readAhead(ctx context.Context, read func(context.Context) records) records {
	type item struct {
		es.Record
		error
	}
	return func(yield func(es.Record, error) bool) {
		items, left := make(chan item), make(chan struct{})
		defer close(left)
		go func() {
			defer close(items)
			for r, err := range read(ctx) {
				select {
				case items <- item{r, err}:
				case <-ctx.Done(): // it ends with the clause, so that it does not disturb later tests
					select {
					case items <- item{es.Record{}, ended(ctx)}:
					case <-left:
					}
					return
				}
			}
		}()
		for i := range items {
			if !yield(i.Record, i.error) {
				return
			}
		}
	}
}
