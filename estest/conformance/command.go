package conformance

import (
	"errors"
	"fmt"

	"github.com/thalo-go/es"
)

// commandClauses test Append.Command, the ID of a command.
func commandClauses() []clause {
	return []clause{
		{"command is taken once on a stream",
			"A repeated command returns a *es.DuplicateError and writes nothing. Otherwise a client that retries a payment after a timeout pays twice.",
			commandOnce},
		{"duplicate error has the versions of the command",
			"First and Last are the versions that the command wrote the first time. The caller reads its result from them, and with other versions gets the result of another command.",
			duplicateTellsVersions},
		{"duplicate takes precedence over a conflict",
			"A retried command was usually decided on an older version. If the store returns a conflict, the caller decides again and the rules refuse what has already happened.",
			duplicateBeforeConflict},
		{"command ids are scoped to their stream",
			"The same id on another stream is another command. Stream and id must not be joined ambiguously, or a new command is dropped as a duplicate.",
			commandIsOfItsStream},
		{"command ids are compared byte by byte",
			"Ids that differ in case, spaces or Unicode normalization are different commands. If they compare as equal, a new command is dropped as a duplicate.",
			commandIDsAreBytes},
		{"refused append does not record its command",
			"A refused command took no effect and may be sent again. A store that records the id before the events are written refuses it from then on.",
			refusalKeepsCommand},
		{"append without events only checks the command",
			"Without events, Append reports whether the command is recorded and records nothing. If it records the command, the command itself is refused afterwards.",
			commandWithoutEvents},
		{"command is taken once in a race",
			"The same command sent concurrently takes effect once, and the other calls return a *es.DuplicateError. A store that checks before it locks applies it twice.",
			commandRace},
	}
}

// command returns an Append of n events by a command, at any version.
func command(stream es.Stream, id string, n int) es.Append {
	return es.Append{Stream: stream, Expected: es.AnyVersion, Events: events(n), Command: id}
}

func isDuplicate(err error) bool {
	var duplicate *es.DuplicateError
	return errors.As(err, &duplicate)
}

func commandOnce(t *trial) {
	s := t.store()
	a := stream("a")
	t.append(s, command(a, "pay", 2))
	t.append(s, add(a, 1))
	for _, s := range []es.Store{s, t.store(), s} {
		_, err := s.Append(t.ctx, command(a, "pay", 2))
		if err == nil {
			t.Fatalf("the same command succeeded a second time")
		}
		if !isDuplicate(err) {
			t.Fatalf("the repeated command returned %v: want a *es.DuplicateError", err)
		}
	}
	if n := len(t.read(s, a)); n != 3 {
		t.Errorf("%s has %d records, want 3: a duplicate wrote something", a, n)
	}
}

func duplicateTellsVersions(t *trial) {
	s := t.store()
	a := stream("a")
	t.append(s, command(a, "first", 1))
	t.append(s, add(a, 3))
	t.append(s, command(a, "second", 4), command(a, "third", 1))
	t.append(s, add(a, 1))
	for _, want := range []es.DuplicateError{
		{Stream: a, Command: "first", First: 1, Last: 1},
		{Stream: a, Command: "second", First: 5, Last: 8},
		{Stream: a, Command: "third", First: 9, Last: 9},
	} {
		_, err := s.Append(t.ctx, command(a, want.Command, 1))
		var duplicate *es.DuplicateError
		if errors.As(err, &duplicate) {
			t.equal("the duplicate", *duplicate, want)
		} else {
			t.Errorf("the repeated command %q returned %v: want a *es.DuplicateError", want.Command, err)
		}
	}
}

func duplicateBeforeConflict(t *trial) {
	s := t.store()
	a := stream("a")
	t.append(s, es.Append{Stream: a, Expected: 0, Events: events(2), Command: "pay"})
	t.append(s, add(a, 3))
	for _, expected := range []es.Version{0, 2, 4, 9} {
		for _, n := range []int{1, 0} {
			again := es.Append{Stream: a, Expected: expected, Events: events(n), Command: "pay"}
			if _, err := s.Append(t.ctx, again); err == nil || !isDuplicate(err) {
				t.Errorf("Append(%s) returned %v: want a *es.DuplicateError", describe([]es.Append{again}), err)
			}
		}
	}
}

func commandIsOfItsStream(t *trial) {
	s := t.store()
	for _, a := range []es.Append{
		command(stream("a"), "1", 1),
		command(stream("b"), "1", 1),
		command(stream("1"), "a", 1),
		command(es.Stream{Kind: "another", ID: "a"}, "1", 1),
		command(stream("a/1"), "1", 1),
		command(stream("a"), "1/1", 1),
		command(stream("a 1"), "1", 1),
		command(stream("a"), "1 1", 1),
		command(stream("a:1"), "1", 1),
		command(stream("a"), "1:1", 1),
	} {
		if _, err := s.Append(t.ctx, a); err != nil {
			t.Errorf("Append(%s) returned %v: want no error, the command is new to the stream", describe([]es.Append{a}), err)
		}
	}
	if _, err := s.Append(t.ctx, command(stream("c"), "both", 1), command(stream("d"), "both", 1)); err != nil {
		t.Errorf("a call with the same command on two streams returned %v: want no error", err)
	}
}

func commandIDsAreBytes(t *trial) {
	s := t.store()
	for _, id := range oddNames() {
		if _, err := s.Append(t.ctx, command(stream("a"), id, 1)); err != nil {
			t.Errorf("the new command %+q returned %v", id, err)
		}
	}
	for _, id := range oddNames() {
		var duplicate *es.DuplicateError
		if _, err := s.Append(t.ctx, command(stream("a"), id, 1)); err == nil {
			t.Errorf("command %+q succeeded twice", id)
		} else if errors.As(err, &duplicate) && duplicate.Command != id {
			t.Errorf("the duplicate names command %+q, want %+q", duplicate.Command, id)
		}
	}
}

func refusalKeepsCommand(t *trial) {
	s := t.store()
	a, full := stream("a"), stream("full")
	t.append(s, command(full, "done", 1))
	for name, call := range map[string][]es.Append{
		"conflict":                      {{Stream: a, Expected: 99, Events: events(1), Command: "conflict"}},
		"conflict of a later append":    {command(a, "conflict of a later append", 1), {Stream: full, Expected: 99, Events: events(1)}},
		"conflict of an earlier append": {{Stream: full, Expected: 99, Events: events(1)}, command(a, "conflict of an earlier append", 1)},
		"duplicate of a later append":   {command(a, "duplicate of a later append", 1), command(full, "done", 1)},
		"limit":                         {command(a, "limit", 1), add(es.Stream{}, 1)},
	} {
		_ = t.refuse(s, call...)
		if _, err := s.Append(t.ctx, command(a, name, 1)); err != nil {
			t.Errorf("after a refused call (%s) the same command returned %v: want no error", name, err)
		}
	}
}

func commandWithoutEvents(t *trial) {
	s := t.store()
	a := stream("a")
	check := es.Append{Stream: a, Expected: es.AnyVersion, Command: "pay"}
	for range 2 {
		if _, err := s.Append(t.ctx, check); err != nil {
			t.Fatalf("the check for a command that is not recorded returned %v: want no error", err)
		}
	}
	if _, err := s.Append(t.ctx, command(a, "pay", 1)); err != nil {
		t.Fatalf("a command that had only been checked returned %v: want no error", err)
	}
	if _, err := s.Append(t.ctx, check); err == nil || !isDuplicate(err) {
		t.Errorf("the check for a recorded command returned %v: want a *es.DuplicateError", err)
	}
	if n := len(t.read(s, a)); n != 1 {
		t.Errorf("%s has %d records, want 1", a, n)
	}
}

func commandRace(t *trial) {
	const writers = 16
	stores := t.stores(4)
	a := stream("a")
	version := es.Version(0)
	for round := range 5 {
		errs := make([]error, writers)
		t.race(writers, func(i int) {
			send := command(a, fmt.Sprint(round), 2)
			if i%2 == 0 {
				send.Expected = version
			}
			_, errs[i] = stores[i%len(stores)].Append(t.ctx, send)
		})
		taken := 0
		for _, err := range errs {
			var duplicate *es.DuplicateError
			switch {
			case err == nil:
				taken++
			case !errors.As(err, &duplicate):
				t.Errorf("a command that lost the race returned %v: want a *es.DuplicateError", err)
			case duplicate.First != version+1 || duplicate.Last != version+2:
				t.Errorf("the duplicate names versions %d to %d, want %d to %d", duplicate.First, duplicate.Last, version+1, version+2)
			}
		}
		if taken != 1 {
			t.Fatalf("the same command, sent by %d writers at once, succeeded %d times: want once", writers, taken)
		}
		version += 2
		if n := len(t.read(stores[0], a)); n != int(version) {
			t.Fatalf("%s has %d records, want %d", a, n, version)
		}
	}
}
