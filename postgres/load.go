package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/thalo-go/es"
)

// A loader reads the beginnings of streams. A lone reader goes to the server by himself, and pays nothing for the others. Once there are more
// than can, those who come gather, and go out together in one round trip: a crowd of commands on aggregates that are not cached shares it.
// While a crowd is under way whoever comes waits for the next, which is as large as it can be then, instead of going alone beside it.
type loader struct {
	store  *Store
	mu     sync.Mutex
	queue  []*load
	busy   int // round trips under way
	crowds int // those of them for at least crowdOf
	work   sync.WaitGroup
}

// A load asks for the first page of a stream after a version.
type load struct {
	ctx    context.Context
	stream es.Stream
	after  es.Version
	page   page
	done   chan struct{}
}

const (
	maxLoads   = 2   // round trips at a time, so that requests gather; while one is for a crowd, another is only for a full one
	crowdOf    = 16  // streams in a round trip, for which the next had better be large than soon
	loadedOnce = 128 // streams in a round trip at most
	loadBytes  = 1 << 20
)

func (l *loader) init(s *Store) { l.store = s }

func (l *loader) close() { l.work.Wait() }

// load reads the first page of a stream after a version, and returns its first piece and what brings the others.
func (l *loader) load(ctx context.Context, stream es.Stream, after es.Version) (page, *reading) {
	l.mu.Lock()
	if l.busy < maxLoads && l.crowds == 0 && len(l.queue) == 0 {
		l.busy++
		l.mu.Unlock()
		r := l.store.readStream(ctx, stream, after, lastPage, func() { l.over(0) }) // a bound costs a short stream nothing, and a long one a round trip
		return r.next(), r
	}
	q := &load{ctx: ctx, stream: stream, after: after, page: page{whole: true}, done: make(chan struct{})}
	l.queue = append(l.queue, q)
	l.start()
	l.mu.Unlock()
	select {
	case <-q.done:
		return q.page, nil
	case <-ctx.Done():
		return page{err: ctx.Err()}, nil
	}
}

// over notes that a round trip is over, and gives its place to what has gathered.
func (l *loader) over(crowds int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
	l.crowds -= crowds
	l.start()
}

// start sends out what has gathered, if its time has come. The caller holds the lock.
func (l *loader) start() {
	for n := len(l.queue); n > 0 && l.busy < maxLoads && (l.crowds == 0 || n >= loadedOnce); n = len(l.queue) {
		n = min(n, loadedOnce)
		loads := append([]*load(nil), l.queue[:n]...)
		clear(l.queue[:n])
		l.queue = l.queue[n:]
		crowd := min(n/crowdOf, 1)
		l.busy++
		l.crowds += crowd
		l.work.Go(func() {
			l.together(loads)
			l.over(crowd)
		})
	}
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
	t := trip{loads: waiting, mark: m}
	err := l.store.once(ctx, l.store.each, l.store.statements.streams, params, t.take)
	for _, q := range waiting {
		if err != nil {
			q.page = page{err: fmt.Errorf("together with %d others: %w", len(waiting)-1, err)}
		}
		close(q.done)
	}
}

// A trip is a round trip in which many streams are read. Their records stand in rooms that they share, and so do names and data.
type trip struct {
	loads  []*load
	mark   mark
	memory memory
	room   []es.Record
	from   int // where those of the stream begin that is coming
	stream int // its number
}

const roomOf = 256 // records

// take adds a record to the page of its stream.
func (t *trip) take(row [][]byte) error {
	n := int(getInt8(row[8])) - 1
	if n < 0 || n >= len(t.loads) {
		return errors.New("the server gave a record nobody asked for")
	}
	p := &t.loads[n].page
	if n != t.stream {
		p.mixed = p.mixed || p.count > 0
		t.stream, t.from = n, len(t.room)
	}
	if p.mixed {
		*p = page{mixed: true} // who asked for it reads it by himself
		return nil
	}
	if p.size > loadBytes {
		p.whole = false // the next page goes on from here
		return nil
	}
	r, token, err := t.memory.record(row, t.loads[n].stream)
	if err != nil {
		return err
	}
	if p.count > 0 && r.Version <= p.records[p.count-1].Version {
		*p = page{mixed: true}
		return nil
	}
	if len(t.room) == cap(t.room) {
		own := t.room[t.from:]
		t.room, t.from = append(make([]es.Record, 0, max(roomOf, 2*len(own))), own...), 0
	}
	t.room = append(t.room, r)
	p.records, p.token = t.room[t.from:len(t.room):len(t.room)], token
	p.count++
	p.size += len(r.Data)
	p.stands(t.mark, row[7])
	if p.count == firstPage {
		p.whole = false
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
