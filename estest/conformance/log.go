package conformance

import (
	"fmt"
	"slices"

	"github.com/thalo-go/es"
)

// allClauses test reading the whole log.
func allClauses() []clause {
	return []clause{
		{"All returns the records after a position in order",
			"A reader resumes after the last position it has handled. One record too few is never seen, and one too many is applied twice.",
			allAfter},
		{"All and Read return equal records",
			"A projection reads a record from the log and a Repo reads it from its stream. If the two differ, they disagree about the same event.",
			allLikeRead},
		{"All returns exactly what its filter matches",
			"A filter names kinds, types or both, and an empty field matches everything. Filtering must not change the order or the positions of records.",
			allFilters},
		{"filters compare names byte by byte",
			"A filter name matches a stored name only if their bytes are equal. A filter that also matches other names feeds a projection records that it does not know.",
			filtersCompareBytes},
		{"long log is read completely and in order", whyMany + " A page without matching records is not the end of the log.", longLog},
		{"All holds nothing while the loop body runs", whyHold,
			func(t *trial) { l := t.log(); nothingHeld(t, l, ofLog(l)) }},
		{"ranging over All again reads again", whyAgain,
			func(t *trial) { l := t.log(); rangeAgain(t, l, ofLog(l)) }},
		{"leaving an All loop releases its resources", whyBreak,
			func(t *trial) { l := t.log(); leavingReleases(t, l, ofLog(l)) }},
		{"All returns an error when its context ends", whyContext,
			func(t *trial) { l := t.log(); readingObeysContext(t, l, ofLog(l)) }},
	}
}

func positions(records []es.Record) []es.Position {
	positions := make([]es.Position, len(records))
	for i, r := range records {
		positions[i] = r.Position
	}
	return positions
}

func allAfter(t *trial) {
	l := t.log()
	if n := len(t.all(l)); n > 0 {
		t.Fatalf("an empty log has %d records", n)
	}
	for range 4 {
		t.append(l, add(stream("a"), 1), add(es.Stream{Kind: "other", ID: "a"}, 2))
	}
	want := t.all(l)
	if len(want) != 12 {
		t.Fatalf("All returned %d records of 12", len(want))
	}
	if !slices.IsSorted(positions(want)) {
		t.Fatalf("All returned the positions %v: want them in order", positions(want))
	}
	for i, r := range want {
		t.equal(fmt.Sprintf("positions that All returned after %d", r.Position), positions(t.collect(l.All(t.ctx, r.Position, es.Filter{}))), positions(want[i+1:]))
	}
}

func allLikeRead(t *trial) {
	l := t.log()
	want := make(map[es.Stream][]es.Record)
	for i := range 12 {
		e := event(fmt.Sprint(i))
		e.Meta = map[string]string{"number": fmt.Sprint(i)}
		t.append(l, es.Append{Stream: stream(fmt.Sprint(i % 3)), Expected: es.AnyVersion, Events: []es.Record{e, {Type: "empty"}}})
	}
	got := make(map[es.Stream][]es.Record)
	for _, r := range t.all(l) {
		got[r.Stream] = append(got[r.Stream], r)
	}
	for i := range 3 {
		want[stream(fmt.Sprint(i))] = t.read(l, stream(fmt.Sprint(i)))
	}
	for _, records := range []map[es.Stream][]es.Record{got, want} {
		for _, stream := range records {
			for i := range stream {
				if len(stream[i].Data) == 0 {
					stream[i].Data = nil // nil and empty are the same
				}
			}
		}
	}
	t.equal("the records of All, compared with those of Read", got, want)
}

func allFilters(t *trial) {
	l := t.log()
	kinds, types := []string{"account", "customer", "card"}, []string{"opened", "changed", "closed"}
	for i := range 60 {
		t.append(l, es.Append{
			Stream:   es.Stream{Kind: kinds[i%3], ID: fmt.Sprint(i % 7)},
			Expected: es.AnyVersion,
			Events:   []es.Record{{Type: types[i%2]}, {Type: types[i%3]}},
		})
	}
	all := t.all(l)
	for _, filter := range []es.Filter{
		{},
		{Kinds: []string{}, Types: []string{}},
		{Kinds: []string{"account"}},
		{Kinds: []string{"card", "account"}},
		{Kinds: []string{"unknown"}},
		{Kinds: []string{"unknown", "customer", "unknown", "customer"}},
		{Kinds: []string{"opened"}},
		{Kinds: []string{""}},
		{Types: []string{"closed"}},
		{Types: []string{"changed", "closed"}},
		{Types: []string{"unknown"}},
		{Types: []string{"account"}},
		{Kinds: []string{"account"}, Types: []string{"opened"}},
		{Kinds: []string{"account", "card"}, Types: []string{"closed", "changed", "unknown"}},
		{Kinds: []string{"account"}, Types: []string{"unknown"}},
		{Kinds: []string{"unknown"}, Types: []string{"opened"}},
	} {
		for _, after := range []es.Position{0, 1, 50, 119} {
			var want []es.Position
			for _, r := range all {
				if r.Position > after && filter.Match(r) {
					want = append(want, r.Position)
				}
			}
			var got []es.Position
			for _, r := range t.collect(l.All(t.ctx, after, filter)) {
				got = append(got, r.Position)
			}
			t.equal(fmt.Sprintf("positions after %d that match the filter %s", after, filter), got, want)
		}
	}
}

func filtersCompareBytes(t *trial) {
	l := t.log()
	var call []es.Append
	for i, name := range oddNames() {
		call = append(call, es.Append{Stream: es.Stream{Kind: name, ID: fmt.Sprint(i)}, Expected: es.AnyVersion, Events: []es.Record{{Type: name}}})
	}
	t.append(l, call...)
	for i, name := range oddNames() {
		for _, filter := range []es.Filter{{Kinds: []string{name}}, {Types: []string{name}}, {Kinds: []string{name}, Types: []string{name}}} {
			got := t.collect(l.All(t.ctx, 0, filter))
			if len(got) != 1 || got[0].Stream.ID != fmt.Sprint(i) {
				t.Errorf("All with the filter %s returned %d records, want the one with that name", filter, len(got))
			}
		}
	}
	if n := len(t.collect(l.All(t.ctx, 0, es.Filter{Kinds: oddNames()}))); n != len(oddNames()) {
		t.Errorf("All with a filter of %d kinds returned %d records, want all", len(oddNames()), n)
	}
	for _, name := range []string{"\x00", "a\x00", "\xff"} {
		for _, filter := range []es.Filter{{Kinds: []string{name}}, {Types: []string{name}}} {
			if n := len(t.collect(l.All(t.ctx, 0, filter))); n > 0 {
				t.Errorf("All with the filter %s returned %d records, want none", filter, n)
			}
		}
	}
}

func longLog(t *trial) {
	l := t.log()
	rare, common := es.Record{Type: "rare"}, es.Record{Type: "common"}
	for n := 0; n < t.many; n += 1000 {
		var call []es.Append
		for i := n; i < min(n+1000, t.many); i++ {
			e := common
			if i == t.many/3 || i == t.many-1 {
				e = rare
			}
			call = append(call, es.Append{Stream: stream(fmt.Sprint(i % 701)), Expected: es.AnyVersion, Events: []es.Record{e}})
		}
		t.append(l, call...)
	}
	for _, after := range []int{0, 1, t.many/2 - 1, t.many - 1} {
		next := after + 1
		for r, err := range l.All(t.ctx, es.Position(after), es.Filter{}) {
			if err != nil {
				t.Fatalf("All returned %v", err)
			}
			if want := stream(fmt.Sprint((next - 1) % 701)); r.Position != es.Position(next) || r.Stream != want {
				t.Fatalf("record %d after position %d is %s at position %d, want one of %s at %d", next-after, after, r.ID(), r.Position, want, next)
			}
			next++
		}
		if next != t.many+1 {
			t.Fatalf("All after %d ended at position %d, want %d", after, next-1, t.many)
		}
	}
	got := positions(t.collect(l.All(t.ctx, 0, es.Filter{Types: []string{"rare"}})))
	t.equal("positions of the rare events", got, []es.Position{es.Position(t.many/3 + 1), es.Position(t.many)})
}
