package relay

import (
	"context"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/progress"
)

// readAhead reads the log while the session publishes. take returns all that is buffered, so that batches grow with the load.
type readAhead struct {
	log     es.Log
	filter  es.Filter
	records int // capacity
	bytes   int
	stats   *Stats

	start es.Position   // where reading starts
	ready chan struct{} // signals that something is buffered, or that reading has ended
	room  chan struct{} // signals that something was taken

	mu     sync.Mutex
	buffer batch
	taken  es.Position // the end of the last batch
	err    error
}

// batch is what one transaction publishes.
type batch struct {
	records []es.Record
	bytes   int
	upTo    es.Position // every record up to here is in it, before it, or excluded by the filter
}

// filteredStep is how many records the filter must exclude before the checkpoint is moved for their sake alone.
const filteredStep = 10_000

func newReadAhead(r *Relay, after es.Position) *readAhead {
	a := &readAhead{
		log: r.Log, filter: r.Filter, stats: r.Stats, records: r.Batch, bytes: r.Bytes,
		ready: make(chan struct{}, 1), room: make(chan struct{}, 1),
		start: after, taken: after,
	}
	a.buffer.upTo = after
	return a
}

// run reads until ctx is done or the log returns an error, which take returns.
func (a *readAhead) run(ctx context.Context) {
	err := a.read(ctx)
	a.mu.Lock()
	a.err = err
	a.mu.Unlock()
	signal(a.ready)
}

func (a *readAhead) read(ctx context.Context) error {
	after := a.start
	for {
		// The head is read first: records up to it that All does not return are excluded by the filter.
		a.stats.following(true)
		head, err := a.log.Changed(ctx, after)
		a.stats.following(false)
		if err != nil {
			return err
		}
		a.stats.set(func(s *Snapshot) { s.Head = max(s.Head, head) })
		for r, err := range a.log.All(progress.Want(ctx), after, a.filter) {
			if err != nil {
				return err
			}
			if progress.IsMark(&r) {
				after = r.Position
				a.skip(after)
				continue
			}
			if err := a.put(ctx, r); err != nil {
				return err
			}
			after = r.Position
		}
		if after < head {
			after = head
			a.skip(head)
		}
	}
}

// put adds a record to the buffer. It waits while the buffer is full.
func (a *readAhead) put(ctx context.Context, r es.Record) error {
	size := sizeOf(&r)
	for {
		a.mu.Lock()
		b := &a.buffer
		if len(b.records) == 0 || len(b.records) < a.records && b.bytes+size <= a.bytes {
			b.records = append(b.records, r)
			b.bytes += size
			b.upTo = r.Position
			first := len(b.records) == 1
			a.mu.Unlock()
			if first {
				a.stats.waiting(r.Time)
				signal(a.ready)
			}
			return nil
		}
		a.mu.Unlock()
		select {
		case <-a.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// skip notes that the filter excludes everything else up to a position.
func (a *readAhead) skip(upTo es.Position) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.buffer.upTo = upTo
	if upTo-a.taken >= filteredStep {
		signal(a.ready)
	}
}

// take returns the buffer, which may be empty, and reuses the memory of done. If the buffer has more bytes than most, it returns the first records,
// but at least one. The log's error follows all records that were read before it.
func (a *readAhead) take(done batch, most int) (batch, error) {
	clear(done.records) // release their data
	a.mu.Lock()
	defer a.mu.Unlock()
	next := a.buffer
	if len(next.records) == 0 && a.err != nil {
		return batch{}, a.err
	}
	a.buffer = batch{records: done.records[:0], upTo: next.upTo}
	if next.bytes > most {
		next = a.split(next, most)
	}
	a.taken = next.upTo
	if a.err != nil || len(a.buffer.records) > 0 {
		signal(a.ready) // so that the next take returns the error, or the rest
	}
	signal(a.room)
	return next, nil
}

// split returns the first records of a batch, up to a number of bytes, and puts the rest into the buffer. It is called with the lock held.
func (a *readAhead) split(all batch, most int) batch {
	first := batch{upTo: all.upTo}
	n := 0
	for n < len(all.records) && (n == 0 || first.bytes+sizeOf(&all.records[n]) <= most) {
		first.bytes += sizeOf(&all.records[n])
		n++
	}
	a.buffer.records = append(a.buffer.records, all.records[n:]...)
	a.buffer.bytes = all.bytes - first.bytes
	clear(all.records[n:]) // release their data
	first.records = all.records[:n]
	if len(a.buffer.records) > 0 {
		first.upTo = first.records[n-1].Position
	}
	return first
}

// sizeOf returns about how many bytes a record takes in a batch.
func sizeOf(r *es.Record) int { return len(r.Data) + 100 }

// oldest returns the time of the first buffered record; zero if there is none.
func (a *readAhead) oldest() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.buffer.records) == 0 {
		return time.Time{}
	}
	return a.buffer.records[0].Time
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
