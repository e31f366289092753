package conformance

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// reactClauses are about reactions.
func reactClauses() []clause {
	return []clause{
		{"reaction gets every record in order",
			"What it does cannot be in the transaction of the checkpoint, so a record may come again after a crash; but none is left out.",
			reacts},
		{"reaction resumes at its checkpoint",
			"What it has done while all went well is not done again with every start.",
			reactsOn},
		{"failing reaction stops before its record",
			"The *projection.Error names the record. A panic is an error too.",
			reactionStops},
		{"reaction parks and retries failing records",
			"As a projection does, with the later records of the stream behind it.",
			reactionParks},
	}
}

// A diary is what a reaction has done.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(r es.Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, r.ID())
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

func (t *trial) reaction(name string, d *diary, fails func(r es.Record) bool) projection.Reaction {
	return projection.Reaction{Name: name, Retries: 1, Handle: func(_ context.Context, r es.Record) error {
		if fails != nil && fails(r) {
			return errMend
		}
		d.note(r)
		return nil
	}}
}

func (t *trial) reacting(s ReadSide[any], r projection.Reaction) *projecting {
	return t.start(func(ctx context.Context) error { return s.React(ctx, r) })
}

func reacts(t *trial) {
	s, d := t.side(), new(diary)
	t.append(s, add(stream("a"), 1200))
	t.reacting(s, t.reaction("reacts", d, nil))
	t.reach(s, "reacts", t.appendSome(s, 20))
	t.equal("what was reacted to", d.read(), ids(t.all(s)))
}

func reactsOn(t *trial) {
	s, d := t.side(), new(diary)
	for range 3 {
		t.appendSome(s, 5)
		r := t.reacting(s, t.reaction("on", d, nil))
		t.reach(s, "on", t.appendSome(s, 5))
		t.ends(r)
	}
	t.equal("what was reacted to", d.read(), ids(t.all(s)))
}

func reactionStops(t *trial) {
	s, d := t.side(), new(diary)
	last := t.poison(s, 20, 11)
	fails := func(r es.Record) bool { return string(r.Data) == "bad" }
	panics := t.reaction("fails", d, nil)
	note := panics.Handle
	panics.Handle = func(ctx context.Context, r es.Record) error {
		if fails(r) {
			panic(errMend)
		}
		return note(ctx, r)
	}
	for _, r := range []projection.Reaction{t.reaction("fails", d, fails), panics} {
		err := t.stops(t.reacting(s, r))
		var stopped *projection.Error
		if !errors.As(err, &stopped) || stopped.Record.Version != 12 || !errors.Is(err, errMend) {
			t.Errorf("React returned %v: want a *projection.Error about version 12", err)
		}
	}
	t.reacting(s, t.reaction("fails", d, nil))
	t.reach(s, "fails", last)
	t.equal("what was reacted to", d.read(), ids(t.all(s)))
}

func reactionParks(t *trial) {
	s, d := t.side(), new(diary)
	last := t.writeMixed(s)
	var mu sync.Mutex
	mended := false
	r := t.reaction("parks", d, func(r es.Record) bool {
		mu.Lock()
		defer mu.Unlock()
		return string(r.Data) == "bad" && !mended
	})
	r.OnError = es.Park
	t.reacting(s, r)
	t.reach(s, "parks", last)
	t.equal("what was reacted to", byStream(d.read()), byStream(slices.Concat(named("a", 1), named("b", 1, 2, 3), named("c", 1, 2, 3, 4, 5))))
	mu.Lock()
	mended = true
	mu.Unlock()
	for _, id := range []string{"a", "b"} {
		if err := s.Retry(t.ctx, "parks", 0, stream(id)); err != nil {
			t.Fatalf("Retry returned %v", err)
		}
	}
	t.until("all streams are free", func() bool { return len(t.parkedIDs(s)) == 0 })
	t.reach(s, "parks", t.write(s, "a", "good"))
	t.equal("what was reacted to", byStream(d.read()), byStream(ids(t.all(s))))
}
