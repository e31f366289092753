package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// timerClauses test reactions with a Due. Most have a clock that the clause moves.
func timerClauses() []clause {
	return []clause{
		{"record is handled when it is due and never before",
			"A payment is given its 15 minutes. What comes behind does not wait, and WaitFor does not wait for timers either.",
			timersFire},
		{"record is due by the clock of the database",
			"It is the only clock that all workers share. The effect is never early, and a worker wakes when the earliest timer is due.",
			timersByTheDatabase},
		{"timers survive workers, repartitioning and Rename",
			"They belong to streams and not to shards. Each is handled by whichever worker has the shard of its stream.",
			timersStay},
		{"timer that fails is parked with the later ones of its stream",
			"They are handled out of order otherwise. Timers of other streams go on.",
			timersPark},
		{"error of Due is an error of its record",
			"A due time that cannot be kept must not be cut to one that can, or be taken for now.",
			dueFails},
		{"many timers are worked off while new records go on",
			"After an outage all of them are due at once. New records must not wait for the last of them.",
			timersMany},
		{"timer keeps its time when Due changes",
			"What was promised stays. A reaction whose Due was removed still handles what was enrolled.",
			dueChanges},
		{"clock that is set back delays timers and loses none",
			"Clocks are corrected. What is due by the clock as it was must not be taken for due, nor be forgotten.",
			timersBack},
		{"record that is due when it is read takes its turn",
			"It waits for no timer that is due later, and for those of its stream that were due before it.",
			timersInTurn},
		{"Replay and Forget remove timers",
			"A timer behind the place of a Replay would be handled beside the record that comes again.",
			timersRemoved},
		{"Status and Timers show what waits",
			"A timer that does not fire must be visible: how many wait, and how long the earliest is overdue.",
			timersShown},
		{"Due needs a source that can be read again",
			"A record is read again when it is due. A topic may have deleted it by then.",
			dueNeedsALog},
	}
}

// hand is a clock that a clause moves.
type hand struct{ micros atomic.Int64 }

func newHand() *hand {
	h := new(hand)
	h.micros.Store(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro())
	return h
}

func (h *hand) now() time.Time { return time.UnixMicro(h.micros.Load()).UTC() }

func (h *hand) move(d time.Duration) { h.micros.Add(d.Microseconds()) }

// timed returns a reaction that handles each record an hour after the time that a clock shows now. It looks for due timers often.
func (t *trial) timed(name string, j *journal, h *hand, fails func(r es.Record) bool) projection.Reaction {
	r := t.reaction(name, j, fails)
	due := h.now().Add(time.Hour)
	r.Due = func(es.Record) (time.Time, error) { return due, nil }
	r.Now, r.Lease, r.Retries = h.now, 300*time.Millisecond, -1
	return r
}

// waiting returns how many timers a reaction has.
func (t *trial) waiting(s ReadSide[any], name string) (n int) {
	for _, shard := range t.status(s, name) {
		n += shard.Waiting
	}
	return n
}

func (t *trial) allFired(s ReadSide[any], name string) {
	t.until("no timer of "+name+" waits", func() bool { return t.waiting(s, name) == 0 })
}

func timersFire(t *trial) {
	s, j, h := t.side(), new(journal), newHand()
	r := t.timed("fires", j, h, nil)
	due := r.Due
	r.Due = func(r es.Record) (time.Time, error) {
		if r.Version%2 == 0 {
			return time.Time{}, nil // at once
		}
		return due(r)
	}
	t.react(s, r)
	last := t.append(s, add(stream("a"), 6))
	t.reach(s, r.Name, last)
	t.equal("the records handled at once", j.read(), recordIDs("a", 2, 4, 6))
	h.move(time.Hour - time.Microsecond)
	last = t.append(s, add(stream("a"), 2))
	t.reach(s, r.Name, last)
	pause(t.ctx, 250*time.Millisecond) // two looks
	t.equal("the records handled before the others are due", j.read(), recordIDs("a", 2, 4, 6, 8))
	h.move(time.Microsecond)
	t.allFired(s, r.Name)
	t.equal("the handled records", j.read(), recordIDs("a", 2, 4, 6, 8, 1, 3, 5, 7))
	t.handledAsStored(s)
}

// handledAsStored checks that a record that is read again when it is due is the one in the log, with all its fields.
func (t *trial) handledAsStored(s ReadSide[any]) {
	h := newHand()
	full := es.Record{Type: "tagged", Data: []byte("{}"), Meta: map[string]string{"user": "ann"}, Tags: []string{"a", "b"}}
	t.append(s, es.Append{Stream: es.Stream{Kind: "tagged", ID: "1"}, Expected: es.AnyVersion, Events: []es.Record{full, full}})
	r := t.timed("reads again", new(journal), h, nil)
	r.Filter = es.Filter{Kinds: []string{"tagged"}}
	var mu sync.Mutex
	var handled []es.Record
	r.Handle = func(_ context.Context, record es.Record) error {
		mu.Lock()
		defer mu.Unlock()
		handled = append(handled, record)
		return nil
	}
	t.react(s, r)
	t.until("the timers wait", func() bool { return t.waiting(s, r.Name) == 2 })
	h.move(time.Hour)
	t.allFired(s, r.Name)
	mu.Lock()
	defer mu.Unlock()
	t.equal("the records that were read again", handled, t.read(s, es.Stream{Kind: "tagged", ID: "1"}))
}

func timersByTheDatabase(t *trial) {
	s := t.side()
	var mu sync.Mutex
	early, late := time.Duration(1), make([]time.Duration, 0)
	r := projection.Reaction{Name: "by the clock", From: projection.Beginning(), Lease: time.Hour, // so that only the alarm wakes it
		Due: func(r es.Record) (time.Time, error) { return r.Time.Add(150 * time.Millisecond), nil },
		Handle: func(_ context.Context, r es.Record) error {
			mu.Lock()
			defer mu.Unlock()
			late = append(late, time.Since(r.Time)-150*time.Millisecond)
			early = min(early, late[len(late)-1])
			return nil
		}}
	t.react(s, r)
	t.until("it has joined", func() bool { return len(t.status(s, r.Name)) > 0 })
	for range 3 {
		t.appendSome(s, 5)
		t.until("the timers have fired", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(late)%5 == 0 && len(late) > 0
		})
	}
	t.until("all timers have fired", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(late) == 15
	})
	if mu.Lock(); early < 0 {
		t.Errorf("a record was handled %v before it was due", -early)
	}
	mu.Unlock()
}

func timersStay(t *trial) {
	s, other, j, h := t.side(), t.side(), new(journal), newHand()
	r := t.timed("stays", j, h, nil)
	r.Partitions = 3
	run := t.react(s, r)
	last := t.appendSome(s, 20)
	t.reach(s, r.Name, last)
	if n := t.waiting(other, r.Name); n != 20 {
		t.Errorf("%d timers wait, want 20", n)
	}
	t.cancel(run)
	if err := s.Rename(t.ctx, r.Name, "renamed"); err != nil {
		t.Fatalf("Rename returned %v", err)
	}
	r.Name, r.Partitions = "renamed", 5
	t.react(other, r)
	t.until("it is repartitioned", func() bool { return len(t.status(s, r.Name)) == 5 })
	last = t.appendSome(s, 10)
	t.reach(s, r.Name, last)
	t.equal("the records handled early", len(j.read()), 0)
	h.move(time.Hour)
	t.allFired(s, r.Name)
	t.handled(j, s)
}

func timersPark(t *trial) {
	s, j, h := t.side(), new(journal), newHand()
	var fixed atomic.Bool
	r := t.timed("parks timers", j, h, func(r es.Record) bool { return string(r.Data) == "bad" && !fixed.Load() })
	r.OnError = es.Park
	t.react(s, r)
	last := t.writeMixed(s)
	t.reach(s, r.Name, last)
	h.move(time.Hour)
	t.allFired(s, r.Name)
	t.equal("the handled records, by stream", byStream(j.read()), byStream(slices.Concat(recordIDs("a", 1), recordIDs("b", 1, 2, 3), recordIDs("c", 1, 2, 3, 4, 5))))
	fixed.Store(true)
	for _, id := range []string{"a", "b"} {
		if err := s.Retry(t.ctx, r.Name, 0, stream(id)); err != nil {
			t.Fatalf("Retry returned %v", err)
		}
	}
	t.until("no stream is parked", func() bool { return len(t.parkedIDs(s)) == 0 })
	t.handled(j, s)
}

func dueFails(t *trial) {
	s, j, h := t.side(), new(journal), newHand()
	var fixed atomic.Bool
	r := t.timed("fails in Due", j, h, nil)
	r.OnError = es.Park
	due := r.Due
	r.Due = func(r es.Record) (time.Time, error) {
		switch {
		case r.Version == 3 && !fixed.Load():
			return time.Time{}, errHandler
		case r.Version == 1:
			return time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), nil
		case r.Version == 2:
			return time.Date(-300000, 1, 1, 0, 0, 0, 0, time.UTC), nil // long ago
		}
		return due(r)
	}
	t.react(s, r)
	t.reach(s, r.Name, t.append(s, add(stream("past"), 1)))
	t.until("the first is parked", func() bool { return len(t.parkedIDs(s)) == 1 })
	t.reach(s, r.Name, t.append(s, add(stream("past"), 3)))
	t.until("the past waits for the first, and the third has failed", func() bool { return len(t.parkedIDs(s)) == 3 })
	t.equal("the parked records", t.parkedIDs(s), recordIDs("past", 1, 2, 3))
	fixed.Store(true)
	if err := s.Drop(t.ctx, r.Name, 0, stream("past")); err != nil {
		t.Fatalf("Drop returned %v", err)
	}
	t.until("no stream is parked", func() bool { return len(t.parkedIDs(s)) == 0 })
	t.equal("the records that were due", j.read(), recordIDs("past", 2))
	h.move(time.Hour)
	t.allFired(s, r.Name)
	t.equal("the handled records", j.read(), recordIDs("past", 2, 3, 4))
}

func timersMany(t *trial) {
	s, h := t.side(), newHand()
	n := 1000
	var fired, direct, before atomic.Int64
	due := h.now().Add(time.Hour)
	r := projection.Reaction{Name: "many", From: projection.Beginning(), Now: h.now, Lease: 300 * time.Millisecond, Batch: 100,
		Due: func(r es.Record) (time.Time, error) {
			if r.Stream.ID == "new" {
				return time.Time{}, nil
			}
			return due, nil
		},
		Handle: func(_ context.Context, r es.Record) error {
			if r.Stream.ID != "new" {
				time.Sleep(time.Millisecond)
				fired.Add(1)
			} else if direct.Add(1) == 1 {
				before.Store(fired.Load())
			}
			return nil
		}}
	run := t.react(s, r)
	t.reach(s, r.Name, t.append(s, add(stream("old"), n)))
	t.cancel(run)
	t.append(s, add(stream("new"), 1))
	h.move(time.Hour)
	t.react(s, r)
	t.until("all are handled", func() bool { return direct.Load() == 1 && fired.Load() >= int64(n) })
	t.allFired(s, r.Name)
	if fired.Load() != int64(n) || before.Load() > int64(n)/2 {
		t.Errorf("%d of %d timers have fired, %d of them before a new record", fired.Load(), n, before.Load())
	}
}

func dueChanges(t *trial) {
	s, j, h := t.side(), new(journal), newHand()
	r := t.timed("changes", j, h, nil)
	run := t.react(s, r)
	t.reach(s, r.Name, t.append(s, add(stream("a"), 2)))
	t.cancel(run)
	r.Due = func(es.Record) (time.Time, error) { return h.now().Add(-time.Hour), nil }
	run = t.react(s, r)
	t.reach(s, r.Name, t.append(s, add(stream("a"), 1)))
	t.until("the new record is handled", func() bool { return len(j.read()) == 1 && t.waiting(s, r.Name) == 2 })
	t.equal("the handled records", j.read(), recordIDs("a", 3))
	t.cancel(run)
	r.Due = nil
	t.react(s, r)
	t.reach(s, r.Name, t.append(s, add(stream("a"), 1)))
	t.equal("the handled records", j.read(), recordIDs("a", 3, 4))
	h.move(time.Hour)
	t.allFired(s, r.Name)
	t.equal("the handled records", j.read(), recordIDs("a", 3, 4, 1, 2))
}

func timersBack(t *trial) {
	s, j, h := t.side(), new(journal), newHand()
	r, began := t.timed("set back", j, h, nil), h.now()
	r.Due = func(r es.Record) (time.Time, error) {
		delays := map[es.Version]time.Duration{1: time.Hour, 2: 10 * time.Minute}
		return began.Add(delays[r.Version]), nil
	}
	var reads atomic.Int64
	r.Now = func() time.Time {
		reads.Add(1)
		return h.now()
	}
	run := t.react(s, r)
	t.reach(s, r.Name, t.append(s, add(stream("a"), 1)))
	h.move(59 * time.Minute)
	before := reads.Load()
	t.until("the clock has been read", func() bool { return reads.Load() > before+1 })
	t.cancel(run)
	h.move(-58 * time.Minute)
	t.react(s, r)
	t.reach(s, r.Name, t.append(s, add(stream("a"), 1)))
	t.equal("the records handled while the clock is back", len(j.read()), 0)
	if n := t.waiting(s, r.Name); n != 2 {
		t.Fatalf("%d timers wait, want 2", n)
	}
	h.move(9 * time.Minute)
	t.until("the second timer has fired", func() bool { return t.waiting(s, r.Name) == 1 })
	h.move(50 * time.Minute)
	t.allFired(s, r.Name)
	t.equal("the handled records", j.read(), recordIDs("a", 2, 1))
}

func timersInTurn(t *trial) {
	s, j, h := t.side(), new(journal), newHand()
	r := t.timed("in turn", j, h, nil)
	r.Batch = 2
	began := h.now()
	r.Due = func(r es.Record) (time.Time, error) {
		if r.Stream.ID == "b" {
			return began.Add(3 * time.Hour), nil
		}
		return began.Add(time.Duration(r.Version) * time.Minute), nil
	}
	run := t.react(s, r)
	t.append(s, add(stream("b"), 1))
	t.reach(s, r.Name, t.append(s, add(stream("a"), 60))) // so many that new records are read before all have fired
	t.cancel(run)
	last := t.append(s, add(stream("a"), 3))
	h.move(2 * time.Hour)
	t.react(s, r)
	t.reach(s, r.Name, last)
	t.until("one timer waits", func() bool { return t.waiting(s, r.Name) == 1 })
	t.equal("the handled records", j.read(), ids(t.all(s))[1:]) // all of stream a
}

func timersRemoved(t *trial) {
	s, j, h := t.side(), new(journal), newHand()
	r := t.timed("replayed", j, h, nil)
	run := t.react(s, r)
	t.reach(s, r.Name, t.append(s, add(stream("a"), 4)))
	t.cancel(run)
	if err := s.Replay(t.ctx, r.Name, 0, projection.After(1)); err != nil {
		t.Fatalf("Replay returned %v", err)
	}
	if n := t.waiting(s, r.Name); n != 1 {
		t.Errorf("after Replay from 1 on %d timers wait, want 1", n)
	}
	h.move(30 * time.Minute)
	r = t.timed(r.Name, j, h, nil)
	run = t.react(s, r)
	t.reach(s, r.Name, 4)
	h.move(time.Hour)
	t.allFired(s, r.Name)
	t.handledInOrder(j, s)
	t.cancel(run)
	r = t.timed(r.Name, j, h, nil)
	run = t.react(s, r)
	t.reach(s, r.Name, t.append(s, add(stream("b"), 4)))
	t.cancel(run)
	if err := s.Forget(t.ctx, r.Name, 0); err != nil {
		t.Fatalf("Forget returned %v", err)
	}
	for timer, err := range s.Timers(t.ctx, r.Name) {
		t.Errorf("after Forget there is the timer %+v, %v", timer, err)
	}
}

func timersShown(t *trial) {
	s, j, h := t.side(), new(journal), newHand()
	r := t.timed("shown", j, h, nil)
	r.Partitions = 2
	due := h.now().Add(time.Hour)
	r.Due = func(r es.Record) (time.Time, error) { return due.Add(time.Duration(r.Position) * time.Second), nil }
	run := t.react(s, r)
	t.reach(s, r.Name, t.appendSome(s, 300))
	t.cancel(run)
	next := time.Time{}
	for _, shard := range t.status(s, r.Name) {
		if next.IsZero() || shard.NextDue.Before(next) {
			next = shard.NextDue
		}
	}
	if n := t.waiting(s, r.Name); n != 300 || !next.Equal(due.Add(time.Second)) {
		t.Errorf("Status shows %d timers, the next due at %v: want 300, at %v", n, next, due.Add(time.Second))
	}
	var got, want []string
	for timer, err := range s.Timers(t.ctx, r.Name) {
		if err != nil {
			t.Fatalf("Timers returned %v", err)
		}
		got = append(got, fmt.Sprint(timer.Name, timer.Record.ID(), timer.Record.Position, timer.Due))
	}
	for _, r := range t.all(s) {
		want = append(want, fmt.Sprint("shown", r.ID(), r.Position, due.Add(time.Duration(r.Position)*time.Second)))
	}
	t.equal("the timers", got, want)
}

func dueNeedsALog(t *trial) {
	s := t.side()
	r := t.timed("topics", new(journal), newHand(), nil)
	r.Source = struct{ projection.Source }{projection.FromLog(s)} // which hides the log
	err := t.brief(s, r.Name, 0, 0, func(ctx context.Context) error { return s.React(ctx, r) })
	t.refused("React with Due and a source that is not a log", err, r.Name, "log")
	if err != nil && errors.Is(err, context.Canceled) {
		t.Errorf("React returned %v", err)
	}
}
