package estest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thalo-go/es"
)

const (
	allAfter     = "All returns the records of all streams after a position, in order"
	likeRead     = "All gives the same records as Read"
	filters      = "All lets through what its filter does, and nothing else"
	filterBytes  = "filters compare names byte by byte"
	longLog      = "a long log is read whole and in order"
	atOnce       = "Changed returns at once when there is something after the position"
	waits        = "Changed waits until its context ends when nothing is written"
	ahead        = "Changed for a position beyond the end says so at once"
	wakesAll     = "an append wakes all who wait in Changed"
	missesNought = "an append that comes while Changed begins to wait is not missed"
	hearsOthers  = "an append through another store on the database ends the wait"
	readable     = "what Changed tells of can be read"
)

func brokenLogs() []defect[es.Log] {
	filtered := func(match func(f es.Filter, r es.Record) bool) func(*es.Mem) *faulty {
		return listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return only(m.All(ctx, after, es.Filter{}), func(r es.Record) bool { return match(filter, r) })
		})
	}
	in := func(list []string, name string) bool { return len(list) == 0 || slices.Contains(list, name) }
	return []defect[es.Log]{
		broken("the position to read after is read too", allAfter, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return m.All(ctx, max(0, after-1), filter)
		})).noticedBy(longLog, filters, followsAll, followsFilter),
		broken("the log is read stream by stream", allAfter, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return func(yield func(es.Record, error) bool) {
				var all []es.Record
				for r, err := range m.All(ctx, after, filter) {
					if err != nil {
						yield(r, err)
						return
					}
					all = append(all, r)
				}
				slices.SortStableFunc(all, func(a, b es.Record) int { return strings.Compare(a.Stream.String(), b.Stream.String()) })
				for _, r := range all {
					if ctx.Err() != nil {
						yield(es.Record{}, ctx.Err())
						return
					}
					if !yield(r, nil) {
						return
					}
				}
			}
		})).noticedBy(filters, longLog, followsAll, readable),
		broken("All has no metadata", likeRead, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return changed(m.All(ctx, after, filter), func(r es.Record) es.Record { r.Meta = nil; return r })
		})),
		broken("All has times in seconds", likeRead, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return changed(m.All(ctx, after, filter), func(r es.Record) es.Record { r.Time = r.Time.Truncate(time.Second); return r })
		})),
		broken("the filter is not looked at", filters, filtered(func(es.Filter, es.Record) bool { return true })).
			noticedBy(filterBytes, longLog, followsFilter),
		broken("a filter with a kind and a type lets either through", filters, filtered(func(f es.Filter, r es.Record) bool {
			return f.Match(r) || len(f.Kinds) > 0 && len(f.Types) > 0 && (in(f.Kinds, r.Stream.Kind) || in(f.Types, r.Type))
		})),
		broken("only the first kind of a filter counts", filters, filtered(func(f es.Filter, r es.Record) bool {
			return in(f.Kinds[:min(1, len(f.Kinds))], r.Stream.Kind) && in(f.Types, r.Type)
		})).noticedBy(filterBytes),
		broken("a filter without a match lets all through", filters, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			for r, err := range m.All(ctx, 0, filter) {
				if r.Position > 0 || err != nil {
					return m.All(ctx, after, filter)
				}
			}
			return m.All(ctx, after, es.Filter{})
		})).noticedBy(filterBytes),
		broken("filters do not regard case", filterBytes, filtered(func(f es.Filter, r es.Record) bool {
			alike := func(list []string, name string) bool {
				return len(list) == 0 || slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) })
			}
			return alike(f.Kinds, r.Stream.Kind) && alike(f.Types, r.Type)
		})),
		broken("a filter that is not text is an error", filterBytes, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			for _, name := range slices.Concat(filter.Kinds, filter.Types) {
				if strings.ContainsRune(name, 0) {
					return func(yield func(es.Record, error) bool) {
						yield(es.Record{}, errors.New("invalid byte sequence for encoding UTF8: 0x00"))
					}
				}
			}
			return m.All(ctx, after, filter)
		})),
		broken("a page that the filter empties is taken for the end", longLog, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return func(yield func(es.Record, error) bool) {
				const page = 200
				seen := after // the last position of the last page that was not empty
				for r, err := range m.All(ctx, after, filter) {
					if err == nil && r.Position > seen+page || !yield(r, err) {
						return
					}
					seen = r.Position
				}
			}
		})),
		broken("the first record of the second page is lost", longLog, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return only(m.All(ctx, after, filter), func(r es.Record) bool { return r.Position != after+1001 })
		})),
	}
}

func brokenChanged() []defect[es.Log] {
	return []defect[es.Log]{
		broken("Changed returns the next position and not the last", atOnce, waiting(func(ctx context.Context, m *es.Mem, after es.Position) (es.Position, error) {
			head, err := m.Changed(ctx, after)
			return min(head, max(0, after)+1), err
		})),
		broken("Changed with -1 waits for the first record", atOnce, waiting(func(ctx context.Context, m *es.Mem, after es.Position) (es.Position, error) {
			return m.Changed(ctx, max(0, after))
		})).blocking(),
		broken("Changed returns without an error when its context ends", waits, waiting(func(ctx context.Context, m *es.Mem, after es.Position) (es.Position, error) {
			head, err := m.Changed(ctx, after)
			if ctx.Err() != nil {
				return after, nil
			}
			return head, err
		})),
		broken("an append without events wakes", waits, func(m *es.Mem) *faulty {
			var b bell
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				defer b.ring()
				return m.Append(ctx, appends...)
			}, onChanged: func(ctx context.Context, after es.Position) (es.Position, error) {
				rung := b.next()
				if head, err := m.Changed(ctx, -1); err != nil || head != after {
					return m.Changed(ctx, after)
				}
				if err := hear(ctx, rung); err != nil {
					return 0, err
				}
				return m.Changed(ctx, -1)
			}}
		}),
		broken("a position beyond the end is waited for", ahead, waiting(func(ctx context.Context, m *es.Mem, after es.Position) (es.Position, error) {
			for {
				head, err := m.Changed(ctx, -1)
				if err != nil {
					return 0, err
				}
				if head >= after {
					return m.Changed(ctx, after)
				}
				if _, err := m.Changed(ctx, head); err != nil {
					return 0, err
				}
			}
		})).blocking(),
		broken("a position beyond the end is a plain error", ahead, waiting(func(ctx context.Context, m *es.Mem, after es.Position) (es.Position, error) {
			head, err := m.Changed(ctx, after)
			var ahead *es.AheadError
			if errors.As(err, &ahead) {
				err = errors.New("no such position")
			}
			return head, err
		})),
		broken("an append wakes one of those who wait", wakesAll, func(m *es.Mem) *faulty {
			token := make(chan struct{}, 1)
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				position, err := m.Append(ctx, appends...)
				select {
				case token <- struct{}{}:
				default:
				}
				return position, err
			}, onChanged: func(ctx context.Context, after es.Position) (es.Position, error) {
				for {
					if head, err := m.Changed(ctx, -1); err != nil || head != after {
						return m.Changed(ctx, after)
					}
					if err := hear(ctx, token); err != nil {
						return 0, err
					}
				}
			}}
		}).blocking(),
		broken("the log is looked at before the wait begins", missesNought, func(m *es.Mem) *faulty {
			var b bell
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				defer b.ring()
				return m.Append(ctx, appends...)
			}, onChanged: func(ctx context.Context, after es.Position) (es.Position, error) {
				for {
					if head, err := m.Changed(ctx, -1); err != nil || head != after {
						return m.Changed(ctx, after)
					}
					window()
					if err := hear(ctx, b.next()); err != nil {
						return 0, err
					}
				}
			}}
		}).blocking().noticedBy(hearsOthers, wakesAll, readable, followsAll, followsFilter),
		brokenApart("a store hears of its own appends only", hearsOthers, func(m *es.Mem) *faulty {
			var b bell
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				defer b.ring()
				return m.Append(ctx, appends...)
			}, onChanged: func(ctx context.Context, after es.Position) (es.Position, error) {
				for {
					rung := b.next()
					if head, err := m.Changed(ctx, -1); err != nil || head != after {
						return m.Changed(ctx, after)
					}
					if err := hear(ctx, rung); err != nil {
						return 0, err
					}
				}
			}}
		}).blocking().noticedBy(readable, followsAll, followsFilter),
		broken("Changed tells of records before they can be read", readable, func(m *es.Mem) *faulty {
			f, visible := becomesVisible(m)
			f.onAll = func(ctx context.Context, after es.Position, filter es.Filter) records {
				return only(m.All(ctx, after, filter), visible)
			}
			return f
		}).blocking().noticedBy(followsAll, followsFilter),
		broken("positions are taken before the lock", followsAll, takesPositionsEarly).blocking().noticedBy(followsFilter),
		broken("a filter reads from a copy that lags behind", followsFilter, func(m *es.Mem) *faulty {
			f, visible := becomesVisible(m)
			f.onAll = func(ctx context.Context, after es.Position, filter es.Filter) records {
				if len(filter.Kinds)+len(filter.Types) == 0 {
					return m.All(ctx, after, filter)
				}
				return only(m.All(ctx, after, filter), visible)
			}
			return f
		}).blocking(),
	}
}

// A bell wakes all who have heard of its next ring.
type bell struct {
	mu   sync.Mutex
	rung chan struct{}
}

func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}

func hear(ctx context.Context, rung <-chan struct{}) error {
	select {
	case <-rung:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// becomesVisible is a log whose records can be read a moment after they were written, but before Append returns.
func becomesVisible(m *es.Mem) (f *faulty, visible func(es.Record) bool) {
	var mu sync.Mutex
	up := es.Position(0)
	f = &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
		position, err := m.Append(ctx, appends...)
		window()
		mu.Lock()
		defer mu.Unlock()
		up = max(up, position)
		return position, err
	}}
	return f, func(r es.Record) bool {
		mu.Lock()
		defer mu.Unlock()
		return r.Position <= up
	}
}

// takesPositionsEarly is a log whose records become visible each by itself, some time after they got their positions.
func takesPositionsEarly(m *es.Mem) *faulty {
	var mu sync.Mutex
	writing := make(map[es.Position]bool)
	var b bell
	visible := func(r es.Record) bool {
		mu.Lock()
		defer mu.Unlock()
		return !writing[r.Position]
	}
	last := func(ctx context.Context) (es.Position, error) {
		head := es.Position(0)
		for r, err := range only(m.All(ctx, 0, es.Filter{}), visible) {
			if err != nil {
				return 0, err
			}
			head = r.Position
		}
		return head, nil
	}
	return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
		mu.Lock()
		position, err := m.Append(ctx, appends...)
		n := es.Position(0)
		for _, a := range appends {
			n += es.Position(len(a.Events))
		}
		for p := position - n + 1; p <= position; p++ {
			writing[p] = true
		}
		mu.Unlock()
		if position%3 == 0 {
			window()
		}
		mu.Lock()
		for p := position - n + 1; p <= position; p++ {
			delete(writing, p)
		}
		mu.Unlock()
		b.ring()
		return position, err
	}, onAll: func(ctx context.Context, after es.Position, filter es.Filter) records {
		return only(m.All(ctx, after, filter), visible)
	}, onChanged: func(ctx context.Context, after es.Position) (es.Position, error) {
		for {
			rung := b.next()
			head, err := last(ctx)
			if err != nil || head > after {
				return head, err
			}
			if taken, err := m.Changed(ctx, -1); err != nil || taken < after {
				return m.Changed(ctx, after)
			}
			if err := hear(ctx, rung); err != nil {
				return 0, err
			}
		}
	}}
}
