package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/thalo-go/es"
)

// changedClauses are about waiting for what is written next, and about following the log while it grows.
func changedClauses() []clause {
	return []clause{
		{"Changed returns at once if there are later records",
			"It returns the position of the last record, of the whole log and not the next one only: a reader who is told less comes back for every record. With -1 it returns at once also from an empty log; that is how es.Head asks.",
			changedAtOnce},
		{"Changed waits until its context ends",
			"It returns the context's error then. A reader who is woken for nothing spins.",
			changedWaits},
		{"Changed refuses a position beyond the end",
			"Such a position belongs to another log, or this one was restored from an older copy. The *es.AheadError says how far apart they are; one who waits skips all that is written until the log has grown past his position.",
			changedAhead},
		{"append wakes every waiting Changed",
			"Every one who waits hears of it, not just the one who came first: there are many projections, and one relay.",
			changedWakesAll},
		{"Changed misses no append while it starts to wait",
			"Between looking at the log and waiting for it there is a moment. A store that is not careful sleeps through what is written then, until something else comes.",
			changedMissesNothing},
		{"append through another store wakes Changed",
			"Projections run in other processes than commands do. A store that hears of its own appends only leaves them waiting.",
			changedHearsOthers},
		{"All returns the records that Changed reports",
			"When it returns a position, All reads that far. A reader who finds less takes it that a filter hid the rest, goes on behind it, and has skipped them.",
			changedIsReadable},
		{"Follow returns every position once and in order",
			"Once a reader has seen position P nothing appears at or below P. A store that takes positions first and commits later lets a reader see 8 before 7, go on from there, and never see 7.",
			followerSeesAll},
		{"Follow with a filter skips no matching record",
			"What the filter hides counts as read; what it lets through must not be jumped over with it.",
			followerWithFilter},
	}
}

func changedAtOnce(t *trial) {
	l := t.log()
	for n := range es.Position(3) {
		if head, err := es.Head(t.ctx, l); head != n || err != nil {
			t.Errorf("es.Head, of a log with %d records, returned %d and %v", n, head, err)
		}
		for after := es.Position(-1); after < n; after++ {
			if head, err := l.Changed(t.ctx, after); head != n || err != nil {
				t.Errorf("Changed(%d), of a log with %d records, returned %d and %v: want %d", after, n, head, err, n)
			}
		}
		t.append(l, add(stream("a"), 1))
	}
}

func changedWaits(t *trial) {
	l := t.log()
	for n := range es.Position(3) {
		t.race(2, func(i int) {
			ctx, cancel := context.WithTimeout(t.ctx, 20*time.Millisecond)
			defer cancel()
			if i == 1 {
				for ; ctx.Err() == nil; rest(ctx, time.Millisecond) {
					t.append(l, add(stream("a"), 0))
					_ = t.refuse(l, es.Append{Stream: stream("a"), Expected: 1000, Events: events(1)})
				}
			} else if head, err := l.Changed(ctx, n); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Changed(%d), of a log with %d records, returned %d and %v: want it to wait until the context ends and return its error", n, n, head, err)
			}
		})
		t.append(l, add(stream("a"), 1))
	}
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	if _, err := l.Changed(ctx, 3); !errors.Is(err, context.Canceled) {
		t.Errorf("Changed with a cancelled context returned %v: want an error that wraps context.Canceled", err)
	}
}

func changedAhead(t *trial) {
	l := t.log()
	for n := range es.Position(3) {
		for _, after := range []es.Position{n + 1, n + 1000, 1 << 40} {
			ctx, cancel := context.WithTimeout(t.ctx, t.patience/10)
			_, err := l.Changed(ctx, after)
			_, followed := drain(es.Follow(ctx, l, after, es.Filter{}))
			cancel()
			for name, err := range map[string]error{"Changed": err, "es.Follow": followed} {
				var ahead *es.AheadError
				if !errors.As(err, &ahead) {
					t.Errorf("%s after %d, of a log with %d records, returned %v: want a *es.AheadError", name, after, n, err)
				} else if *ahead != (es.AheadError{After: after, Head: n}) {
					t.Errorf("%s after %d, of a log with %d records, returned %+v", name, after, n, *ahead)
				}
			}
		}
		t.append(l, add(stream("a"), 1))
	}
}

func changedWakesAll(t *trial) {
	const waiters = 24
	l := t.log()
	for head := range es.Position(5) {
		t.race(waiters+1, func(i int) {
			if i == waiters {
				// Once all of them wait; a store for which this is too early has an easier time, and the clause says less.
				rest(t.ctx, 5*time.Millisecond)
				t.append(l, add(stream("a"), 1))
				return
			}
			if got, err := l.Changed(t.ctx, head); got != head+1 || err != nil {
				t.Errorf("Changed(%d) returned %d and %v: want %d, which was written meanwhile", head, got, err, head+1)
			}
		})
	}
}

// rest waits for a time or the end of the context.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func changedMissesNothing(t *trial) {
	l := t.log()
	for head := range es.Position(200) {
		t.race(2, func(i int) {
			if i == 1 {
				rest(t.ctx, time.Duration(head%25)*20*time.Microsecond) // sooner and later
				t.append(l, add(stream("a"), 1))
			} else if _, err := l.Changed(t.ctx, head); err != nil {
				t.Fatalf("Changed(%d) returned %v: position %d was written while it began", head, err, head+1)
			}
		})
		if t.ctx.Err() != nil {
			return
		}
	}
}

func changedHearsOthers(t *trial) {
	here, there := t.log(), t.log()
	for head := range es.Position(5) {
		t.race(2, func(i int) {
			if i == 1 {
				rest(t.ctx, 2*time.Millisecond)
				t.append(there, add(stream("a"), 1))
			} else if _, err := here.Changed(t.ctx, head); err != nil {
				t.Fatalf("Changed(%d) returned %v: another store wrote position %d", head, err, head+1)
			}
		})
	}
}

// A crowd is writers who race through several stores, each on streams of its own and on a common one.
type crowd struct{ stores, writers, calls int }

// records is how many records the crowd writes: each call one, two or three.
func (c crowd) records() int {
	n := 0
	for range c.writers {
		for call := range c.calls {
			n += 1 + call%3
		}
	}
	return n
}

// write lets the crowd write, and read meanwhile.
func (c crowd) write(t *trial, read func()) {
	stores := t.stores(c.stores)
	t.race(c.writers+1, func(i int) {
		if i == c.writers {
			read()
			return
		}
		for call := range c.calls {
			own := es.Append{Stream: es.Stream{Kind: fmt.Sprint("kind", i%3), ID: fmt.Sprint(i)}, Expected: es.AnyVersion, Events: events(call % 3)}
			t.append(stores[i%len(stores)], own, add(stream("common"), 1))
		}
	})
}

func changedIsReadable(t *trial) {
	c := crowd{stores: 2, writers: 6, calls: 10}
	l := t.log()
	c.write(t, func() {
		for after := es.Position(0); after < es.Position(c.records()); {
			head, err := l.Changed(t.ctx, after)
			if err != nil {
				t.Fatalf("Changed(%d) returned %v", after, err)
			}
			last := after
			for _, r := range t.collect(l.All(t.ctx, after, es.Filter{})) {
				last = max(last, r.Position)
			}
			if last < head {
				t.Fatalf("Changed(%d) returned %d, and All read up to %d", after, head, last)
			}
			after = last
		}
	})
}

func followerSeesAll(t *trial) {
	c := crowd{stores: 3, writers: 9, calls: 15}
	l := t.log()
	c.write(t, func() {
		next := es.Position(1)
		for r, err := range es.Follow(t.ctx, l, 0, es.Filter{}) {
			if err != nil {
				t.Fatalf("a follower stopped before position %d of %d: %v", next, c.records(), err)
			}
			if r.Position != next {
				t.Fatalf("a follower saw position %d after %d", r.Position, next-1)
			}
			if next++; next > es.Position(c.records()) {
				break
			}
		}
	})
}

func followerWithFilter(t *trial) {
	c := crowd{stores: 2, writers: 6, calls: 15}
	l := t.log()
	filter := es.Filter{Kinds: []string{stream("").Kind}}
	c.write(t, func() {
		next := es.Version(1)
		for r, err := range es.Follow(t.ctx, l, 0, filter) {
			if err != nil {
				t.Fatalf("a follower stopped before version %d of %s, of %d: %v", next, stream("common"), c.writers*c.calls, err)
			}
			if r.Stream != stream("common") || r.Version != next {
				t.Fatalf("a follower with the filter %s saw %s: want version %d of %s", filter, r.ID(), next, stream("common"))
			}
			if next++; next > es.Version(c.writers*c.calls) {
				break
			}
		}
	})
}
