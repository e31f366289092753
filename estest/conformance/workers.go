package conformance

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
)

// workerClauses test several workers of one projection, and partitions.
func workerClauses() []clause {
	return []clause{
		{"several workers apply every record once",
			"Every process of a service runs its projections. If two workers both apply a record, the read model counts it twice.",
			workersShare},
		{"shards are divided evenly",
			"Two workers each get two of four shards soon after the second one starts. If the first keeps all, a second process adds nothing.",
			workersAreFair},
		{"stopped worker hands over at once",
			"A deployment stops one process after another. If each kept its shards until its lease expires, read models would stall during every deployment.",
			workerHandsOver},
		{"dead worker is replaced when its lease expires",
			"A dead worker does not release its shards. If the others do not take over, the read model stalls.",
			workerDies},
		{"partitions can be changed while it runs",
			"The last worker to start decides, even while others run with another number. No record is skipped or applied twice during the change, and each stream stays in order.",
			partitionsChange},
		{"there may be more partitions than streams",
			"A shard without records still moves its checkpoint, because WaitFor waits for all shards.",
			partitionsAreEmpty},
	}
}

func workersShare(t *trial) {
	p := t.listing("shared")
	p.Partitions, p.Batch = 4, 10
	var s ReadSide[any]
	for range 3 {
		s = t.side()
		t.project(s, p)
	}
	var all sync.WaitGroup
	for w := range 3 {
		all.Go(func() {
			for i := range 60 {
				t.append(s, add(stream(fmt.Sprint(w, "-", i%7)), 1+i%3))
			}
		})
	}
	all.Wait()
	head, _ := es.Head(t.ctx, s)
	t.reach(s, p.Name, head)
	t.enlistedByStream(p.Name, s)
}

// holders returns the number of shards of each worker, sorted.
func (t *trial) holders(s ReadSide[any], name string) []int {
	counts := make(map[string]int)
	for _, s := range t.status(s, name) {
		counts[s.Worker]++
	}
	var sizes []int
	for _, n := range counts {
		sizes = append(sizes, n)
	}
	slices.Sort(sizes)
	return sizes
}

func workersAreFair(t *trial) {
	s := t.side()
	p := t.listing("fair")
	p.Partitions, p.Lease = 4, time.Hour
	first := t.project(s, p)
	t.until("one worker has all shards", func() bool {
		return slices.Equal(t.holders(s, p.Name), []int{4}) && t.status(s, p.Name)[0].Worker != ""
	})
	second := t.project(t.side(), p)
	t.until("two workers have two shards each", func() bool { return slices.Equal(t.holders(s, p.Name), []int{2, 2}) })
	t.reach(s, p.Name, t.appendSome(s, 30))
	t.cancel(first)
	t.until("the second worker has all shards", func() bool { return slices.Equal(t.holders(s, p.Name), []int{4}) })
	t.reach(s, p.Name, t.appendSome(s, 30))
	t.cancel(second)
	t.enlistedByStream(p.Name, s)
}

func workerHandsOver(t *trial) {
	p := t.listing("handed")
	p.Lease = time.Hour
	s := t.side()
	r := t.project(s, p)
	for range 3 {
		t.reach(s, p.Name, t.appendSome(s, 3))
		next := t.project(t.side(), p)
		t.cancel(r)
		r = next
	}
	t.reach(s, p.Name, t.appendSome(s, 3))
	t.enlisted(p.Name, s, es.Filter{})
}

func workerDies(t *trial) {
	first, second := t.side(), t.side()
	if first == second {
		return // closing it would also close the only access to the database
	}
	p := t.listing("died")
	p.Lease = 400 * time.Millisecond
	// The store is closed while its worker is in a transaction, so the worker can neither move its checkpoint nor release its lease.
	doomed := p
	var dying atomic.Bool
	busy, closed := make(chan struct{}, 1), make(chan struct{})
	resume := sync.OnceFunc(func() { close(closed) })
	defer resume()
	doomed.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		if dying.Load() {
			select {
			case busy <- struct{}{}:
			default:
			}
			<-closed
		}
		return p.Handle(ctx, tx, records)
	}
	r := t.project(first, doomed)
	t.reach(second, p.Name, t.appendSome(second, 3))
	dying.Store(true)
	last := t.append(second, add(stream("s"), 1))
	select {
	case <-busy:
	case <-t.ctx.Done():
		t.Fatalf("timeout waiting until the worker handles a record: %v", t.ctx.Err())
	}
	var closing sync.WaitGroup
	closing.Go(func() {
		if err := first.Close(); err != nil {
			t.Errorf("Close returned %v", err)
		}
	})
	pause(t.ctx, 50*time.Millisecond)
	resume()
	closing.Wait()
	if err := t.wait(r); err == nil {
		t.Errorf("Project returned no error when its store was closed")
	}
	t.project(second, p)
	t.reach(second, p.Name, last)
	t.enlisted(p.Name, second, es.Filter{})
}

func partitionsChange(t *trial) {
	s := t.side()
	p := t.listing("divided")
	p.Batch, p.Lease = 5, 2*time.Second
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(t.ctx)
	defer all.Wait()
	defer cancel()
	all.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := s.Append(ctx, add(stream(fmt.Sprint(i%11)), 1+i%2)); err != nil && ctx.Err() == nil {
				t.Errorf("Append returned %v", err)
			}
			pause(ctx, time.Millisecond)
		}
	})
	var before *run
	for _, n := range []int{1, 3, 5, 2} {
		p.Partitions = n
		r := t.project(t.side(), p)
		t.until(fmt.Sprintf("there are %d shards", n), func() bool {
			status := t.status(s, p.Name)
			return len(status) == n && status[0].Shard == fmt.Sprint("0/", n)
		})
		if before != nil {
			t.cancel(before)
		}
		before = r
	}
	cancel()
	all.Wait()
	head, _ := es.Head(t.ctx, s)
	t.reach(s, p.Name, head)
	t.enlistedByStream(p.Name, s)
}

func partitionsAreEmpty(t *trial) {
	s := t.side()
	p := t.listing("hollow")
	p.Partitions = 8
	t.project(s, p)
	for range 3 {
		t.reach(s, p.Name, t.append(s, add(stream("only"), 2)))
	}
	t.enlistedByStream(p.Name, s)
	if n := len(t.status(s, p.Name)); n != 8 {
		t.Errorf("Status returned %d shards: want 8", n)
	}
}
