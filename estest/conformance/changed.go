package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/thalo-go/es"
)

// changedClauses test waiting for new records and following the log while it grows.
func changedClauses() []clause {
	return []clause{
		{"Changed returns at once if there are later records",
			"Changed returns the position of the last record of the log, so that a reader does not poll once per record. With -1 it also returns at once for an empty log; es.Head relies on that.",
			changedAtOnce},
		{"Changed waits until its context ends",
			"Without new records Changed returns only when its context ends, with the context's error. A reader that is woken for nothing polls in a busy loop.",
			changedWaits},
		{"Changed refuses a position beyond the end",
			"Such a position belongs to another log or to a log that was restored from an older copy. A reader that waits instead of getting a *es.AheadError skips every record up to that position.",
			changedAhead},
		{"append wakes every waiting Changed",
			"Several projections and a relay may wait at the same time. If one of them is not woken, it stalls.",
			changedWakesAll},
		{"Changed misses no append while it starts to wait",
			"An append may come between reading the head and starting to wait. A store that misses it wakes the reader only at the next append.",
			changedMissesNothing},
		{"append through another store wakes Changed",
			"Projections often run in other processes than commands. A store that notices only its own appends lets them stall.",
			changedHearsOthers},
		{"All returns the records that Changed reports",
			"After Changed returns a position, All must read up to it. A reader that finds less assumes that the filter excluded the rest, and skips it.",
			changedIsReadable},
		{"Follow returns every position once and in order",
			"After a reader has seen a position, nothing may appear at or below it. A store that assigns positions before it commits in that order lets readers skip events.",
			followerSeesAll},
		{"Follow with a filter skips no matching record",
			"Follow moves past records that the filter excludes. If it also moves past a matching one, that record is never handled.",
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
				for ; ctx.Err() == nil; pause(ctx, time.Millisecond) {
					t.append(l, add(stream("a"), 0))
					_ = t.refuse(l, es.Append{Stream: stream("a"), Expected: 1000, Events: events(1)})
				}
			} else if head, err := l.Changed(ctx, n); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Changed(%d), of a log with %d records, returned %d and %v: want it to wait until the context ends and to return its error", n, n, head, err)
			}
		})
		t.append(l, add(stream("a"), 1))
	}
	t.blames("Changed", func(ctx context.Context) error { return second(l.Changed(ctx, 3)) })
	t.blames("All", func(ctx context.Context) error { return second(drain(l.All(ctx, 0, es.Filter{}))) })
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
			ctx, cancel := context.WithTimeout(t.ctx, t.timeout/10)
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
				// By now all of them should be waiting. If not, the clause tests less.
				pause(t.ctx, 5*time.Millisecond)
				t.append(l, add(stream("a"), 1))
				return
			}
			if got, err := l.Changed(t.ctx, head); got != head+1 || err != nil {
				t.Errorf("Changed(%d) returned %d and %v: want %d, which was written during the call", head, got, err, head+1)
			}
		})
	}
}

func changedMissesNothing(t *trial) {
	l := t.log()
	for head := range es.Position(200) {
		t.race(2, func(i int) {
			if i == 1 {
				pause(t.ctx, time.Duration(head%25)*20*time.Microsecond) // before, during and after the start of Changed
				t.append(l, add(stream("a"), 1))
			} else if _, err := l.Changed(t.ctx, head); err != nil {
				t.Fatalf("Changed(%d) returned %v: position %d was written as it started", head, err, head+1)
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
				pause(t.ctx, 2*time.Millisecond)
				t.append(there, add(stream("a"), 1))
			} else if _, err := here.Changed(t.ctx, head); err != nil {
				t.Fatalf("Changed(%d) returned %v: another store wrote position %d", head, err, head+1)
			}
		})
	}
}

// contention is a number of concurrent writers on several stores. Each writes to a stream of its own and to a common one.
type contention struct{ stores, writers, calls int }

// records returns the total number of records: each call writes one, two or three.
func (c contention) records() int {
	n := 0
	for range c.writers {
		for call := range c.calls {
			n += 1 + call%3
		}
	}
	return n
}

// write runs the writers and concurrently a reader.
func (c contention) write(t *trial, read func()) {
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
	c := contention{stores: 2, writers: 6, calls: 10}
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
	c := contention{stores: 3, writers: 9, calls: 15}
	l := t.log()
	c.write(t, func() {
		next := es.Position(1)
		for r, err := range es.Follow(t.ctx, l, 0, es.Filter{}) {
			if err != nil {
				t.Fatalf("Follow ended before position %d of %d: %v", next, c.records(), err)
			}
			if r.Position != next {
				t.Fatalf("Follow returned position %d after %d", r.Position, next-1)
			}
			if next++; next > es.Position(c.records()) {
				break
			}
		}
	})
}

func followerWithFilter(t *trial) {
	c := contention{stores: 2, writers: 6, calls: 15}
	l := t.log()
	filter := es.Filter{Kinds: []string{stream("").Kind}}
	c.write(t, func() {
		next := es.Version(1)
		for r, err := range es.Follow(t.ctx, l, 0, filter) {
			if err != nil {
				t.Fatalf("Follow ended before version %d of %s, of %d: %v", next, stream("common"), c.writers*c.calls, err)
			}
			if r.Stream != stream("common") || r.Version != next {
				t.Fatalf("Follow with the filter %s returned %s: want version %d of %s", filter, r.ID(), next, stream("common"))
			}
			if next++; next > es.Version(c.writers*c.calls) {
				break
			}
		}
	})
}
