package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/group"
)

// loader batches concurrent reads of streams. A reader that finds few queries in flight runs its own. When maxLoads are in flight, further
// readers wait and share one query, for example many commands on aggregates that are not cached. While a shared query for crowdOf streams
// or more is in flight, later readers wait for the next one, which is then as large as possible.
type loader struct {
	store  *Store
	mu     sync.Mutex
	group  group.Group[*load]
	busy   int // queries in flight
	crowds int // those for at least crowdOf streams
	work   sync.WaitGroup
}

// A load requests the first page of a stream after a version.
type load struct {
	group.Member
	ctx    context.Context
	stream es.Stream
	after  es.Version
	page   page // the answer
}

const (
	maxLoads   = 2   // queries at the same time, so that others wait and share one; while one is for a crowd, another must be full
	crowdOf    = 16  // streams in a query, from which the next one had better be large than soon
	loadedOnce = 128 // streams in a query at most
	loadBytes  = 1 << 20
)

func (l *loader) init(s *Store) { l.store = s }

func (l *loader) close() { l.work.Wait() }

// load reads the first page of a stream after a version. It returns the first piece, and a reading that brings the others, if any.
func (l *loader) load(ctx context.Context, stream es.Stream, after es.Version) (page, *reading) {
	l.mu.Lock()
	if l.busy < maxLoads && l.crowds == 0 && l.group.Waiting() == 0 {
		l.busy++
		l.mu.Unlock()
		r := l.store.readStream(ctx, stream, after, lastPage, func() { l.done(0) })
		return r.next(), r
	}
	q := &load{ctx: ctx, stream: stream, after: after, page: page{whole: true}}
	l.group.Wait(q)
	l.start()
	l.mu.Unlock()
	select {
	case <-q.Done():
		return q.page, nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		l.group.Leave(q)
		return page{err: ctx.Err()}, nil
	}
}

// done notes the end of a query, and starts the next one.
func (l *loader) done(crowds int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
	l.crowds -= crowds
	l.start()
}

// start starts queries for the readers that wait, as far as the limits allow. The caller holds the lock.
func (l *loader) start() {
	for n := l.group.Waiting(); n > 0 && l.busy < maxLoads && (l.crowds == 0 || n >= loadedOnce); n = l.group.Waiting() {
		streams := 0
		round := l.group.Take(func(*load, bool) bool { streams++; return streams <= loadedOnce })
		crowd := min(len(round.Calls)/crowdOf, 1)
		l.busy++
		l.crowds += crowd
		l.work.Go(func() {
			l.readTogether(round)
			l.done(crowd)
		})
	}
}

// readTogether reads the streams of a round in one query, which is cancelled when all its readers have left.
func (l *loader) readTogether(round *group.Round[*load]) {
	l.mu.Lock()
	loads := group.Claim(round.Calls)
	if len(loads) == 0 {
		l.mu.Unlock()
		return
	}
	ctx := round.Context(loads[0].ctx)
	l.mu.Unlock()

	var kinds, ids, afters array
	kinds.reset(oidText)
	ids.reset(oidText)
	afters.reset(oidInt8)
	for _, q := range loads {
		kinds.text(q.stream.Kind)
		ids.text(q.stream.ID)
		afters.int8(int64(q.after))
	}
	m, seen := l.store.heads.mark(), &l.store.heads.seen
	epoch := seen.Epoch()
	params := [][]byte{kinds.param(), ids.param(), afters.param(), int8Param(firstPage), int8Param(int64(m.position))}
	pages := sharedPages{loads: loads, mark: m}
	err := l.store.once(ctx, l.store.each, l.store.statements.streams, params, pages.take)
	switch {
	case err != nil && classify(err).code == queryCanceled && ctx.Err() == nil:
		for _, q := range loads {
			q.page = page{mixed: true} // each caller reads its stream in queries of its own, which are smaller
		}
	case err != nil:
		err = fmt.Errorf("together with %d others: %w", len(loads)-1, err)
		for _, q := range loads {
			q.page = page{err: err}
		}
	}
	for _, q := range loads {
		if n := len(q.page.records); n > 0 {
			seen.Note(epoch, q.page.records[n-1].Position, q.stream)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	group.Answer(loads...)
}

// sharedPages fills the pages of many streams from one query. The records share backing arrays, names and memory for data.
type sharedPages struct {
	loads   []*load
	mark    mark
	memory  memory
	records []es.Record // a backing array
	from    int         // where the records of the current stream begin
	stream  int         // the number of the current stream
}

const sharedRecords = 256 // in a backing array

// take adds a record to the page of its stream.
func (s *sharedPages) take(row [][]byte) error {
	n := int(getInt8(row[8])) - 1
	if n < 0 || n >= len(s.loads) {
		return errors.New("the server returned a record of a stream that was not queried")
	}
	p := &s.loads[n].page
	if n != s.stream {
		p.mixed = p.mixed || p.count > 0
		s.stream, s.from = n, len(s.records)
	}
	if p.mixed {
		*p = page{mixed: true} // the caller reads the stream in a query of its own
		return nil
	}
	if p.size > loadBytes {
		p.whole = false // the next page continues here
		return nil
	}
	r, token, err := s.memory.record(row, s.loads[n].stream)
	if err != nil {
		return err
	}
	if p.count > 0 && r.Version <= p.records[p.count-1].Version {
		*p = page{mixed: true}
		return nil
	}
	if len(s.records) == cap(s.records) {
		own := s.records[s.from:]
		s.records, s.from = append(make([]es.Record, 0, max(sharedRecords, 2*len(own))), own...), 0
	}
	s.records = append(s.records, r)
	p.records, p.token = s.records[s.from:len(s.records):len(s.records)], token
	p.count++
	p.size += len(r.Data)
	p.verify(s.mark, row[7])
	if p.count == firstPage {
		p.whole = false
	}
	return nil
}
