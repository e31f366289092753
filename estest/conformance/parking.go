package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// parkingClauses test parked records.
func parkingClauses() []clause {
	return []clause{
		{"failing record is parked with the later ones of its stream",
			"Other streams continue. A later record of the same stream must wait, or it is applied out of order.",
			parks},
		{"Parked returns records with error and attempts",
			"To fix the handler, the developer needs the complete record and the error. Records that only wait for an earlier one have no error.",
			listsParked},
		{"Retry applies the parked records of a stream in order",
			"After that the stream is no longer parked, and later records are applied as they arrive.",
			retriesParked},
		{"Retry stops at the first record that fails again",
			"That record and those after it stay parked, with the new error and one more attempt. Otherwise later records are applied out of order.",
			retriesFailing},
		{"Retry does not delay other streams until all parked are applied",
			"A stream may have thousands of parked records. If they are retried without a break, the other streams of the shard stand still.",
			retriesInPieces},
		{"Drop discards the first parked record of a stream",
			"The other parked records of the stream are applied as by Retry. If Drop discards more, they are lost.",
			dropsParked},
		{"parked streams stay parked for the next worker",
			"A worker that does not know of a parked stream applies its later records before the one that failed.",
			parksForNext},
		{"parked streams stay parked when partitions change",
			"The stream moves to another shard. If that shard's worker does not know that it is parked, it applies its later records out of order.",
			parksInNewShards},
		{"messages made of one record are parked one by one",
			"A relay can publish several messages for a record, with its version and position. If a row is kept for all of them, those behind the first are lost, or Drop discards them.",
			parksParts},
		{"Retry and Drop refuse a stream that is not parked",
			"The error wraps es.ErrInvalid. Otherwise a misspelt name or stream looks like success.",
			refusesRequests},
	}
}

// parking returns a listing projection that parks bad records while fails returns true.
func (t *trial) parking(name string, fails func() bool) anyProjection {
	p := t.listing(name)
	p.OnError, p.Retries, p.Batch = es.Park, 1, 8
	p.Handle = t.failingOn(name, fails)
	return p
}

// write appends one record with the given data.
func (t *trial) write(l es.Log, id, data string) es.Position {
	return t.append(l, es.Append{Stream: stream(id), Expected: es.AnyVersion, Events: []es.Record{event(data)}})
}

// writeMixed writes to the streams a, b and c in turn. a and b have a bad record.
func (t *trial) writeMixed(l es.Log) (last es.Position) {
	for i := range 5 {
		for _, id := range []string{"a", "b", "c"} {
			data := "good"
			if id == "a" && i == 1 || id == "b" && i == 3 {
				data = "bad"
			}
			last = t.write(l, id, data)
		}
	}
	return last
}

func (t *trial) parkedIDs(s ReadSide[any]) []string {
	var all []string
	for _, p := range t.allParked(s) {
		all = append(all, p.Record.ID())
	}
	return all
}

func (t *trial) allParked(s ReadSide[any]) []projection.Parked {
	var all []projection.Parked
	for p, err := range s.Parked(t.ctx) {
		if err != nil {
			t.Fatalf("Parked returned %v", err)
		}
		all = append(all, p)
	}
	return all
}

// recordIDs returns the IDs of versions of a stream.
func recordIDs(id string, versions ...int) []string {
	var all []string
	for _, v := range versions {
		all = append(all, fmt.Sprint(stream(id), "/", v))
	}
	return all
}

func parks(t *trial) {
	s := t.side()
	p := t.parking("parks", always)
	last := t.writeMixed(s)
	t.project(s, p)
	t.reach(s, p.Name, last)
	t.reach(s, p.Name, t.write(s, "a", "good"))
	t.reach(s, p.Name, t.write(s, "c", "good"))
	t.equal("the applied records", byStream(t.lines(p.Name)), byStream(slices.Concat(recordIDs("a", 1), recordIDs("b", 1, 2, 3), recordIDs("c", 1, 2, 3, 4, 5, 6))))
	t.equal("the parked records, by position", t.parkedIDs(s), []string{
		"estest/a/2", "estest/a/3", "estest/a/4", "estest/b/4", "estest/a/5", "estest/b/5", "estest/a/6",
	})
	if status := t.status(s, p.Name); len(status) != 1 || status[0].Parked != 7 {
		t.Errorf("Status returned %+v: want 7 parked records", status)
	}
}

func listsParked(t *trial) {
	s := t.side()
	bad := es.Record{Type: "odd", Data: []byte("bad"), Meta: map[string]string{"a": "b", "é": "{\"'"}, Tags: []string{`a"\`, "é"}}
	t.append(s, es.Append{Stream: stream("a"), Expected: 0, Events: []es.Record{bad, {Type: "bare", Tags: []string{"b"}}}})
	p := t.parking("lists", always)
	t.project(s, p)
	t.reach(s, p.Name, 2)
	records := t.all(s)
	want := []projection.Parked{{Name: p.Name, Record: records[0], Error: errHandler.Error(), Attempts: 2}, {Name: p.Name, Record: records[1]}}
	got := t.allParked(s)
	for i := range got {
		if got[i].At.IsZero() {
			t.Errorf("the parked record %s has no time", got[i].Record.ID())
		}
		got[i].At = want[0].At
		got[i].Error = strings.TrimSpace(got[i].Error)
		if len(got[i].Record.Data) == 0 {
			got[i].Record.Data = records[1].Data
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parked (-want +got):\n%s", diff)
	}
}

func retriesParked(t *trial) {
	s := t.side()
	var fixed atomic.Bool
	p := t.parking("again", func() bool { return !fixed.Load() })
	t.project(s, p)
	t.reach(s, p.Name, t.writeMixed(s))
	fixed.Store(true)
	if err := s.Retry(t.ctx, p.Name, 0, stream("a")); err != nil {
		t.Fatalf("Retry returned %v", err)
	}
	t.until("stream a is no longer parked", func() bool { return len(t.parkedIDs(s)) == 2 })
	t.reach(s, p.Name, t.write(s, "a", "good"))
	t.equal("the records that are still parked", t.parkedIDs(s), recordIDs("b", 4, 5))
	if err := s.Retry(t.ctx, p.Name, 0, stream("b")); err != nil {
		t.Fatalf("Retry returned %v", err)
	}
	t.until("no stream is parked", func() bool { return len(t.parkedIDs(s)) == 0 })
	t.reach(s, p.Name, t.write(s, "b", "good"))
	t.enlistedByStream(p.Name, s)
}

func retriesFailing(t *trial) {
	s := t.side()
	p := t.parking("failing", always)
	last := t.writeMixed(s)
	t.project(s, p)
	t.reach(s, p.Name, last)
	for n := range 2 {
		if err := s.Retry(t.ctx, p.Name, 0, stream("a")); err != nil {
			t.Fatalf("Retry returned %v", err)
		}
		t.until("the record was retried", func() bool { return t.allParked(s)[0].Attempts == 3+n })
	}
	t.reach(s, p.Name, t.write(s, "a", "good"))
	t.equal("the applied records", byStream(t.lines(p.Name)), byStream(slices.Concat(recordIDs("a", 1), recordIDs("b", 1, 2, 3), recordIDs("c", 1, 2, 3, 4, 5))))
	if n := len(t.parkedIDs(s)); n != 7 {
		t.Errorf("%d records are parked: want 7", n)
	}
}

// retriesInPieces appends to a stream while the parked records of another one are retried. Each takes long until the new record is applied.
func retriesInPieces(t *trial) {
	s := t.side()
	var fixed, seen atomic.Bool
	var retried atomic.Int64
	const parked = 400
	p := t.parking("pieces", func() bool { return !fixed.Load() })
	handle := p.Handle
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		for _, r := range records {
			switch {
			case r.Stream.ID == "b":
				seen.Store(true)
			case fixed.Load():
				retried.Add(1)
				if !seen.Load() {
					pause(ctx, 5*time.Millisecond)
				}
			}
		}
		return handle(ctx, tx, records)
	}
	t.project(s, p)
	bad := make([]es.Record, parked)
	for i := range bad {
		bad[i] = event("good")
	}
	bad[0] = event("bad")
	t.reach(s, p.Name, t.append(s, es.Append{Stream: stream("a"), Expected: 0, Events: bad}))
	fixed.Store(true)
	if err := s.Retry(t.ctx, p.Name, 0, stream("a")); err != nil {
		t.Fatalf("Retry returned %v", err)
	}
	t.until("the parked records are being retried", func() bool { return retried.Load() > 0 })
	last := t.write(s, "b", "good")
	before := retried.Load()
	t.reach(s, p.Name, last)
	t.until("stream a is no longer parked", func() bool { return len(t.parkedIDs(s)) == 0 })
	lines := t.lines(p.Name)
	if n := slices.Index(lines, recordIDs("b", 1)[0]); n == parked && before < parked/2 {
		t.Errorf("the record of another stream was applied after all %d parked records, %d of which were retried when it was appended", parked, before)
	}
	t.enlistedByStream(p.Name, s)
}

func dropsParked(t *trial) {
	s := t.side()
	p := t.parking("drops", always)
	last := t.writeMixed(s)
	t.project(s, p)
	t.reach(s, p.Name, last)
	if err := s.Drop(t.ctx, p.Name, 0, stream("a")); err != nil {
		t.Fatalf("Drop returned %v", err)
	}
	t.until("stream a is no longer parked", func() bool { return len(t.parkedIDs(s)) == 2 })
	t.reach(s, p.Name, t.write(s, "a", "good"))
	t.equal("the applied records", byStream(t.lines(p.Name)), byStream(slices.Concat(recordIDs("a", 1, 3, 4, 5, 6), recordIDs("b", 1, 2, 3), recordIDs("c", 1, 2, 3, 4, 5))))
}

func parksParts(t *trial) {
	s := t.side()
	stream := es.Stream{Kind: "topic", ID: "1"}
	for _, test := range []struct {
		name    string
		end     func(ctx context.Context, name string, version int, stream es.Stream) error
		applied []string
	}{
		{"retried parts", s.Retry, []string{"topic/1/1.1", "topic/1/1.2", "topic/1/1.3", "topic/1/2"}},
		{"dropped parts", s.Drop, []string{"topic/1/1.1", "topic/1/1.3", "topic/1/2"}},
	} {
		var fixed atomic.Bool
		p := t.parking(test.name, func() bool { return !fixed.Load() })
		p.Source = inParts{}
		r := t.project(s, p)
		t.until("the records behind the bad part are parked", func() bool { return len(t.parkedIDs(s)) == 3 })
		t.equal("the parked records", t.parkedIDs(s), []string{"topic/1/1.2", "topic/1/1.3", "topic/1/2"})
		fixed.Store(true)
		if err := test.end(t.ctx, p.Name, 0, stream); err != nil {
			t.Fatalf("Retry or Drop returned %v", err)
		}
		t.until("no record is parked", func() bool { return len(t.parkedIDs(s)) == 0 })
		t.cancel(r)
		t.equal("the applied records", t.lines(p.Name), test.applied)
	}
}

func parksForNext(t *trial) {
	s := t.side()
	p := t.parking("next", always)
	for range 3 {
		last := t.writeMixed(s)
		r := t.project(t.side(), p)
		t.reach(s, p.Name, last)
		t.cancel(r)
	}
	lines := byStream(t.lines(p.Name))
	if len(lines["estest/a"]) != 1 || len(lines["estest/b"]) != 3 || len(lines["estest/c"]) != 15 {
		t.Errorf("after three workers %v is applied: want the records before the first bad one of each stream", lines)
	}
	// No worker is running.
	if err := s.Retry(t.ctx, p.Name, 0, stream("a")); err != nil {
		t.Fatalf("Retry returned %v", err)
	}
	p.Handle = t.listing(p.Name).Handle
	t.project(s, p)
	t.until("stream a is no longer parked", func() bool { return len(t.parkedIDs(s)) == 12 })
	if n := len(byStream(t.lines(p.Name))["estest/a"]); n != 15 {
		t.Errorf("%d records of stream a are applied: want 15", n)
	}
}

func parksInNewShards(t *trial) {
	s := t.side()
	p := t.parking("moved", always)
	for _, n := range []int{1, 4, 3} {
		last := t.writeMixed(s)
		p.Partitions = n
		r := t.project(t.side(), p)
		t.until(fmt.Sprintf("there are %d shards", n), func() bool { return len(t.status(s, p.Name)) == n })
		t.reach(s, p.Name, last)
		t.cancel(r)
	}
	lines := byStream(t.lines(p.Name))
	if len(lines["estest/a"]) != 1 || len(lines["estest/b"]) != 3 || len(lines["estest/c"]) != 15 {
		t.Errorf("%v is applied: want the records before the first bad one of each stream", lines)
	}
	p.Handle = t.listing(p.Name).Handle
	t.project(s, p)
	for _, id := range []string{"a", "b"} {
		if err := s.Retry(t.ctx, p.Name, 0, stream(id)); err != nil {
			t.Fatalf("Retry returned %v", err)
		}
	}
	t.until("no stream is parked", func() bool { return len(t.parkedIDs(s)) == 0 })
	t.reach(s, p.Name, t.write(s, "a", "good"))
	t.enlistedByStream(p.Name, s)
}

func refusesRequests(t *trial) {
	s := t.side()
	p := t.parking("requests", always)
	last := t.writeMixed(s)
	t.project(s, p)
	t.reach(s, p.Name, last)
	for method, call := range map[string]func(ctx context.Context, name string, version int, stream es.Stream) error{"Retry": s.Retry, "Drop": s.Drop} {
		for _, err := range []error{call(t.ctx, p.Name, 0, stream("c")), call(t.ctx, "unknown", 0, stream("a")), call(t.ctx, p.Name, 1, stream("a"))} {
			if !errors.Is(err, es.ErrInvalid) {
				t.Errorf("%s of a stream that is not parked returned %v: want an error that wraps es.ErrInvalid", method, err)
			}
		}
	}
}
