package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/thalo-go/es"
)

// unknownClauses test workers that do not know an event type, as in a rolling deployment.
func unknownClauses() []clause {
	return []clause{
		{"unknown event type is left to a worker that knows it",
			"An event type that an older release does not know is not the record's fault. The worker lets go of the shard, parks nothing, and goes on with the others. A newer worker gets the shard.",
			leavesUnknown},
		{"Status names the event type that no worker knows",
			"The shard waits until a worker that knows the type is started. Without the type in Status an operator cannot know what it waits for.",
			namesUnknown},
		{"reaction leaves unknown event types to a worker that knows them",
			"The type may be that of another stream that the handler loads.",
			reactionLeavesUnknown},
		{"Retry is left to a worker that knows the event type",
			"A worker of an older release must not count an attempt, nor lose the request.",
			leavesRetry},
		{"unknown event type stops a projection if no worker knows it",
			"With es.Stop the error must reach the program, as for any other record that cannot be handled. If another worker knows the type, it continues.",
			stopsAtUnknown},
	}
}

// newer is the type that older workers do not know.
const newer = "newer"

// older returns the projection as an older release runs it.
func (t *trial) older(p anyProjection) anyProjection {
	next := p.Handle
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		for _, r := range records {
			if r.Type == newer {
				return fmt.Errorf("decode %s: %w", r.ID(), &es.UnknownEventError{Type: r.Type})
			}
		}
		return next(ctx, tx, records)
	}
	return p
}

// appendNewer appends a record of the type that older workers do not know, between others.
func (t *trial) appendNewer(l es.Log, id string) es.Position {
	return t.append(l, es.Append{Stream: stream(id), Expected: es.AnyVersion, Events: []es.Record{event("good"), {Type: newer, Data: []byte("good")}, event("good")}})
}

func leavesUnknown(t *trial) {
	s, other := t.side(), t.side()
	p := t.listing("rolling")
	p.OnError, p.Partitions, p.Batch = es.Park, 4, 8
	old := t.project(s, t.older(p))
	t.reach(s, p.Name, t.appendSome(s, 10))
	t.project(other, p)
	var last es.Position
	for i := range 8 { // in all shards
		last = t.appendNewer(s, fmt.Sprint("s", i))
	}
	t.reach(s, p.Name, last)
	t.reach(s, p.Name, t.appendNewer(s, "s1"))
	if parked := t.parkedIDs(s); len(parked) > 0 {
		t.Errorf("%v are parked: want none", parked)
	}
	t.cancel(old)
	t.reach(s, p.Name, t.appendNewer(s, "s2"))
	t.enlistedByStream(p.Name, s)
}

func namesUnknown(t *trial) {
	s := t.side()
	p := t.listing("waiting")
	p.OnError, p.Retries = es.Park, -1
	old := t.project(s, t.older(p))
	last := t.appendNewer(s, "a")
	t.until("Status names the type", func() bool {
		status := t.status(s, p.Name)
		return len(status) == 1 && status[0].NeedsType == newer && status[0].Worker == ""
	})
	if status := t.status(s, p.Name)[0]; status.Cursor != 1 || status.Parked != 0 || !strings.Contains(status.Error, newer) {
		t.Errorf("Status returned %+v: want a checkpoint of 1 and an error with the type, and nothing parked", status)
	}
	t.project(s, p)
	t.reach(s, p.Name, last)
	t.until("Status no longer names it", func() bool { return t.status(s, p.Name)[0].NeedsType == "" })
	t.cancel(old)
	t.enlisted(p.Name, s, es.Filter{})
}

func reactionLeavesUnknown(t *trial) {
	s, j := t.side(), new(journal)
	r := t.reaction("rolling too", j, nil)
	r.OnError = es.Park
	old, next := r, r.Handle
	old.Handle = func(ctx context.Context, r es.Record) error {
		if string(r.Data) == "bad" { // the record makes it load a stream of events that it does not know
			return fmt.Errorf("load: %w", &es.UnknownEventError{Type: newer})
		}
		return next(ctx, r)
	}
	t.react(s, old)
	last := t.appendBad(s, 10, 4)
	t.until("Status names the type", func() bool {
		status := t.status(s, r.Name)
		return len(status) == 1 && status[0].NeedsType == newer
	})
	t.react(s, r)
	t.reach(s, r.Name, last)
	if parked := t.parkedIDs(s); len(parked) > 0 {
		t.Errorf("%v are parked: want none", parked)
	}
	t.handledInOrder(j, s)
}

func leavesRetry(t *trial) {
	s := t.side()
	p := t.parking("retried elsewhere", always)
	last := t.writeMixed(s)
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	t.cancel(r)
	before := t.allParked(s)[0].Attempts
	good := t.listing(p.Name)
	p.Handle = good.Handle
	older := p
	older.Handle = func(context.Context, any, []es.Record) error { return &es.UnknownEventError{Type: newer} }
	t.project(s, older)
	if err := s.Retry(t.ctx, p.Name, 0, stream("a")); err != nil {
		t.Fatalf("Retry returned %v", err)
	}
	t.until("Status names the type", func() bool { return t.status(s, p.Name)[0].NeedsType == newer })
	if got := t.allParked(s)[0]; got.Attempts != before || !strings.Contains(got.Error, errHandler.Error()) {
		t.Errorf("the parked record has %d attempts and the error %q: want %d and the error of the handler", got.Attempts, got.Error, before)
	}
	t.project(s, p)
	t.until("stream a is no longer parked", func() bool { return len(t.parkedIDs(s)) == 2 })
}

func stopsAtUnknown(t *trial) {
	s, other := t.side(), t.side()
	p := t.listing("stops")
	old := t.older(p)
	last := t.appendNewer(s, "a")
	stopped := t.failure(s, old)
	if stopped.Record.ID() != "estest/a/2" {
		t.Errorf("Project returned %v: want an error about the record of the unknown type", stopped)
	}
	if lines := t.lines(p.Name); len(lines) != 1 {
		t.Errorf("%d records are applied: want the one before it", len(lines))
	}
	p.Partitions, old.Partitions = 2, 2
	t.project(other, p)
	t.reach(s, p.Name, last)
	older := t.project(s, old)
	t.until("both workers have a shard", func() bool { return slices.Equal(t.holders(s, p.Name), []int{1, 1}) })
	for i := range 8 { // in both shards
		last = t.appendNewer(s, fmt.Sprint("s", i))
	}
	t.reach(s, p.Name, last)
	t.cancel(older)
	t.enlistedByStream(p.Name, s)
}
