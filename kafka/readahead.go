package kafka

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/thalo-go/es"
)

// A readAhead reads the log while the relay is busy with what was read before. What waits is taken all at once, so that a transaction has as many records as there are.
type readAhead struct {
	log     es.Log
	filter  es.Filter
	records int // the most that wait
	bytes   int
	stats   *relayStats

	ready chan struct{} // something waits, or reading has ended
	room  chan struct{} // something was taken

	mu      sync.Mutex
	waiting batch
	taken   es.Position // where the last batch ended
	err     error
}

// A batch is what is published in one transaction.
type batch struct {
	records []es.Record
	bytes   int
	upTo    es.Position // everything up to here is in it, or before it, or held back by the filter
}

// far is how many records the filter must hold back before the checkpoint is moved for their sake alone.
const far = 10_000

func newReadAhead(r *Relay, after es.Position) *readAhead {
	a := &readAhead{
		log: r.Log, filter: r.Filter, stats: &r.stats,
		records: cmp.Or(r.Batch, DefaultRelayBatch), bytes: cmp.Or(r.Bytes, DefaultRelayBytes),
		ready: make(chan struct{}, 1), room: make(chan struct{}, 1),
		taken: after,
	}
	a.waiting.upTo = after
	return a
}

// run reads until the context ends or the log makes an error, which take returns.
func (a *readAhead) run(ctx context.Context) {
	err := a.read(ctx)
	a.mu.Lock()
	a.err = err
	a.mu.Unlock()
	signal(a.ready)
}

func (a *readAhead) read(ctx context.Context) error {
	after := a.taken
	for {
		// The head comes first: what the filter hides up to there need not be looked at again.
		head, err := a.log.Changed(ctx, after)
		if err != nil {
			return err
		}
		a.stats.set(func(s *RelayStats) { s.Head = max(s.Head, head) })
		for r, err := range a.log.All(ctx, after, a.filter) {
			if err != nil {
				return err
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

// put adds a record, and waits for room before.
func (a *readAhead) put(ctx context.Context, r es.Record) error {
	size := len(r.Data) + 100
	for {
		a.mu.Lock()
		w := &a.waiting
		if len(w.records) == 0 || len(w.records) < a.records && w.bytes+size <= a.bytes {
			w.records = append(w.records, r)
			w.bytes += size
			w.upTo = r.Position
			first := len(w.records) == 1
			a.mu.Unlock()
			if first {
				a.stats.waits(r.Time)
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

// skip notes that the filter has held back all up to a position.
func (a *readAhead) skip(upTo es.Position) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting.upTo = upTo
	if upTo-a.taken >= far {
		signal(a.ready)
	}
}

// take returns all that waits, in the memory of a batch that is done with. It may be nothing. The log's error comes after all that was read before it.
func (a *readAhead) take(done batch) (batch, error) {
	clear(done.records) // their data must not be kept alive
	a.mu.Lock()
	defer a.mu.Unlock()
	next := a.waiting
	if len(next.records) == 0 && a.err != nil {
		return batch{}, a.err
	}
	a.waiting = batch{records: done.records[:0], upTo: next.upTo}
	a.taken = next.upTo
	if a.err != nil {
		signal(a.ready) // for the error
	}
	signal(a.room)
	return next, nil
}

// oldest is the time of the first record that waits; zero if none does.
func (a *readAhead) oldest() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting.records) == 0 {
		return time.Time{}
	}
	return a.waiting.records[0].Time
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
