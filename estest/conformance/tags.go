package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/thalo-go/es"
)

func tagClauses() []clause {
	return []clause{
		{"tags are stored as a sorted set and belong to the caller",
			"Readers compare tags and search them. A store that shares their memory, or sorts the list of the caller in place, changes history or the program.",
			tagsAreSets},
		{"a filter by tags selects the records that have all of them",
			"A random filter returns exactly the records that Filter.Match finds in a full scan, from any position, also with kinds and types, and for tags of any characters and length.",
			filtersByTag},
		{"an event without tags is refused where its kind has tags",
			"A process of an older release, or one whose codec has no Tag function, writes events without tags. Conditions do not see them, so a rule would be broken.",
			untaggedIsRefused},
		{"conditions and filters by tag wait for the tags of older events",
			"Once events of a kind have tags, older ones without tags are invisible to conditions. A store that answers before they have theirs accepts what it must refuse.",
			olderEventsGetTags},
	}
}

func tagsAreSets(t *trial) {
	l := t.log()
	given := []string{"b", "c", "a", "b"}
	e := tagged("1", given...)
	other := es.Stream{Kind: "untagged", ID: "x"}
	t.append(l, write(stream("x"), es.Condition{}, e), add(other, 1))
	if want := []string{"b", "c", "a", "b"}; !slices.Equal(given, want) {
		t.Errorf("Append changed the tags of its argument to %q", given)
	}
	given[0] = "overwritten"
	want := [][]string{{"a", "b", "c"}, nil}
	one := want[:1]
	read := map[string]func() []es.Record{
		"Read":             func() []es.Record { return t.read(l, stream("x")) },
		"All":              func() []es.Record { return t.all(l) },
		"All with a kind":  func() []es.Record { return t.collect(l.All(t.ctx, 0, es.Filter{Kinds: []string{"estest"}})) },
		"All with a type":  func() []es.Record { return t.collect(l.All(t.ctx, 0, es.Filter{Types: []string{"happened"}})) },
		"another store":    func() []es.Record { return t.all(t.log()) },
		"All, once more":   func() []es.Record { return t.all(l) },
		"Read, after that": func() []es.Record { return t.read(l, stream("x")) },
	}
	for how, read := range read {
		records := read()
		var got [][]string
		for i := range records {
			got = append(got, records[i].Tags)
		}
		if len(got) == 1 {
			t.equal("the tags by "+how, got, one)
		} else {
			t.equal("the tags by "+how, got, want)
		}
		if len(records) > 0 && len(records[0].Tags) > 0 {
			records[0].Tags[0] = "overwritten"
		}
	}
}

var someTags = []string{"a", "b", "c", "ab", "course:1", "course:11", `a"b\`, "a\x1fb", "\x1f", "%", "_", "账户", ",", " ", `","`, `\s`, "\n"}

func randomEvent(random *rand.Rand) es.Record {
	e := event(fmt.Sprint(random.Int()))
	e.Type = fmt.Sprint("type ", random.IntN(3))
	for range random.IntN(5) {
		e.Tags = append(e.Tags, someTags[random.IntN(len(someTags))])
	}
	return e
}

func randomFilter(random *rand.Rand) (f es.Filter) {
	if random.IntN(3) == 0 {
		f.Kinds = []string{"estest", "none"}[random.IntN(2):]
	}
	for range random.IntN(3) {
		f.Types = append(f.Types, fmt.Sprint("type ", random.IntN(3)))
	}
	for range random.IntN(3) {
		f.Tags = append(f.Tags, someTags[random.IntN(len(someTags))])
	}
	return f
}

func filtersByTag(t *trial) {
	l := t.log()
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		var events []es.Record
		for range 20 {
			events = append(events, randomEvent(random))
		}
		t.append(l, write(stream(fmt.Sprint(i%5)), es.Condition{}, events...))
	}
	long := make([]string, es.MaxTags)
	for i := range long {
		long[i] = strings.Repeat("ä", es.MaxTag/2-1) + string(rune('A'+i)) + "z"
	}
	t.append(l, write(stream("long"), es.Condition{}, tagged("long", long...)))
	records := t.all(l)
	filters := []es.Filter{
		{Tags: long}, {Tags: long[3:4]}, {Tags: []string{"a", "a"}}, {Tags: []string{"unknown"}},
		{Tags: []string{""}}, {Tags: []string{"a", "\x00"}}, {Tags: []string{"\xff"}}, {Tags: []string{strings.Repeat("x", es.MaxTag+1)}},
	}
	for range 150 {
		filters = append(filters, randomFilter(random))
	}
	for i, f := range filters {
		after := es.Position(0)
		if i%2 == 1 {
			after = es.Position(random.IntN(len(records) + 1))
		}
		var want []es.Position
		for _, r := range records[after:] {
			if f.Match(r) {
				want = append(want, r.Position)
			}
		}
		var got []es.Position
		for _, r := range t.collect(l.All(t.ctx, after, f)) {
			if got = append(got, r.Position); !slices.Equal(r.Tags, records[r.Position-1].Tags) {
				t.Errorf("the record at position %d has tags %q by a filter and %q without one", r.Position, r.Tags, records[r.Position-1].Tags)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("All after %d with %v returned positions %v: want %v", after, f, got, want)
		}
	}
}

func untaggedIsRefused(t *trial) {
	l := t.log()
	other := es.Stream{Kind: "untagged", ID: "x"}
	t.append(l, add(other, 1))
	t.append(l, write(stream("x"), es.Condition{}, tagged("1", "a")))
	for i, call := range [][]es.Append{
		{{Stream: stream("y"), Events: events(1)}},
		{{Stream: stream("x"), Expected: 1, Events: events(2)}},
		{add(other, 1), {Stream: stream("y"), Events: events(1)}},
		{{Stream: stream("y"), Events: []es.Record{tagged("1", "a"), event("2")}}},
	} {
		for _, l := range []es.Log{l, t.log()} {
			if _, err := l.Append(t.ctx, call...); !errors.Is(err, es.ErrInvalid) {
				t.Errorf("call %d with an event without tags: %v; want an error that wraps es.ErrInvalid", i, err)
			}
		}
	}
	t.empty(l, "after events without tags", stream("y"))
	t.append(l, add(other, 2))
	t.equal("the number of records", len(t.all(l)), 4)
}

// tagAdder is a store that can add tags to older events.
type tagAdder interface {
	AddTags(ctx context.Context, kind string, tags func(r es.Record) ([]string, error)) error
}

func olderEventsGetTags(t *trial) {
	l := t.log()
	t.append(l, add(stream("x"), 3), add(es.Stream{Kind: "other", ID: "x"}, 1))
	t.append(l, es.Append{Stream: stream("x"), Expected: es.AnyVersion, Events: []es.Record{tagged("4", "own")}})
	condition := write(stream("y"), unless(5, "2"), tagged("5", "own"))
	elsewhere := es.Filter{Kinds: []string{"other"}, Tags: []string{"2"}}
	refused := func(when string) {
		for _, l := range []es.Log{l, t.log()} {
			if _, err := l.Append(t.ctx, condition); !errors.Is(err, es.ErrUnavailable) {
				t.Errorf("a condition %s: %v; want an error that wraps es.ErrUnavailable", when, err)
			}
			if records, err := drain(l.All(t.ctx, 0, es.Filter{Tags: []string{"2"}})); !errors.Is(err, es.ErrUnavailable) {
				t.Errorf("a filter with tags %s: %d records, %v; want an error that wraps es.ErrUnavailable", when, len(records), err)
			}
			if _, err := drain(l.All(t.ctx, 0, elsewhere)); err != nil {
				t.Errorf("a filter with tags of another kind %s: %v", when, err)
			}
		}
	}
	refused("before the tags of older events")
	adder, ok := l.(tagAdder)
	if !ok {
		t.Fatalf("the store has no method AddTags")
	}
	failure := errors.New("failure")
	err := adder.AddTags(t.ctx, "estest", func(r es.Record) ([]string, error) {
		if string(r.Data) == "3" {
			return nil, failure
		}
		return []string{string(r.Data), "added"}, nil
	})
	if !errors.Is(err, failure) {
		t.Errorf("AddTags returned %v; want the error of its function", err)
	}
	refused("after AddTags has failed")
	for range 2 {
		if err := adder.AddTags(t.ctx, "estest", func(r es.Record) ([]string, error) { return []string{string(r.Data), "added"}, nil }); err != nil {
			t.Fatalf("AddTags: %v", err)
		}
	}
	var got [][]string
	for _, r := range t.read(t.log(), stream("x")) {
		got = append(got, r.Tags)
	}
	t.equal("the tags of older events and of one with tags of its own", got, [][]string{{"1", "added"}, {"2", "added"}, {"3", "added"}, {"own"}})
	t.equal("the older events of a tag", data(t.collect(l.All(t.ctx, 0, es.Filter{Tags: []string{"added"}}))), []string{"1", "2", "3"})
	t.append(l, condition)
	condition.Unless.After = 0
	t.conflict("a condition on a tag that was added", t.refuse(l, condition), condition)
	if err := adder.AddTags(t.ctx, "new", func(es.Record) ([]string, error) { return nil, failure }); err != nil {
		t.Errorf("AddTags of a kind without events: %v", err)
	}
	if _, err := l.Append(t.ctx, add(es.Stream{Kind: "new", ID: "x"}, 1)); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("an event without tags after AddTags: %v; want an error that wraps es.ErrInvalid", err)
	}
	if err := adder.AddTags(t.ctx, "", nil); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("AddTags of an empty kind: %v; want an error that wraps es.ErrInvalid", err)
	}
}
