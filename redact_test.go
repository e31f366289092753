package es_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/thalo-go/es"
)

type named struct{ Name string }

type people struct{}

type person struct {
	Name  string
	Count int
}

func (people) Decide(_ person, command named) ([]named, error) { return []named{command}, nil }

func (people) Evolve(p person, event named) person {
	p.Count++
	if event.Name != "" {
		p.Name = event.Name
	}
	return p
}

var peopleCodec = es.JSON(map[string]named{"named": {}})

var ann = es.Stream{Kind: "person", ID: "ann"}

func TestARedactedEventIsInNoState(t *testing.T) {
	t.Parallel()
	m := new(es.Mem)
	process := func() *es.Repo[person, named, named] {
		r := es.NewRepo(m, "person", people{}, peopleCodec)
		r.Snapshots, r.SnapshotEvery = m, 2
		return r
	}
	writer, cached := process(), process()
	for _, name := range []string{"Ann Smith", "", "", ""} {
		if _, err := writer.Execute(t.Context(), "ann", named{name}, es.CommandID("c"+name)); err != nil && name != "" {
			t.Fatal(err)
		}
		if _, err := writer.Execute(t.Context(), "ann", named{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := process().Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := cached.Load(t.Context(), "ann")
	if err != nil || before.State.Name != "Ann Smith" {
		t.Fatalf("got %+v, %v", before, err)
	}
	done, err := m.Redact(t.Context(), ann, 1, "request 17")
	if err != nil || done.Audit != before.Version+1 || done.Repeated {
		t.Fatalf("got %+v, %v", done, err)
	}
	// A process that was about to save its state must not bring the name back.
	late := es.Snapshot{Stream: ann, Version: before.Version, Position: before.Position, Data: []byte("Ann Smith")}
	if err := m.SaveSnapshot(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	if s, err := m.LoadSnapshot(t.Context(), ann); err != nil || s.Version != 0 {
		t.Errorf("a snapshot from before the redaction was saved after it: %+v, %v", s, err)
	}
	for who, r := range map[string]*es.Repo[person, named, named]{"a new process": process(), "a process with a cached state": cached} {
		s, err := r.Load(t.Context(), "ann")
		if err != nil || s.State != (person{Count: before.State.Count - 1}) || s.Version != before.Version+1 {
			t.Errorf("%s: got %+v, %v", who, s, err)
		}
	}
	result, err := writer.Execute(t.Context(), "ann", named{}) // decided on the cached state first
	if err != nil || result.State.Name != "" || result.State.Count != before.State.Count {
		t.Errorf("a command on a cached state: got %+v, %v", result, err)
	}
	again, err := writer.Execute(t.Context(), "ann", named{"Ann Smith"}, es.CommandID("cAnn Smith"))
	if err != nil || !again.Repeated || len(again.Events) != 0 || again.Version != 1 {
		t.Errorf("the command of the redacted event, repeated: got %+v, %v", again, err)
	}
	if at, err := process().LoadAt(t.Context(), "ann", 1); err != nil || at.State.Name != "" {
		t.Errorf("LoadAt: got %+v, %v", at, err)
	}
}

// between is a Log that calls a function once, between two records of a stream that a reader gets.
type between struct {
	*es.Mem
	after es.Version
	call  func()
}

func (b *between) Read(ctx context.Context, stream es.Stream, after es.Version) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		for after := after; ; {
			more := false
			for r, err := range b.Mem.Read(ctx, stream, after) {
				if !yield(r, err) {
					return
				}
				after = r.Version
				if call := b.call; call != nil && r.Version == b.after {
					b.call, more = nil, true
					call()
					break // the next page is read afterwards
				}
			}
			if !more {
				return
			}
		}
	}
}

func TestAnEventRedactedWhileItsStreamIsReadIsInNoState(t *testing.T) {
	t.Parallel()
	m := new(es.Mem)
	for _, name := range []string{"Ann Smith", "", ""} {
		if _, err := es.NewRepo(m, "person", people{}, peopleCodec).Execute(t.Context(), "ann", named{name}); err != nil {
			t.Fatal(err)
		}
	}
	store := &between{Mem: m, after: 2, call: func() {
		if _, err := m.Redact(t.Context(), ann, 1, "request 17"); err != nil {
			t.Error(err)
		}
	}}
	s, err := es.NewRepo(store, "person", people{}, peopleCodec).Load(t.Context(), "ann")
	if err != nil || s.State != (person{Count: 2}) || s.Version != 4 || store.call != nil {
		t.Errorf("got %+v, %v", s, err)
	}
}

// The query names types, so the record that says that one was redacted is found by its tags alone.
func TestARedactedEventIsInNoDecision(t *testing.T) {
	t.Parallel()
	m := new(es.Mem)
	codec := es.JSON(map[string]named{"named": {}}).Tag(func(named) []string { return []string{"team:1"} })
	process := func() *es.Decisions[person, named, named] {
		return es.NewDecisions(m, people{}, codec, func(named) es.Boundary[person] {
			return es.Boundary[person]{Stream: ann, Query: []es.Filter{{Types: []string{"named"}, Tags: []string{"team:1"}}}}
		})
	}
	d := process()
	for _, name := range []string{"Ann Smith", "", ""} {
		if _, err := d.Execute(t.Context(), named{name}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Redact(t.Context(), ann, 1, "request 17"); err != nil {
		t.Fatal(err)
	}
	result, err := d.Execute(t.Context(), named{})
	if err != nil || result.State.Name != "" {
		t.Errorf("a decision on a cached state: got %+v, %v", result, err)
	}
	for who, d := range map[string]*es.Decisions[person, named, named]{"cached": d, "new": process()} {
		if s, err := d.Load(t.Context(), named{}); err != nil || s.State != (person{Count: 3}) {
			t.Errorf("%s: got %+v, %v", who, s, err)
		}
	}
}

func TestTypesOfTheStoreAreReserved(t *testing.T) {
	t.Parallel()
	for _, name := range []string{es.TypeRedacted, es.TypeRedaction, "es.other"} {
		_, err := new(es.Mem).Append(t.Context(), es.Append{Stream: ann, Events: []es.Record{{Type: name}}})
		if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "reserved") {
			t.Errorf("append of %s: got %v", name, err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a codec took the name %s", name)
				}
			}()
			es.JSON(map[string]named{name: {}})
		}()
	}
	old := es.JSON(map[string]named{"named": {}}).Rename("es.named", "named") // of a log that an older release wrote
	if event, err := old.Decode(es.Record{Type: "es.named", Data: []byte(`{"Name":"Ann"}`)}); err != nil || event.Name != "Ann" {
		t.Errorf("got %+v, %v", event, err)
	}
	for _, codec := range []*es.Codec[named]{peopleCodec, es.CodecFunc(func(named) (es.Record, error) { return es.Record{}, nil }, func(es.Record) (named, error) { return named{"asked"}, nil })} {
		for _, name := range []string{es.TypeRedacted, es.TypeRedaction} {
			if _, err := codec.Decode(es.Record{Type: name}); !errors.Is(err, es.ErrRetired) {
				t.Errorf("decoding %s: got %v", name, err)
			}
		}
	}
}
