package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/thalo-go/es"
)

// Redactable is a log with snapshots whose events can be redacted.
type Redactable interface {
	es.Log
	es.Snapshots

	// Redact erases the content of one event, and appends a record of type [es.TypeRedaction] to its stream.
	Redact(ctx context.Context, stream es.Stream, version es.Version, reason string) (es.Redaction, error)
}

// TestRedaction tests the method Redact of a log with snapshots. It calls database as [TestStore] does.
func TestRedaction(t *testing.T, database func(t *testing.T) (open func() Redactable)) {
	t.Helper()
	test(t, redactionClauses(), func(t *testing.T) *trial { return redactionTrial(database(t)) })
}

func redactionTrial(open func() Redactable) *trial {
	t := logTrial(func() es.Log { return open() })
	t.redactable = open
	return t
}

func redactionClauses() []clause {
	return []clause{
		{"a redacted record keeps its place and loses its content",
			"Readers rely on positions and versions without gaps, and on times that do not decrease. Everything else that the program wrote is erased, but the tags, by which conditions are decided.",
			redactsRecord},
		{"a redaction is a record of its stream",
			"A process that has the content in a cached state has no other way to notice. The record has the type es.TypeRedaction, the version and the reason, and the tags of the redacted one, so that decisions by tag notice it too.",
			redactionIsRecorded},
		{"a redaction removes the snapshot of the stream, and an older one does not come back",
			"A snapshot has the content. A process that is about to save one that it made before the redaction must not bring the content back.",
			redactsSnapshot},
		{"a snapshot that is saved during a redaction does not stay",
			"A store that looks for redactions before it locks keeps a snapshot that has the content.",
			snapshotDuringRedaction},
		{"the command of a redacted event stays known",
			"A command that is sent again must not take effect again.",
			redactedCommand},
		{"a second redaction changes nothing",
			"A caller that does not know whether the first one was done asks again. It learns that it was, and by which record.",
			redactsOnce},
		{"what cannot be redacted is refused",
			"A version that the stream does not have, a record of the store, and a redaction without a reason are errors that wrap es.ErrInvalid, and nothing is written.",
			refusesRedaction},
		{"redactions and appends at once keep the order of the log",
			"A redaction appends a record. If it does not take the lock of the appends, or leaves the heads that processes know as they were, positions or versions are given twice.",
			redactsInARace},
		{"a redaction obeys the context",
			"A caller that has given up gets the context's error, and nothing is changed.",
			redactionContext},
	}
}

func (t *trial) redact(s Redactable, stream es.Stream, version es.Version) es.Redaction {
	done, err := s.Redact(t.ctx, stream, version, "request 17")
	if err != nil {
		t.Fatalf("Redact of %s/%d returned %v", stream, version, err)
	}
	return done
}

// private returns a record with content that is to be erased.
func private() es.Record {
	return es.Record{Type: "named", Data: []byte("Ann Smith"), Meta: map[string]string{"user": "Ann"}, Tags: []string{"team:1", "team:2"}}
}

func redactsRecord(t *trial) {
	s := t.redactable()
	t.append(s, write(stream("x"), es.Condition{}, tagged("1"), private(), tagged("3")), write(stream("y"), es.Condition{}, tagged("1")))
	other := t.redactable()
	before := t.all(other)
	t.redact(s, stream("x"), 2)
	want := slices.Clone(before)
	want[1].Type, want[1].Data, want[1].Meta = es.TypeRedacted, nil, nil
	for how, read := range map[string]func() []es.Record{
		"All":                  func() []es.Record { return t.all(s)[:4] },
		"All of another store": func() []es.Record { return t.all(other)[:4] },
		"Read":                 func() []es.Record { return slices.Insert(t.read(s, stream("x"))[:3], 3, want[3]) },
		"All by its tags": func() []es.Record {
			return slices.Replace(slices.Clone(want), 1, 2, t.collect(s.All(t.ctx, 0, es.Filter{Tags: private().Tags}))[0])
		},
	} {
		got := read()
		for i := range got {
			if len(got[i].Data) == 0 {
				got[i].Data = nil // nil and empty are the same
			}
		}
		t.equal("the records by "+how, got, want)
	}
}

func redactionIsRecorded(t *trial) {
	s := t.redactable()
	t.append(s, write(stream("x"), es.Condition{}, private(), tagged("2")), write(stream("y"), es.Condition{}, tagged("1")))
	head := t.all(s)[2]
	done := t.redact(s, stream("x"), 1)
	t.equal("the redaction", []any{done.Audit, done.Repeated}, []any{es.Version(3), false})
	records := t.all(t.redactable())
	if len(records) != 4 {
		t.Fatalf("the log has %d records after a redaction: want 4", len(records))
	}
	r := records[3]
	t.equal("stream, version and position of the last record", []any{r.Stream, r.Version, r.Position}, []any{stream("x"), es.Version(3), es.Position(4)})
	t.equal("type and tags of the last record", []any{r.Type, r.Tags}, []any{es.TypeRedaction, private().Tags})
	t.equal("data of the last record", string(r.Data), `{"version":1,"reason":"request 17"}`)
	if r.Time.Before(head.Time) {
		t.Errorf("the time of the last record is %v, before that of the one before, %v", r.Time, head.Time)
	}
	var conflict *es.ConflictError
	if err := t.refuse(s, write(stream("z"), unless(3, "team:1"), tagged("1"))); !errors.As(err, &conflict) {
		t.Errorf("an append that was decided before the redaction returned %v: want a conflict", err)
	}
	if err := t.refuse(s, es.Append{Stream: stream("x"), Expected: 2, Events: []es.Record{tagged("3", "plain")}}); !errors.As(err, &conflict) {
		t.Errorf("an append at the version before the redaction returned %v: want a conflict", err)
	}
	t.append(s, es.Append{Stream: stream("x"), Expected: 3, Events: []es.Record{tagged("4", "plain")}})
}

func redactsSnapshot(t *trial) {
	s, other := t.redactable(), t.redactable()
	t.append(s, add(stream("x"), 3), add(stream("y"), 3))
	old := es.Snapshot{Stream: stream("x"), Version: 3, Position: 3, Data: []byte("Ann Smith")}
	kept := es.Snapshot{Stream: stream("y"), Version: 3, Position: 6, Data: []byte("kept")}
	t.save(s, old)
	t.save(s, kept)
	if done := t.redact(other, stream("x"), 3); done.Snapshots != 1 {
		t.Errorf("Redact reports %d snapshots: want 1", done.Snapshots)
	}
	load := func(stream es.Stream) es.Snapshot {
		snapshot, err := s.LoadSnapshot(t.ctx, stream)
		if err != nil {
			t.Fatalf("LoadSnapshot(%s) returned %v", stream, err)
		}
		return snapshot
	}
	t.equal("the snapshot of the stream", load(stream("x")), es.Snapshot{})
	t.equal("the snapshot of another stream", load(stream("y")), kept)
	for _, s := range []es.Snapshots{s, other} {
		t.save(s, old)
		t.equal("a snapshot from before the redaction, saved after it", load(stream("x")), es.Snapshot{})
	}
	later := es.Snapshot{Stream: stream("x"), Version: 4, Position: 7, Data: []byte("without")}
	t.save(s, later)
	t.save(other, old)
	t.equal("a snapshot from after the redaction", load(stream("x")), later)
	old.Schema++ // a newer program with an older state
	t.save(other, old)
	t.equal("a snapshot from after the redaction, and an older one with a higher schema", load(stream("x")), later)
}

func snapshotDuringRedaction(t *trial) {
	const streams = 6
	stores := []Redactable{t.redactable(), t.redactable()}
	for i := range streams {
		t.append(stores[0], add(stream(fmt.Sprint(i)), 1))
	}
	saved := make([]*flag, streams)
	var redacted [streams]atomic.Bool
	for i := range saved {
		saved[i] = newFlag()
	}
	t.race(2*streams, func(i int) {
		s, n := stores[i%2], i/2
		if i%2 == 0 {
			t.await(saved[n], "a snapshot is saved")
			t.redact(s, stream(fmt.Sprint(n)), 1)
			redacted[n].Store(true)
			return
		}
		for !redacted[n].Load() && t.ctx.Err() == nil {
			t.save(s, es.Snapshot{Stream: stream(fmt.Sprint(n)), Version: 1, Position: es.Position(n + 1), Data: []byte("Ann Smith")})
			saved[n].raise()
		}
	})
	for i := range streams {
		if snapshot, err := stores[0].LoadSnapshot(t.ctx, stream(fmt.Sprint(i))); err != nil || snapshot.Version != 0 {
			t.Errorf("after the redaction stream %d has a snapshot of version %d, saved during it, and error %v", i, snapshot.Version, err)
		}
	}
}

func redactedCommand(t *trial) {
	s := t.redactable()
	command := add(stream("x"), 2)
	command.Command = "c"
	t.append(s, command)
	t.redact(s, stream("x"), 1)
	t.redact(s, stream("x"), 2)
	var duplicate *es.DuplicateError
	if err := t.refuse(t.redactable(), command); !errors.As(err, &duplicate) || duplicate.First != 1 || duplicate.Last != 2 {
		t.Errorf("the command of redacted events, sent again, returned %v: want a duplicate of versions 1 to 2", err)
	}
}

func redactsOnce(t *trial) {
	s, other := t.redactable(), t.redactable()
	t.append(s, add(stream("x"), 3))
	t.redact(s, stream("x"), 2)
	first := t.redact(s, stream("x"), 1)
	before := t.all(s)
	for _, s := range []Redactable{s, other} {
		done := t.redact(s, stream("x"), 1)
		t.equal("the second redaction", []any{done.Audit, done.Repeated, done.Snapshots, done.Parked}, []any{first.Audit, true, 0, 0})
	}
	t.equal("the log after the second redaction", t.all(s), before)
}

func refusesRedaction(t *trial) {
	s := t.redactable()
	t.append(s, add(stream("x"), 2))
	t.redact(s, stream("x"), 2)
	before := t.all(s)
	for what, call := range map[string]struct {
		stream  es.Stream
		version es.Version
		reason  string
		says    string
	}{
		"version 0":                   {stream("x"), 0, "request", "version 0"},
		"a negative version":          {stream("x"), -1, "request", "version -1"},
		"a version beyond the end":    {stream("x"), 4, "request", "no version 4"},
		"a stream without events":     {stream("none"), 1, "request", "no events"},
		"the record of a redaction":   {stream("x"), 3, "request", es.TypeRedaction},
		"no reason":                   {stream("x"), 1, "", "reason"},
		"a reason that is too long":   {stream("x"), 1, strings.Repeat("x", 1025), "reason"},
		"a reason that is not text":   {stream("x"), 1, "\xff", "reason"},
		"an invalid stream":           {es.Stream{Kind: "a/b", ID: "x"}, 1, "request", "kind"},
		"a stream with another's end": {stream("X"), 1, "request", "no events"},
	} {
		_, err := s.Redact(t.ctx, call.stream, call.version, call.reason)
		if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), call.says) {
			t.Errorf("Redact of %s returned %v: want an error that wraps es.ErrInvalid and says %q", what, err, call.says)
		}
	}
	t.equal("the log after refusals", t.all(s), before)
}

// redactsInARace also has the processes know the heads of the streams, and appends to them at once.
func redactsInARace(t *trial) {
	const streams, each = 4, 6
	stores := []Redactable{t.redactable(), t.redactable()}
	for i := range streams {
		t.append(stores[0], add(stream(fmt.Sprint(i)), each))
	}
	var redacted atomic.Int32
	t.race(streams*4, func(i int) {
		s, name := stores[i%2], stream(fmt.Sprint(i%streams))
		for version := es.Version(1); version <= each; version++ {
			if i/streams < 2 {
				t.append(s, add(name, 1), add(stream(fmt.Sprint((i+1)%streams)), 1))
				continue
			}
			if done := t.redact(s, name, version); !done.Repeated {
				redacted.Add(1)
			}
		}
	})
	if n := redacted.Load(); n != streams*each {
		t.Errorf("%d redactions by two callers each of %d records were not repeated: want %d", n, streams*each, streams*each)
	}
	versions := make(map[es.Stream]es.Version)
	types := make(map[string]int)
	for i, r := range t.all(t.redactable()) {
		versions[r.Stream]++
		types[r.Type]++
		if r.Position != es.Position(i+1) || r.Version != versions[r.Stream] {
			t.Fatalf("record %d has position %d and is version %d of %s: want version %d", i+1, r.Position, r.Version, r.Stream, versions[r.Stream])
		}
	}
	t.equal("the number of records of each type", types, map[string]int{es.TypeRedacted: streams * each, es.TypeRedaction: streams * each, "happened": streams * 2 * each * 2})
}

func redactionContext(t *trial) {
	s := t.redactable()
	t.append(s, add(stream("x"), 1))
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	if _, err := s.Redact(ctx, stream("x"), 1, "request"); !errors.Is(err, context.Canceled) {
		t.Errorf("Redact with a cancelled context returned %v: want an error that wraps context.Canceled", err)
	}
	if r := t.all(s); len(r) != 1 || !bytes.Equal(r[0].Data, []byte("1")) {
		t.Errorf("Redact with a cancelled context left the log as %+v", r)
	}
}
