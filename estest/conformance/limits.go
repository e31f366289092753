package conformance

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"strings"

	"github.com/thalo-go/es"
)

// limitClauses test input beyond the limits and input exactly at them.
func limitClauses() []clause {
	return []clause{
		{"input beyond a limit is refused before anything is written",
			"The limits of package es hold on every backend. The error wraps es.ErrInvalid and names the stream. A store that truncates, or notices halfway, loses data.",
			badInputIsRefused},
		{"input at the limits is accepted",
			"Names and data up to the limits work on every backend. Otherwise a program that works on one backend fails on another.",
			limitsAreReached},
	}
}

// invalid is a call that must be refused.
type invalid struct {
	what     string
	call     []es.Append
	nameless bool // there is no stream that the error could name
}

func invalidCalls(large bool) []invalid {
	a := stream("named")
	with := func(change func(*es.Append)) []es.Append {
		call := add(a, 1)
		change(&call)
		return []es.Append{call}
	}
	named := func(kind, id string) []es.Append { return []es.Append{add(es.Stream{Kind: kind, ID: id}, 1)} }
	record := func(r es.Record) []es.Append {
		return with(func(a *es.Append) { a.Events = []es.Record{event("fine"), r} })
	}
	calls := []invalid{
		{what: "an empty kind", call: named("", "a"), nameless: true},
		{what: "an empty id", call: named("estest", ""), nameless: true},
		{what: "a kind with a slash", call: named("es/test", "a"), nameless: true},
		{what: "a kind that is too long", call: named(strings.Repeat("k", es.MaxKind+1), "a"), nameless: true},
		{what: "an id that is too long", call: named("estest", strings.Repeat("i", es.MaxID+1)), nameless: true},
		{what: "an id that is too long in bytes only", call: named("estest", strings.Repeat("ä", es.MaxID/2+1)), nameless: true},
		{what: "an empty type", call: record(es.Record{})},
		{what: "a type that is too long", call: record(es.Record{Type: strings.Repeat("t", es.MaxType+1)})},
		{what: "a command that is too long", call: with(func(a *es.Append) { a.Command = strings.Repeat("c", es.MaxCommand+1) })},
		{what: "a version below AnyVersion", call: with(func(a *es.Append) { a.Expected = es.AnyVersion - 1 })},
		{what: "metadata that is too long", call: record(es.Record{Type: "t", Meta: map[string]string{"k": strings.Repeat("v", es.MaxMeta)}})},
		{what: "metadata that is too long in total", call: record(es.Record{Type: "t", Meta: map[string]string{"a": strings.Repeat("v", es.MaxMeta/2), "b": strings.Repeat("v", es.MaxMeta/2)}})},
		{what: "the same command twice in one call", call: []es.Append{command(a, "twice", 1), command(a, "twice", 1)}},
		{what: "too many events", call: []es.Append{add(a, es.MaxEvents), add(a, 1)}, nameless: true},
	}
	for what, text := range map[string]string{"a NUL byte": "a\x00b", "invalid UTF-8": "a\xffb", "half a surrogate pair": "a\xed\xa0\x80b"} {
		calls = append(calls,
			invalid{what: "a kind with " + what, call: named(text, "a"), nameless: true},
			invalid{what: "an id with " + what, call: named("estest", text), nameless: true},
			invalid{what: "a type with " + what, call: record(es.Record{Type: text})},
			invalid{what: "a command with " + what, call: with(func(a *es.Append) { a.Command = text })},
			invalid{what: "a metadata key with " + what, call: record(es.Record{Type: "t", Meta: map[string]string{text: "v"}})},
			invalid{what: "a metadata value with " + what, call: record(es.Record{Type: "t", Meta: map[string]string{"k": text}})})
	}
	if large {
		long := make([]byte, es.MaxData+1)
		calls = append(calls,
			invalid{what: "data that is too long", call: record(es.Record{Type: "t", Data: long})},
			invalid{what: "too many bytes", nameless: true, call: with(func(a *es.Append) {
				for range es.MaxBytes / es.MaxData {
					a.Events = append(a.Events, es.Record{Type: "t", Data: long[:es.MaxData]})
				}
			})})
	}
	return calls
}

func badInputIsRefused(t *trial) {
	s := t.store()
	fine := stream("fine")
	for _, bad := range invalidCalls(t.large) {
		_, err := s.Append(t.ctx, append([]es.Append{add(fine, 1)}, bad.call...)...)
		switch {
		case !errors.Is(err, es.ErrInvalid):
			t.Errorf("Append with %s returned %v: want an error that wraps es.ErrInvalid", bad.what, err)
		case !bad.nameless && !strings.Contains(err.Error(), bad.call[0].Stream.String()):
			t.Errorf("Append with %s returned %q: want an error that names the stream, %s", bad.what, err, bad.call[0].Stream)
		}
	}
	for _, stream := range []es.Stream{{}, {Kind: "estest"}, {Kind: "estest", ID: "a\x00"}, {Kind: "es/test", ID: "a"}} {
		if _, err := drain(s.Read(t.ctx, stream, 0)); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("Read of %+q returned %v: want an error that wraps es.ErrInvalid", stream, err)
		}
	}
	t.empty(s, "after calls beyond a limit", fine, stream("named"))
}

func limitsAreReached(t *trial) {
	s := t.store()
	long := func(n int) string { // random letters, so that an index cannot compress them
		letters := make([]byte, n)
		for i := range letters {
			letters[i] = byte('a' + rand.N(26))
		}
		return string(letters)
	}
	meta := map[string]string{long(es.MaxMeta / 4): long(es.MaxMeta / 4), "rest": long(es.MaxMeta/2 - len("rest"))}
	for _, test := range []struct {
		what string
		es.Append
	}{
		{"a kind and an id at the limit", add(es.Stream{Kind: long(es.MaxKind), ID: long(es.MaxID)}, 1)},
		{"an id of two-byte letters at the limit", add(stream(strings.Repeat("ä", es.MaxID/2)), 1)},
		{"a type at the limit", es.Append{Stream: stream("type"), Events: []es.Record{{Type: long(es.MaxType)}}}},
		{"a command at the limit on a stream with the longest name", command(es.Stream{Kind: long(es.MaxKind), ID: long(es.MaxID)}, long(es.MaxCommand), 1)},
		{"metadata at the limit", es.Append{Stream: stream("meta"), Events: []es.Record{{Type: "t", Data: []byte("1"), Meta: meta}}}},
		{"data at the limit", es.Append{Stream: stream("data"), Events: t.heavy(1)}},
		{"the maximum number of events in one call", add(stream("events"), es.MaxEvents)},
		{"the maximum number of bytes in one call", es.Append{Stream: stream("bytes"), Events: t.heavy(es.MaxBytes / es.MaxData)}},
	} {
		if _, err := s.Append(t.ctx, test.Append); err != nil {
			t.Errorf("%s: Append returned %v", test.what, err)
			continue
		}
		got := t.read(s, test.Stream)
		if len(got) != len(test.Events) {
			t.Errorf("%s: %d of %d records were read", test.what, len(got), len(test.Events))
			continue
		}
		for i, want := range test.Events {
			if got := got[i]; got.Stream != test.Stream || got.Type != want.Type || string(got.Data) != string(want.Data) || !maps.Equal(got.Meta, want.Meta) {
				t.Errorf("%s: it was read with different content", test.what)
				break
			}
		}
		if test.Command != "" {
			if _, err := s.Append(t.ctx, test.Append); !isDuplicate(err) {
				t.Errorf("%s: the repeated Append returned %v: want a *es.DuplicateError", test.what, err)
			}
		}
	}
}

// heavy returns n events with the maximum of data.
func (t *trial) heavy(n int) []es.Record {
	if !t.large {
		return nil
	}
	full := bytes.Repeat([]byte("es"), es.MaxData/2)
	records := make([]es.Record, n)
	for i := range records {
		records[i] = es.Record{Type: "t", Data: full}
	}
	return records
}
