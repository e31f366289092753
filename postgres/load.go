package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/thalo-go/es"
)

// A loader reads the beginnings of streams. While its connections are busy requests gather, and go out together in one round trip:
// a lone reader pays nothing for it, and a crowd of commands on aggregates that are not cached shares the way to the server.
type loader struct {
	store *Store
	mu    sync.Mutex
	queue []*load
	busy  int // round trips under way
	work  sync.WaitGroup
}

// A load asks for the first page of a stream after a version.
type load struct {
	ctx    context.Context
	stream es.Stream
	after  es.Version
	page   page
	memory memory
	done   chan struct{}
}

const (
	maxLoads   = 2   // round trips at a time, so that requests gather
	loadedOnce = 128 // streams in a round trip
	loadBytes  = 1 << 20
)

func (l *loader) init(s *Store) { l.store = s }

func (l *loader) close() { l.work.Wait() }

// load reads the first page of a stream after a version, and returns its first piece and what brings the others.
func (l *loader) load(ctx context.Context, stream es.Stream, after es.Version) (page, *reading) {
	l.mu.Lock()
	if l.busy < maxLoads && len(l.queue) == 0 {
		l.busy++
		l.mu.Unlock()
		r := l.store.readStream(ctx, stream, after, lastPage, l.next) // a bound costs a short stream nothing, and a long one a round trip
		return r.next(), r
	}
	q := &load{ctx: ctx, stream: stream, after: after, page: page{whole: true}, done: make(chan struct{})}
	l.queue = append(l.queue, q)
	l.mu.Unlock()
	select {
	case <-q.done:
		return q.page, nil
	case <-ctx.Done():
		return page{err: ctx.Err()}, nil
	}
}

// next hands the place of a round trip that is over to what has gathered.
func (l *loader) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.busy--
		return
	}
	n := min(len(l.queue), loadedOnce)
	loads := append([]*load(nil), l.queue[:n]...)
	clear(l.queue[:n])
	l.queue = l.queue[n:]
	l.work.Go(func() {
		l.together(loads)
		l.next()
	})
}

// together reads many streams in one round trip.
func (l *loader) together(loads []*load) {
	var kinds, ids, afters array
	kinds.reset(oidText)
	ids.reset(oidText)
	afters.reset(oidInt8)
	waiting := loads[:0]
	for _, q := range loads {
		if q.ctx.Err() != nil {
			continue // nobody waits for it
		}
		waiting = append(waiting, q)
		kinds.text(q.stream.Kind)
		ids.text(q.stream.ID)
		afters.int8(int64(q.after))
	}
	if len(waiting) == 0 {
		return
	}
	ctx, stop := anyOf(waiting)
	defer stop()
	m := l.store.heads.mark()
	params := [][]byte{kinds.param(), ids.param(), afters.param(), int8Param(firstPage), int8Param(int64(m.position))}
	err := l.store.once(ctx, l.store.each, l.store.statements.streams, params, func(row [][]byte) error {
		n := int(getInt8(row[8])) - 1
		if n < 0 || n >= len(waiting) {
			return errors.New("the server gave a record nobody asked for")
		}
		return waiting[n].take(row, m)
	})
	for _, q := range waiting {
		if err != nil {
			q.page = page{err: fmt.Errorf("together with %d others: %w", len(waiting)-1, err)}
		}
		close(q.done)
	}
}

func (q *load) take(row [][]byte, m mark) error {
	if q.page.size > loadBytes {
		q.page.whole = false // the next page goes on from here
		return nil
	}
	r, token, err := q.memory.record(row, q.stream)
	if err != nil {
		return err
	}
	q.page.count++
	q.page.size += len(r.Data)
	q.page.records, q.page.token = append(q.page.records, r), token
	q.page.stands(m, row[7])
	if len(q.page.records) == firstPage {
		q.page.whole = false
	}
	return nil
}

// anyOf returns a context that lives as long as that of any of the loads.
func anyOf(loads []*load) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(loads[0].ctx))
	var mu sync.Mutex
	live := len(loads)
	stops := make([]func() bool, len(loads))
	for i, q := range loads {
		stops[i] = context.AfterFunc(q.ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			if live--; live == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
