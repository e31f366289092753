package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/thalo-go/es"
)

// appendClauses test single calls of Append.
func appendClauses() []clause {
	return []clause{
		{"versions count from 1 without a gap",
			"A version is the number of an event in its stream: 1, 2, 3 and so on. If a refused call uses up versions, readers take the missing numbers for lost events and a Repo refuses to load the stream.",
			versionsAreDense},
		{"positions count from 1 without a gap",
			"A position is the number of an event in its store: 1, 2, 3 and so on. If a refused call leaves a gap, a reader cannot tell it from a record that is still being committed.",
			positionsAreDense},
		{"Append returns the position of its last record",
			"Callers count back from it to find the position of each record, and wait for it to read their own writes. With a smaller position they read too early.",
			appendReturnsLastPosition},
		{"empty append returns position 0",
			"0 means that nothing was written. With another position the caller waits for a record that belongs to another call.",
			appendOfNothing},
		{"append without events only checks the version",
			"A Repo confirms a refusal with an Append without events. If the store does not check Expected, refusals based on stale states are returned; if it writes anything, a check changes the stream.",
			appendWithoutEventsAsks},
		{"wrong expected version is a conflict",
			"Events decided on one version must not be appended at another. Append returns a *es.ConflictError with the stream and the version that was given; a Repo does not retry after any other error.",
			staleVersionIsConflict},
		{"AnyVersion appends at any version",
			"es.AnyVersion disables the version check. It must never conflict, not even with a concurrent writer.",
			anyVersionAppends},
		{"Expected counts earlier appends of the same call",
			"Several appends of one call may go to the same stream, each decided on the result of the one before. A store that compares all of them with the version before the call refuses valid calls or accepts invalid ones.",
			expectedCountsWithinCall},
		{"error names the first refused append of a call",
			"If several appends of a call are refused, the error is that of the first. With another error a Repo reloads the wrong stream, or takes a command for done that was never checked.",
			firstRefusalIsNamed},
		{"Append is atomic",
			"Append writes everything it is given or nothing, across all streams. Half a transfer creates or destroys money.",
			allOrNothing},
		{"Append sets stream, version, position and time",
			"The store sets these fields whatever the given record contains. Otherwise a record copied from elsewhere claims a place in the log that belongs to another record.",
			appendIgnoresPlace},
		{"times are UTC microseconds and never decrease",
			"Record.Time is equal on every backend and never decreases along positions. Otherwise a reader that looks for the end of a day stops too early and misses records.",
			timesNeverRunBackwards},
		{"append with an ended context writes nothing",
			"A caller that has given up must not find its events in the store later. The error wraps the context's error.",
			endedContextWritesNothing},
		{"append whose context ends in flight reports its outcome",
			"Without an error everything was written. With es.ErrUnknownOutcome everything or nothing was written. With any other error nothing was or will be written; otherwise a caller that sees a failure sends the payment again.",
			contextEndsDuringAppend},
		{"error names the end of the caller's own context",
			"Calls share transactions and queries, whose context ends when their last caller leaves. A caller whose deadline has passed must not be told that it was canceled, and one that was canceled with a cause must find the cause.",
			appendBlames},
	}
}

func versionsAreDense(t *trial) {
	s := t.store()
	a, b := stream("a"), stream("b")
	for n := range 10 {
		t.append(s, add(a, 1+n%3), add(b, n%2), add(a, 1))
		_ = t.refuse(s, add(b, 1), es.Append{Stream: a, Expected: 1000, Events: events(2)})
	}
	for _, stream := range []es.Stream{a, b} {
		for i, r := range t.read(s, stream) {
			if r.Version != es.Version(i+1) {
				t.Fatalf("record %d of %s has version %d, want %d", i+1, stream, r.Version, i+1)
			}
		}
	}
}

func positionsAreDense(t *trial) {
	s := t.store()
	a, b := stream("a"), stream("b")
	for n := range 10 {
		t.append(s, add(a, n%3), add(b, 1))
		t.append(s, es.Append{Stream: a, Expected: es.AnyVersion, Events: events(1), Command: fmt.Sprint(n)})
		_ = t.refuse(s, add(b, 1), es.Append{Stream: a, Expected: 1000, Events: events(2)})
		_ = t.refuse(s, add(b, 1), es.Append{Stream: a, Expected: es.AnyVersion, Events: events(2), Command: fmt.Sprint(n)})
		_ = t.refuse(s, add(b, 1), add(es.Stream{}, 1))
		t.append(s, add(a, 0))
	}
	var positions []es.Position
	for _, r := range append(t.read(s, a), t.read(s, b)...) {
		positions = append(positions, r.Position)
	}
	slices.Sort(positions)
	for i, position := range positions {
		if position != es.Position(i+1) {
			t.Fatalf("record %d in the order of positions has position %d, want %d", i+1, position, i+1)
		}
	}
}

func appendReturnsLastPosition(t *trial) {
	s := t.store()
	a, b := stream("a"), stream("b")
	for n, call := range [][]es.Append{
		{add(a, 1)},
		{add(a, 3)},
		{add(a, 2), add(b, 2)},
		{add(b, 1), add(a, 2)},
		{add(a, 1), add(b, 1), add(a, 1)},
		{add(a, 2), add(b, 0)},
	} {
		returned := t.append(s, call...)
		last := es.Position(0)
		for _, r := range append(t.read(s, a), t.read(s, b)...) {
			last = max(last, r.Position)
		}
		if returned != last {
			t.Errorf("call %d, Append(%s), returned position %d: the last record has %d", n+1, describe(call), returned, last)
		}
	}
}

func appendOfNothing(t *trial) {
	s := t.store()
	t.append(s, add(stream("a"), 3))
	for _, call := range [][]es.Append{
		nil,
		{add(stream("a"), 0)},
		{add(stream("new"), 0)},
		{{Stream: stream("a"), Expected: 3}, {Stream: stream("new"), Expected: 0}},
	} {
		if position := t.append(s, call...); position != 0 {
			t.Errorf("Append(%s) returned position %d, want 0", describe(call), position)
		}
	}
}

func appendWithoutEventsAsks(t *trial) {
	s := t.store()
	a, none := stream("a"), stream("none")
	t.append(s, add(a, 2))
	for _, call := range []es.Append{{Stream: a, Expected: 2}, {Stream: a, Expected: es.AnyVersion}, {Stream: none}, {Stream: none, Expected: es.AnyVersion}} {
		if _, err := s.Append(t.ctx, call); err != nil {
			t.Errorf("Append(%s) returned %v: want no error, the version is right", describe([]es.Append{call}), err)
		}
	}
	for _, call := range []es.Append{{Stream: a, Expected: 0}, {Stream: a, Expected: 1}, {Stream: a, Expected: 3}, {Stream: none, Expected: 1}} {
		if _, err := s.Append(t.ctx, call); err == nil {
			t.Errorf("Append(%s) returned no error: want a conflict", describe([]es.Append{call}))
		}
	}
	if n := len(t.read(s, a)); n != 2 {
		t.Errorf("%s has %d records, want 2: appends without events wrote something", a, n)
	}
	t.empty(s, "after appends without events", none)
}

func staleVersionIsConflict(t *trial) {
	s := t.store()
	for _, test := range []struct {
		has      int
		expected es.Version
	}{{0, 1}, {0, 7}, {1, 0}, {1, 2}, {5, 0}, {5, 4}, {5, 6}, {5, 1 << 40}} {
		stream := stream(fmt.Sprint(test.has, "-", test.expected))
		t.append(s, add(stream, test.has))
		_, err := s.Append(t.ctx, es.Append{Stream: stream, Expected: test.expected, Events: events(2)})
		var conflict *es.ConflictError
		if !errors.As(err, &conflict) {
			t.Errorf("Append with Expected %d on a stream at version %d returned %v: want a *es.ConflictError", test.expected, test.has, err)
			continue
		}
		t.equal("the conflict", *conflict, es.ConflictError{Stream: stream, Expected: test.expected})
		if n := len(t.read(s, stream)); n != test.has {
			t.Errorf("after a conflict the stream has %d records, before it had %d", n, test.has)
		}
	}
}

func anyVersionAppends(t *trial) {
	s := t.store()
	a := stream("a")
	t.append(s, add(a, 1))
	t.append(s, add(a, 2))
	t.race(16, func(int) {
		for range 4 {
			if _, err := s.Append(t.ctx, add(a, 1)); err != nil {
				t.Fatalf("Append at AnyVersion in a race returned %v", err)
			}
		}
	})
	if n := len(t.read(s, a)); n != 3+16*4 {
		t.Errorf("%s has %d records, want %d", a, n, 3+16*4)
	}
}

func expectedCountsWithinCall(t *trial) {
	s := t.store()
	a, b := stream("a"), stream("b")
	at := func(stream es.Stream, expected es.Version, n int) es.Append {
		return es.Append{Stream: stream, Expected: expected, Events: events(n)}
	}
	for _, call := range [][]es.Append{
		{at(a, 0, 2), at(b, 0, 1), at(a, 2, 1), at(a, 3, 1)},   // a at 4, b at 1
		{at(a, 4, 0), add(a, 2), at(a, 6, 0), at(b, 1, 1)},     // a at 6, b at 2
		{add(b, 1), at(b, 3, 2), at(a, 6, 1), at(b, 5, 1)},     // a at 7, b at 6
		{at(a, 7, 1), at(a, 8, 1), at(a, 9, 1), at(a, 10, 10)}, // a at 20
	} {
		if _, err := s.Append(t.ctx, call...); err != nil {
			t.Fatalf("Append(%s) returned %v: want no error, each append expects the version after the ones before it", describe(call), err)
		}
	}
	for _, call := range [][]es.Append{
		{at(a, 20, 2), at(a, 20, 1)},
		{at(a, 20, 1), at(a, 22, 1)},
		{add(a, 1), at(a, 20, 0)},
		{at(b, 6, 1), at(a, 20, 1), at(b, 6, 1)},
	} {
		_, err := s.Append(t.ctx, call...)
		if conflict := (*es.ConflictError)(nil); !errors.As(err, &conflict) {
			t.Errorf("Append(%s) returned %v: want a *es.ConflictError, the last append does not count the ones before it", describe(call), err)
		}
	}
}

func firstRefusalIsNamed(t *trial) {
	s, other := t.store(), t.store() // so that s has not seen the streams before
	there, done, none := stream("there"), stream("done"), stream("none")
	t.append(other, add(there, 1), es.Append{Stream: done, Expected: es.AnyVersion, Events: events(1), Command: "once"})
	isNew := es.Append{Stream: there, Events: events(1)}
	again := es.Append{Stream: done, Expected: es.AnyVersion, Events: events(1), Command: "once"}
	ahead := es.Append{Stream: none, Expected: 5}
	for _, call := range [][]es.Append{{isNew, ahead}, {isNew, again}, {ahead, isNew}, {ahead, again}, {again, isNew}, {again, ahead}} {
		_, err := s.Append(t.ctx, call...)
		var conflict *es.ConflictError
		var duplicate *es.DuplicateError
		switch first := call[0]; {
		case first.Command != "" && (!errors.As(err, &duplicate) || duplicate.Stream != first.Stream):
			t.Errorf("Append(%s) returned %v: want the duplicate, which is first", describe(call), err)
		case first.Command == "" && (!errors.As(err, &conflict) || conflict.Stream != first.Stream):
			t.Errorf("Append(%s) returned %v: want the conflict on %s, which is first", describe(call), err, first.Stream)
		}
	}
	if n := len(t.read(s, there)) + len(t.read(s, done)); n != 2 {
		t.Errorf("refused calls wrote something: there are %d records, want 2", n)
	}
}

func allOrNothing(t *trial) {
	s := t.store()
	full := stream("full")
	t.append(s, es.Append{Stream: full, Expected: 0, Events: events(2), Command: "done"})
	for name, bad := range map[string]es.Append{
		"a conflict":       {Stream: full, Expected: 1, Events: events(1)},
		"a conflict ahead": {Stream: stream("other"), Expected: 5, Events: events(1)},
		"a check":          {Stream: full, Expected: 1},
		"a duplicate":      {Stream: full, Expected: es.AnyVersion, Events: events(1), Command: "done"},
		"a limit":          {Stream: full, Expected: es.AnyVersion, Events: []es.Record{event("fine"), {}}},
	} {
		a, b, c := stream(name+" a"), stream(name+" b"), stream(name+" c")
		for place := range 4 {
			call := slices.Insert([]es.Append{add(a, 2), {Stream: b, Expected: 0, Events: events(1)}, add(c, 1)}, place, bad)
			_ = t.refuse(s, call...)
			t.empty(s, fmt.Sprintf("after a call whose append %d was refused for %s", place+1, name), a, b, c)
		}
		t.append(s, add(a, 2), es.Append{Stream: b, Expected: 0, Events: events(1)}, add(c, 1))
		t.equal("records of a call over three streams", []int{len(t.read(s, a)), len(t.read(s, b)), len(t.read(s, c))}, []int{2, 1, 1})
	}
	if n := len(t.read(s, full)); n != 2 {
		t.Errorf("%s has %d records, want 2: refused calls wrote to it", full, n)
	}
}

func appendIgnoresPlace(t *trial) {
	s := t.store()
	a := stream("a")
	e := event("1")
	e.Stream, e.Version, e.Position, e.Time = stream("elsewhere"), 77, 88, time.Unix(99, 0)
	t.append(s, es.Append{Stream: a, Expected: 0, Events: []es.Record{e, e}})
	t.empty(s, "after an append to another stream", e.Stream)
	records := t.read(s, a)
	if len(records) != 2 {
		t.Fatalf("%s has %d records, want 2", a, len(records))
	}
	for i, r := range records {
		if r.Stream != a || r.Version == e.Version || r.Position == e.Position || r.Time.Equal(e.Time) {
			t.Errorf("record %d is %s at position %d of %v, as in the argument: %s at position %d of %v", i+1, r.ID(), r.Position, r.Time, e.ID(), e.Position, e.Time)
		}
	}
}

func timesNeverRunBackwards(t *trial) {
	stores := t.stores(3)
	t.race(len(stores)*4, func(i int) {
		for range 5 {
			t.append(stores[i%len(stores)], add(stream(fmt.Sprint(i)), 1))
		}
	})
	var records []es.Record
	for i := range len(stores) * 4 {
		records = append(records, t.read(stores[0], stream(fmt.Sprint(i)))...)
	}
	slices.SortFunc(records, func(a, b es.Record) int { return int(a.Position - b.Position) })
	for i, r := range records {
		switch {
		case r.Time != time.UnixMicro(r.Time.UnixMicro()).UTC():
			t.Fatalf("position %d has the time %v: want UTC and whole microseconds", r.Position, r.Time)
		case time.Since(r.Time).Abs() > 24*time.Hour:
			t.Fatalf("position %d has the time %v: want about now", r.Position, r.Time)
		case i > 0 && r.Time.Before(records[i-1].Time):
			t.Fatalf("times decrease: position %d has %v, position %d has %v", records[i-1].Position, records[i-1].Time, r.Position, r.Time)
		}
	}
}

func endedContextWritesNothing(t *trial) {
	s := t.store()
	a := stream("a")
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	for range 20 {
		if _, err := s.Append(ctx, add(a, 1), add(stream("b"), 1)); !errors.Is(err, context.Canceled) {
			t.Errorf("Append with a cancelled context returned %v: want an error that wraps context.Canceled", err)
			break
		}
	}
	t.append(s, add(stream("c"), 1)) // anything still queued is written before this
	t.empty(s, "after appends with a cancelled context", a, stream("b"))
}

func contextEndsDuringAppend(t *trial) {
	const writers, calls, step = 4, 40, 50 * time.Microsecond
	s := t.store()
	var written [writers][calls]error
	name := func(writer, call int) (es.Stream, es.Stream) {
		return stream(fmt.Sprint("from ", writer, " ", call)), stream(fmt.Sprint("to ", writer, " ", call))
	}
	t.race(writers, func(writer int) {
		for call := range calls {
			from, to := name(writer, call)
			ctx, cancel := context.WithTimeout(t.ctx, time.Duration(call)*step)
			_, written[writer][call] = s.Append(ctx, add(from, 2), add(to, 1))
			cancel()
		}
	})
	t.append(s, add(stream("last"), 1)) // anything still queued is written before this
	for writer := range writers {
		for call := range calls {
			from, to := name(writer, call)
			second, first := len(t.read(s, to)), len(t.read(s, from))
			if first > 0 && second == 0 {
				second = len(t.read(s, to)) // an append with an unknown outcome may have been written between the reads
			}
			switch err := written[writer][call]; {
			case err == nil && (first != 2 || second != 1):
				t.Errorf("Append of 2 and 1 events returned no error and wrote %d and %d", first, second)
			case errors.Is(err, es.ErrUnknownOutcome) && (first != 2*second || second > 1):
				t.Errorf("Append of 2 and 1 events wrote %d and %d: want all or nothing; it returned %v", first, second, err)
			case err != nil && !errors.Is(err, es.ErrUnknownOutcome) && first+second > 0:
				t.Errorf("Append of 2 and 1 events wrote %d and %d, and returned %v: want nothing written, or an error that wraps es.ErrUnknownOutcome", first, second, err)
			}
		}
	}
}
