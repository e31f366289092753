package conformance

import (
	"bytes"
	"maps"
	"slices"

	"github.com/thalo-go/es"
)

// ownershipClauses test that stores and callers share no memory.
func ownershipClauses() []clause {
	return []clause{
		{"Append does not retain its arguments",
			"The caller may reuse its slices and maps after Append returns. A store that retains them has its history overwritten when the caller reuses a buffer.",
			keepsNoMemory},
		{"Append does not modify its arguments",
			"A Repo appends the same events again after a conflict. If the store modifies them, or the memory after a slice's end, the second attempt writes something else.",
			changesNoMemory},
		{"records that were read may be kept and modified",
			"The caller may keep a record after the loop continues and may change its data and metadata. A store that returns its own memory or reuses a buffer lets one reader change what another reads.",
			recordsAreTheCallers},
	}
}

func keepsNoMemory(t *trial) {
	s := t.store()
	a := stream("a")
	const want, overwritten = "as it was", "OVERWRITE"
	e := event(want)
	e.Meta = map[string]string{"key": want}
	records := []es.Record{e, event(want)}
	call := []es.Append{{Stream: a, Expected: 0, Events: records, Command: "pay"}}
	t.append(s, call...)

	copy(e.Data, overwritten)
	copy(records[1].Data, overwritten)
	e.Meta["key"], e.Meta["more"] = overwritten, overwritten
	records[0], records[1] = event(overwritten), event(overwritten)
	call[0] = es.Append{Stream: stream("overwritten"), Command: "overwritten"}

	got := t.read(s, a)
	t.equal("data, after the caller reused its memory", data(got), []string{want, want})
	t.equal("metadata, after the caller reused its memory", got[0].Meta, map[string]string{"key": want})
}

func changesNoMemory(t *trial) {
	s := t.store()
	t.append(s, add(stream("a"), 3))
	spare := make([]es.Record, 4)
	buffer := []byte("a buffer with more after the data")
	spare[0] = es.Record{Type: "happened", Data: buffer[:8], Meta: map[string]string{}}
	spare[1] = es.Record{Stream: stream("b"), Version: 9, Position: 9, Type: "happened", Data: []byte("1"), Meta: map[string]string{"key": "value"}}
	calls := make([]es.Append, 4)
	calls[0] = es.Append{Stream: stream("a"), Expected: 3, Events: spare[:2]}
	calls[1] = es.Append{Stream: stream("a"), Expected: 0, Events: spare[1:2], Command: "pay"}

	spareBefore, callsBefore, bufferBefore := slices.Clone(spare), slices.Clone(calls), bytes.Clone(buffer)
	for i := range spareBefore {
		spareBefore[i].Data, spareBefore[i].Meta = bytes.Clone(spare[i].Data), maps.Clone(spare[i].Meta)
	}
	for i := range callsBefore {
		callsBefore[i].Events = slices.Clone(calls[i].Events)
	}
	_ = t.refuse(s, calls[1:2]...)
	t.append(s, calls[:1]...)

	t.equal("the caller's records", spare, spareBefore)
	t.equal("the caller's appends", calls, callsBefore)
	t.equal("the caller's buffer", buffer, bufferBefore)
}

func recordsAreTheCallers(t *trial) {
	s := t.store()
	a := stream("a")
	e := event("first")
	e.Meta = map[string]string{"key": "value"}
	t.append(s, es.Append{Stream: a, Expected: 0, Events: []es.Record{e, event("second"), event("third")}})
	want := []string{"first", "second", "third"}

	first := t.read(s, a)
	t.equal("data of records kept while the loop continued", data(first), want)
	for i := range first {
		copy(first[i].Data, "CHANGE")
	}
	first[0].Meta["key"], first[0].Meta["more"] = "CHANGE", "CHANGE"
	_ = append(first[0].Data, "CHANGE"...)

	second := t.read(s, a)
	t.equal("data, read again after a reader changed its copy", data(second), want)
	t.equal("metadata, read again after a reader changed its copy", second[0].Meta, map[string]string{"key": "value"})
	for i := range second {
		_ = append(second[i].Data, "CHANGE"...)
	}
	t.equal("data, after a reader appended to the data of the record before it", data(second), want)
}
