package conformance_test

import (
	"context"
	"errors"
	"sync"

	"github.com/thalo-go/es"
)

const (
	atOnce        = "Changed returns at once if there are later records"
	waits         = "Changed waits until its context ends"
	ahead         = "Changed refuses a position beyond the end"
	wakesAll      = "append wakes every waiting Changed"
	missesNone    = "Changed misses no append while it starts to wait"
	hearsOthers   = "append through another store wakes Changed"
	readable      = "All returns the records that Changed reports"
	followsAll    = "Follow returns every position once and in order"
	followsFilter = "Follow with a filter skips no matching record"
)

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
				return after, nil //nolint:nilerr // that is the defect
			}
			return head, err
		})),
		broken("an append without events wakes readers", waits, func(m *es.Mem) *faulty {
			var b broadcast
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				defer b.notify()
				return m.Append(ctx, appends...)
			}, onChanged: func(ctx context.Context, after es.Position) (es.Position, error) {
				next := b.next()
				if head, err := m.Changed(ctx, -1); err != nil || head != after {
					return m.Changed(ctx, after)
				}
				if err := wait(ctx, next); err != nil {
					return 0, err
				}
				return m.Changed(ctx, -1)
			}}
		}),
	}
}

func brokenWaits() []defect[es.Log] {
	return []defect[es.Log]{
		broken("Changed waits for a position beyond the end", ahead, waiting(func(ctx context.Context, m *es.Mem, after es.Position) (es.Position, error) {
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
		broken("an append wakes only one reader", wakesAll, wakesOne).blocking(),
		broken("the head is read before the wait starts", missesNone, readsHeadTooEarly).blocking().noticedBy(hearsOthers, wakesAll, readable, followsAll, followsFilter),
		brokenApart("a store notices only its own appends", hearsOthers, noticesOwnAppends).blocking().noticedBy(readable, followsAll, followsFilter),
		broken("Changed reports records before they can be read", readable, reportsTooEarly).blocking().noticedBy(followsAll, followsFilter),
		broken("positions are assigned before the lock", followsAll, assignsPositionsEarly).blocking().noticedBy(followsFilter),
		broken("filtered reads use a copy that lags", followsFilter, filtersCopy).blocking(),
	}
}

// wakesOne is a log in which an append wakes only one of the waiting readers.
func wakesOne(m *es.Mem) *faulty {
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
			if err := wait(ctx, token); err != nil {
				return 0, err
			}
		}
	}}
}

// readsHeadTooEarly is a log that misses appends between reading the head and starting to wait.
func readsHeadTooEarly(m *es.Mem) *faulty {
	var b broadcast
	return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
		defer b.notify()
		return m.Append(ctx, appends...)
	}, onChanged: func(ctx context.Context, after es.Position) (es.Position, error) {
		for {
			if head, err := m.Changed(ctx, -1); err != nil || head != after {
				return m.Changed(ctx, after)
			}
			window()
			if err := wait(ctx, b.next()); err != nil {
				return 0, err
			}
		}
	}}
}

// noticesOwnAppends is a log whose Changed is woken only by its own appends.
func noticesOwnAppends(m *es.Mem) *faulty {
	var b broadcast
	return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
		defer b.notify()
		return m.Append(ctx, appends...)
	}, onChanged: func(ctx context.Context, after es.Position) (es.Position, error) {
		for {
			next := b.next()
			if head, err := m.Changed(ctx, -1); err != nil || head != after {
				return m.Changed(ctx, after)
			}
			if err := wait(ctx, next); err != nil {
				return 0, err
			}
		}
	}}
}

// reportsTooEarly is a log that notifies readers before the records are visible.
func reportsTooEarly(m *es.Mem) *faulty {
	f, visible := becomesVisible(m)
	f.onAll = func(ctx context.Context, after es.Position, filter es.Filter) records {
		return only(m.All(ctx, after, filter), visible)
	}
	return f
}

// filtersCopy is a log that reads matching records from a copy that lags.
func filtersCopy(m *es.Mem) *faulty {
	f, visible := becomesVisible(m)
	f.onAll = func(ctx context.Context, after es.Position, filter es.Filter) records {
		if len(filter.Kinds)+len(filter.Types) == 0 {
			return m.All(ctx, after, filter)
		}
		return only(m.All(ctx, after, filter), visible)
	}
	return f
}

// broadcast wakes every goroutine that waits on next.
type broadcast struct {
	mu       sync.Mutex
	notified chan struct{}
}

func (b *broadcast) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.notified == nil {
		b.notified = make(chan struct{})
	}
	return b.notified
}

func (b *broadcast) notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.notified != nil {
		close(b.notified)
		b.notified = nil
	}
}

func wait(ctx context.Context, notified <-chan struct{}) error {
	select {
	case <-notified:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

// becomesVisible is a log whose records become readable a moment after they are written, but before Append returns.
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

// assignsPositionsEarly is a log whose calls become visible in another order than that of their positions.
func assignsPositionsEarly(m *es.Mem) *faulty {
	var mu sync.Mutex
	writing := make(map[es.Position]bool)
	var b broadcast
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
		b.notify()
		return position, err
	}, onAll: func(ctx context.Context, after es.Position, filter es.Filter) records {
		return only(m.All(ctx, after, filter), visible)
	}, onChanged: func(ctx context.Context, after es.Position) (es.Position, error) {
		for {
			next := b.next()
			head, err := last(ctx)
			if err != nil || head > after {
				return head, err
			}
			if taken, err := m.Changed(ctx, -1); err != nil || taken < after {
				return m.Changed(ctx, after)
			}
			if err := wait(ctx, next); err != nil {
				return 0, err
			}
		}
	}}
}
