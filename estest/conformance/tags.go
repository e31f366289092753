package conformance

import (
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
	}
}

func tagsAreSets(t *trial) {
	l := t.log()
	given := []string{"b", "c", "a", "b"}
	e := tagged("1", given...)
	t.append(l, write(stream("x"), es.Condition{}, e, event("2")))
	if want := []string{"b", "c", "a", "b"}; !slices.Equal(given, want) {
		t.Errorf("Append changed the tags of its argument to %q", given)
	}
	given[0] = "overwritten"
	want := [][]string{{"a", "b", "c"}, nil}
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
		t.equal("the tags by "+how, got, want)
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
