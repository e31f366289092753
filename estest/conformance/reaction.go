package conformance

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// reactionClauses test reactions.
func reactionClauses() []clause {
	return []clause{
		{"reaction gets every record in order",
			"The effects of a reaction are not part of the checkpoint's transaction, so a record may come again after a crash. None may be skipped.",
			reacts},
		{"reaction resumes at its checkpoint",
			"If a reaction starts from the beginning at every start, all its effects are repeated.",
			reactsOn},
		{"failing reaction stops before its record",
			"The *projection.Error names the record, after a panic too. Records that were handled before it are not handled again.",
			reactionStops},
		{"reaction parks and retries failing records",
			"The later records of the stream wait behind it, as they do for a projection. Otherwise a reaction handles them out of order.",
			reactionParks},
		{"run with Once returns when nothing is left to do",
			"A job or a test needs an end. It is not before the last record, what the handler has appended, or what is due.",
			runsOnce},
	}
}

func runsOnce(t *trial) {
	s, j, h := t.side(), new(journal), newHand()
	last := t.appendSome(s, 30)
	p := t.listing("once")
	p.Partitions, p.Once, p.Batch = 3, true, 4
	called := 0
	p.OnCaughtUp = func(context.Context) error { called++; return nil }
	for range 2 {
		if err := t.wait(t.project(s, p)); err != nil {
			t.Fatalf("Project with Once returned %v", err)
		}
		t.enlistedByStream(p.Name, s)
		last = t.appendSome(s, 3)
	}
	if err := t.wait(t.project(s, p)); err != nil || called != 3 {
		t.Fatalf("Project with Once returned %v, after %d calls of OnCaughtUp in 3 runs", err, called)
	}
	r := t.timed("once too", j, h, nil)
	r.Once, r.Partitions = true, 2
	handle := r.Handle
	r.Handle = func(ctx context.Context, r es.Record) error {
		if r.Stream.ID == "s0" && r.Version == 1 {
			t.append(s, add(stream("more"), 1))
		}
		return handle(ctx, r)
	}
	due := r.Due
	r.Due = func(r es.Record) (time.Time, error) {
		if r.Stream.ID == "s1" {
			return due(r)
		}
		return h.now(), nil
	}
	for _, later := range []bool{false, true} {
		if later {
			h.move(time.Hour)
		}
		if err := t.wait(t.react(s, r)); err != nil {
			t.Fatalf("React with Once returned %v", err)
		}
		want := t.ofType(s, 0, last+1)
		if !later {
			want = slices.DeleteFunc(want, func(id string) bool { return strings.Contains(id, "/s1/") })
		}
		t.equal("the handled records, by stream", byStream(j.read()), byStream(want))
	}
}

// journal is a list of the records that a reaction has handled.
type journal struct {
	mu  sync.Mutex
	ids []string
}

func (j *journal) add(r es.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ids = append(j.ids, r.ID())
}

func (j *journal) read() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.ids)
}

// handled checks that a journal has exactly the records of a log, with each stream in order.
func (t *trial) handled(j *journal, l es.Log) {
	t.equal("the handled records, by stream", byStream(j.read()), byStream(ids(t.all(l))))
}

// handledInOrder checks that a journal has exactly the records of a log, in order.
func (t *trial) handledInOrder(j *journal, l es.Log) {
	t.equal("the handled records", j.read(), ids(t.all(l)))
}

// reaction returns a reaction that adds records to a journal and fails on those for which fails returns true.
func (t *trial) reaction(name string, j *journal, fails func(r es.Record) bool) projection.Reaction {
	return projection.Reaction{Name: name, From: projection.Beginning(), Retries: 1, Handle: func(_ context.Context, r es.Record) error {
		if fails != nil && fails(r) {
			return errHandler
		}
		j.add(r)
		return nil
	}}
}

// react runs a reaction until the clause ends.
func (t *trial) react(s ReadSide[any], r projection.Reaction) *run {
	return t.start(func(ctx context.Context) error { return s.React(ctx, r) })
}

func reacts(t *trial) {
	s, j := t.side(), new(journal)
	t.append(s, add(stream("a"), 1200))
	t.react(s, t.reaction("reacts", j, nil))
	t.reach(s, "reacts", t.appendSome(s, 20))
	t.handledInOrder(j, s)
}

func reactsOn(t *trial) {
	s, j := t.side(), new(journal)
	for range 3 {
		t.appendSome(s, 5)
		r := t.react(s, t.reaction("on", j, nil))
		t.reach(s, "on", t.appendSome(s, 5))
		t.cancel(r)
	}
	t.handledInOrder(j, s)
}

func reactionStops(t *trial) {
	s, j := t.side(), new(journal)
	last := t.appendBad(s, 20, 11)
	fails := func(r es.Record) bool { return string(r.Data) == "bad" }
	panics := t.reaction("fails", j, nil)
	handle := panics.Handle
	panics.Handle = func(ctx context.Context, r es.Record) error {
		if fails(r) {
			panic(errHandler)
		}
		return handle(ctx, r)
	}
	for _, r := range []projection.Reaction{t.reaction("fails", j, fails), panics} {
		err := t.wait(t.react(s, r))
		var stopped *projection.Error
		if !errors.As(err, &stopped) || stopped.Record.Version != 12 || !errors.Is(err, errHandler) {
			t.Errorf("React returned %v: want a *projection.Error about version 12", err)
		}
	}
	t.react(s, t.reaction("fails", j, nil))
	t.reach(s, "fails", last)
	t.handledInOrder(j, s)
}

func reactionParks(t *trial) {
	s, j := t.side(), new(journal)
	last := t.writeMixed(s)
	var mu sync.Mutex
	fixed := false
	r := t.reaction("parks", j, func(r es.Record) bool {
		mu.Lock()
		defer mu.Unlock()
		return string(r.Data) == "bad" && !fixed
	})
	r.OnError = es.Park
	t.react(s, r)
	t.reach(s, "parks", last)
	t.equal("the handled records, by stream", byStream(j.read()), byStream(slices.Concat(recordIDs("a", 1), recordIDs("b", 1, 2, 3), recordIDs("c", 1, 2, 3, 4, 5))))
	mu.Lock()
	fixed = true
	mu.Unlock()
	for _, id := range []string{"a", "b"} {
		if err := s.Retry(t.ctx, "parks", 0, stream(id)); err != nil {
			t.Fatalf("Retry returned %v", err)
		}
	}
	t.until("no stream is parked", func() bool { return len(t.parkedIDs(s)) == 0 })
	t.reach(s, "parks", t.write(s, "a", "good"))
	t.handled(j, s)
}
