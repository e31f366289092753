package conformance

import (
	"bytes"
	"maps"
	"slices"

	"github.com/thalo-go/es"
)

// memoryClauses are about who owns the bytes.
func memoryClauses() []clause {
	return []clause{
		{"Append does not retain its arguments",
			"The caller may use his slices and maps again once Append has returned. A store that kept them has its history rewritten by the next encoding into the same buffer.",
			keepsNoMemory},
		{"Append does not modify its arguments",
			"A Repo appends the same events again after a conflict, and goes on using them. Append reads them and writes nothing, neither versions into the records nor anything behind the end of a slice.",
			changesNoMemory},
		{"records that were read may be kept and modified",
			"The caller may keep a record after the loop has gone on, and may change its data and metadata. A store that hands out its own memory, or uses a buffer again, changes what others hold.",
			recordsAreTheCallers},
	}
}

func keepsNoMemory(t *trial) {
	s := t.store()
	a := stream("a")
	const want, spoilt = "as it was", "SPOILT!!!"
	e := event(want)
	e.Meta = map[string]string{"key": want}
	records := []es.Record{e, event(want)}
	call := []es.Append{{Stream: a, Expected: 0, Events: records, Command: "pay"}}
	t.append(s, call...)

	copy(e.Data, spoilt)
	copy(records[1].Data, spoilt)
	e.Meta["key"], e.Meta["more"] = spoilt, spoilt
	records[0], records[1] = event(spoilt), event(spoilt)
	call[0] = es.Append{Stream: stream("spoilt"), Command: "spoilt"}

	got := t.read(s, a)
	t.equal("data, after the caller used its memory again", data(got), []string{want, want})
	t.equal("metadata, after the caller used its memory again", got[0].Meta, map[string]string{"key": want})
}

func changesNoMemory(t *trial) {
	s := t.store()
	t.append(s, add(stream("a"), 3))
	room := make([]es.Record, 4)
	buffer := []byte("a buffer with more behind the data")
	room[0] = es.Record{Type: "happened", Data: buffer[:8], Meta: map[string]string{}}
	room[1] = es.Record{Stream: stream("b"), Version: 9, Position: 9, Type: "happened", Data: []byte("1"), Meta: map[string]string{"key": "value"}}
	calls := make([]es.Append, 4)
	calls[0] = es.Append{Stream: stream("a"), Expected: 3, Events: room[:2]}
	calls[1] = es.Append{Stream: stream("a"), Expected: 0, Events: room[1:2], Command: "pay"}

	roomBefore, callsBefore, bufferBefore := slices.Clone(room), slices.Clone(calls), bytes.Clone(buffer)
	for i := range roomBefore {
		roomBefore[i].Data, roomBefore[i].Meta = bytes.Clone(room[i].Data), maps.Clone(room[i].Meta)
	}
	for i := range callsBefore {
		callsBefore[i].Events = slices.Clone(calls[i].Events)
	}
	_ = t.refuse(s, calls[1:2]...)
	t.append(s, calls[:1]...)

	t.equal("the records of the caller", room, roomBefore)
	t.equal("the appends of the caller", calls, callsBefore)
	t.equal("the buffer of the caller", buffer, bufferBefore)
}

func recordsAreTheCallers(t *trial) {
	s := t.store()
	a := stream("a")
	e := event("first")
	e.Meta = map[string]string{"key": "value"}
	t.append(s, es.Append{Stream: a, Expected: 0, Events: []es.Record{e, event("second"), event("third")}})
	want := []string{"first", "second", "third"}

	first := t.read(s, a)
	t.equal("data of records kept while the loop went on", data(first), want)
	for i := range first {
		copy(first[i].Data, "SPOILT")
	}
	first[0].Meta["key"], first[0].Meta["more"] = "SPOILT", "SPOILT"
	_ = append(first[0].Data, "SPOILT"...)

	second := t.read(s, a)
	t.equal("data, read again after a reader changed his copy", data(second), want)
	t.equal("metadata, read again after a reader changed his copy", second[0].Meta, map[string]string{"key": "value"})
	for i := range second {
		_ = append(second[i].Data, "SPOILT"...)
	}
	t.equal("data, after a reader appended to that of the record before", data(second), want)
}
