package conformance

import (
	"context"
	"fmt"

	"github.com/thalo-go/es"
)

// arrives waits until a list has as many records as a log, and checks that they are the same, with each stream in order.
func (t *trial) arrives(list string, l es.Log) {
	want := t.all(l)
	t.until(fmt.Sprintf("%d records are in the list %s", len(want), list), func() bool { return len(t.lines(list)) >= len(want) })
	t.enlistedByStream(list, l)
}

// fed returns a listing projection with a newly opened source.
func (t *trial) fed(name string) anyProjection {
	p := t.listing(name)
	p.Source, p.Batch = t.source(), 6
	return p
}

func feedsModel(t *trial) {
	l, s := t.log(), t.side()
	for i := range 4 {
		t.appendSome(l, 15)
		p, failed := t.fed("fed"), i%2 == 0
		handle := p.Handle
		p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
			err := handle(ctx, tx, records)
			if err == nil && !failed {
				failed = true
				return errHandler
			}
			return err
		}
		r := t.project(s, p)
		t.arrives("fed", l)
		t.appendSome(l, 3)
		t.arrives("fed", l)
		t.cancel(r)
	}
}

func feedsWorkers(t *trial) {
	l := t.log()
	t.appendSome(l, 20)
	first := t.project(t.side(), t.fed("shared"))
	t.arrives("shared", l)
	second := t.project(t.side(), t.fed("shared"))
	for range 3 {
		t.appendSome(l, 10)
		t.arrives("shared", l)
	}
	t.cancel(first)
	t.appendSome(l, 10)
	t.arrives("shared", l)
	t.cancel(second)
}

func feedsNothing(t *trial) {
	l, s := t.log(), t.side()
	p, up := t.fed("nothing"), newFlag()
	p.OnCaughtUp = func(context.Context) error {
		up.raise()
		return nil
	}
	t.project(s, p)
	t.await(up, "OnCaughtUp is called for an empty source")
	t.appendSome(l, 5)
	t.arrives("nothing", l)
}

func feedsParked(t *trial) {
	l, s := t.log(), t.side()
	t.appendBad(l, 20, 11)
	t.appendSome(l, 10)
	p := t.parking("parked", always)
	p.Source, p.Batch, p.OnError = t.source(), 50, es.Stop
	if stopped := t.failure(s, p); stopped.Record.ID() != "estest/p/12" {
		t.Errorf("the projection stopped before %s: want estest/p/12", stopped.Record.ID())
	}
	p.Source, p.OnError = t.source(), es.Park // it starts in the middle of the previous batch
	t.project(s, p)
	t.until("the rest of the stream is parked and the others are applied", func() bool {
		return len(t.parkedIDs(s)) == 9 && len(t.lines("parked")) >= 21
	})
	lines := byStream(t.lines("parked"))
	t.equal("the applied records of the stream with a bad record", lines["estest/p"], numbers(1, 11))
	for i := range 5 {
		t.equal("the applied records of another stream", lines[fmt.Sprintf("estest/s%d", i)], numbers(1, 2))
	}
}

// numbers returns the numbers of a range as text.
func numbers(from, to int) []string {
	var all []string
	for n := from; n <= to; n++ {
		all = append(all, fmt.Sprint(n))
	}
	return all
}

func feedsAnew(t *trial) {
	l, s := t.log(), t.side()
	t.appendSome(l, 20)
	p := t.fed("anew")
	again, calls, empty := newFlag(), 0, p.Prepare
	p.Prepare = func(ctx context.Context, tx any) error {
		if calls++; calls == 2 {
			again.raise()
		}
		return empty(ctx, tx)
	}
	r := t.project(s, p)
	t.arrives("anew", l)
	if err := s.Rebuild(t.ctx, p.Name, 0); err != nil {
		t.Fatalf("Rebuild returned %v", err)
	}
	t.await(again, "Prepare is called again after Rebuild")
	t.appendSome(l, 5)
	t.arrives("anew", l)
	t.cancel(r)
}

func feedsReaction(t *trial) {
	l, s, j := t.log(), t.side(), new(journal)
	for range 3 {
		t.appendSome(l, 10)
		reaction := t.reaction("reacts", j, nil)
		reaction.Source = t.source()
		want := len(t.all(l))
		r := t.react(s, reaction)
		t.until("all records are handled", func() bool { return len(j.read()) >= want })
		t.until("the checkpoints are at the end", func() bool { return t.atEnd(s, "reacts") })
		t.cancel(r)
	}
	t.handled(j, l)
}

// atEnd reports whether there is nothing after the checkpoints of a projection.
func (t *trial) atEnd(s ReadSide[any], name string) bool {
	source := t.source()
	status := t.status(s, name)
	for _, shard := range status {
		f, done := t.feed(source, shard.Shard, shard.Cursor, es.Filter{})
		b, err := f.Next(t.ctx, 1)
		done()
		if err != nil || len(b.Records) > 0 || b.Next < b.End {
			return false
		}
	}
	return len(status) > 0
}
