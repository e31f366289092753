package conformance

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/thalo-go/es"
)

// contentClauses test that records are read as they were written.
func contentClauses() []clause {
	return []clause{
		{"record is read as it was written",
			"Stream, type, data and metadata are read as they were written, with the assigned version and position. Otherwise the state is built from other events than were decided.",
			recordAsWritten},
		{"stream names are kept byte by byte",
			"Names are equal only if their bytes are. A store that folds case, normalizes letters or trims spaces lets two customers share an account.",
			streamNamesAreBytes},
		{"event types are kept byte by byte",
			"The codec finds an event by its type. If the type changes, the event is unknown and its stream cannot be loaded.",
			typesAreBytes},
		{"data is kept byte by byte",
			"Data may be any bytes. A store that treats it as text or JSON corrupts what is signed, encrypted or binary.",
			dataIsBytes},
		{"metadata is kept unchanged",
			"Keys and values are any text without NUL bytes, including quotes, line breaks and empty strings. Correlation ids that change no longer correlate.",
			metaIsText},
		{"empty metadata is read as nil",
			"Records without metadata must be equal on every backend. Otherwise comparisons and snapshots of records differ between backends.",
			emptyMetaIsNil},
	}
}

// oddNames are names that differ only in ways that databases tend to ignore, or that are easily misread as something else.
// None contains a slash, so that all of them are valid kinds.
func oddNames() []string {
	return []string{
		"a", "A", "ä", "Ä", "a\u0308", "å", "Å", "A\u030a", "\u212b", "á", "à", // case, accents, composed and decomposed
		"ss", "SS", "ß", "ẞ", "ﬁ", "fi", "ı", "i", "I", "İ", "œ", "oe", "Σ", "σ", "ς", "Ａ", "①", "1", // folding, Turkish, ligatures, width
		" ", "  ", " a", "a ", "a  ", "a\t", "a\n", "\na", "a\r\n", "a\u00a0", "\u00a0a", "a\u200b", "a\u200d", "\ufeffa", "a\u00ad", // spaces seen and not seen
		"日本語", "Ελλάδα", "مرحبا", "\u202ea", "🏦", "👩‍👧", "👩", "\U0010ffff", "\ufffd", "\uffff", "\u2028", "\u007f", "\u0001", "\u0085",
		"'", "''", "\"", "`", "\\", "\\\\", "\\0", "\\n", "\\x00", "%", "%%", "%s", "_", "*", "?", "$1", ":1", "@a", "--", ";", "'; drop table events; --",
		"NULL", "null", "nil", "true", "0", "00", "0.0", "-0", "1e0", "-1", "{}", "[]", "{1,2}", "a,b", "a|b", "a:b", "a.b", "a#b", "a=b", ".", "..", "<a>", "&amp;", "%2f", "con", "~",
	}
}

func recordAsWritten(t *trial) {
	s := t.store()
	a := stream("a")
	want := []es.Record{
		{Stream: a, Version: 1, Position: 1, Type: "opened", Data: []byte(`{"owner": "Ann"}`), Meta: map[string]string{"correlation": "c", "user": "ann"}},
		{Stream: a, Version: 2, Position: 2, Type: "deposited", Data: []byte(`{"amount": 100}`)},
		{Stream: a, Version: 3, Position: 3, Type: "closed", Meta: map[string]string{"causation": "account/a/2"}},
	}
	t.append(s, es.Append{Stream: a, Expected: 0, Events: []es.Record{
		{Type: want[0].Type, Data: want[0].Data, Meta: want[0].Meta},
		{Type: want[1].Type, Data: want[1].Data},
		{Type: want[2].Type, Meta: want[2].Meta},
	}})
	got := t.read(s, a)
	for i := range got {
		got[i].Time = want[0].Time
		if len(got[i].Data) == 0 {
			got[i].Data = nil // nil and empty are the same
		}
	}
	t.equal("the records", got, want)
}

func streamNamesAreBytes(t *trial) {
	s := t.store()
	var streams []es.Stream
	for _, name := range oddNames() {
		streams = append(streams, es.Stream{Kind: "id", ID: name}, es.Stream{Kind: name, ID: "kind"})
	}
	for _, id := range []string{"/", "//", "a/", "/a", "a/b", "a//b", "a/b/", "id/a"} {
		streams = append(streams, es.Stream{Kind: "id", ID: id}, es.Stream{Kind: "id", ID: "/" + id})
	}
	streams = unique(streams)
	for i, stream := range streams {
		_, err := s.Append(t.ctx, es.Append{Stream: stream, Expected: 0, Events: []es.Record{event(fmt.Sprint(i))}})
		if err != nil {
			t.Errorf("the first append to %+q returned %v", stream, err)
		}
	}
	for i, stream := range streams {
		records := t.read(s, stream)
		if len(records) != 1 {
			t.Errorf("%+q has %d records, want 1", stream, len(records))
			continue
		}
		if r := records[0]; r.Stream != stream || string(r.Data) != fmt.Sprint(i) {
			t.Errorf("%+q was read as %+q with the data of stream %s, want %d", stream, r.Stream, r.Data, i)
		}
	}
}

func unique(streams []es.Stream) []es.Stream {
	seen := make(map[es.Stream]bool)
	var once []es.Stream
	for _, stream := range streams {
		if !seen[stream] {
			seen[stream] = true
			once = append(once, stream)
		}
	}
	return once
}

func typesAreBytes(t *trial) {
	s := t.store()
	want := append(oddNames(), "a/b", "/")
	var records []es.Record
	for _, name := range want {
		records = append(records, es.Record{Type: name})
	}
	t.append(s, es.Append{Stream: stream("a"), Expected: 0, Events: records})
	got := t.read(s, stream("a"))
	if len(got) != len(want) {
		t.Fatalf("%d of %d records were read", len(got), len(want))
	}
	for i := range want {
		if got[i].Type != want[i] {
			t.Errorf("type %+q was read as %+q", want[i], got[i].Type)
		}
	}
}

func dataIsBytes(t *trial) {
	s := t.store()
	every := pattern(256)
	want := [][]byte{
		nil, {}, {0}, {0, 0}, []byte("\x00a"), []byte("a\x00"), every, []byte("\xff\xfe\xfd"), []byte("\xc3\x28"), []byte(`\x00`), []byte("\\"), []byte("'"),
		[]byte("{ \"b\":1.0, \"a\" : 1e2,\"a\":\"\\u0000\"}\n"), []byte("null"), []byte(" "), []byte("\r\n"), []byte("\xef\xbb\xbfa"),
		pattern(1 << 20),
	}
	var records []es.Record
	for _, data := range want {
		records = append(records, es.Record{Type: "happened", Data: data})
	}
	t.append(s, es.Append{Stream: stream("a"), Expected: 0, Events: records})
	got := t.read(s, stream("a"))
	if len(got) != len(want) {
		t.Fatalf("%d of %d records were read", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i].Data, want[i]) {
			t.Errorf("%d bytes of data, %.60q, were read as %d, %.60q", len(want[i]), want[i], len(got[i].Data), got[i].Data)
		}
	}
}

func metaIsText(t *trial) {
	s := t.store()
	var control strings.Builder
	for r := rune(1); r < 0xa0; r++ {
		control.WriteRune(r)
	}
	want := []map[string]string{
		{"": ""},
		{"": "value of no key", "empty": ""},
		{"a": "1", "A": "2", " a": "3", "a ": "4", "ä": "5", "a\u0308": "6"},
		{"quotes": `"'` + "`" + `\`, `"quoted"`: "key", `back\slash`: `\"`, "escape": `\u0000 \n \x41`},
		{"lines": "one\ntwo\r\nthree\u2028four", "tab\t": "\t"},
		{"control": control.String(), control.String(): "control"},
		{"markup": "<a href='x'>&amp;</a>", "unicode": "日本語 🏦 \U0010ffff \ufffd \ufeff", "json": `{"a":[1,null]}`, "null": "null"},
		{"long": strings.Repeat("x", 8<<10)},
	}
	odd := make(map[string]string)
	for _, name := range oddNames() {
		odd[name] = name
	}
	want = append(want, odd)
	for i, meta := range want {
		e := event("1")
		e.Meta = meta
		stream := stream(fmt.Sprint(i))
		t.append(s, es.Append{Stream: stream, Expected: 0, Events: []es.Record{e}})
		records := t.read(s, stream)
		if len(records) != 1 {
			t.Fatalf("%d records were read, want 1", len(records))
		}
		t.equal("the metadata", records[0].Meta, meta)
	}
}

func emptyMetaIsNil(t *trial) {
	s := t.store()
	none, empty := event("none"), event("empty")
	empty.Meta = map[string]string{}
	t.append(s, es.Append{Stream: stream("a"), Expected: 0, Events: []es.Record{none, empty}})
	for _, r := range t.read(s, stream("a")) {
		if r.Meta != nil {
			t.Errorf("metadata that was %s was read as %#v, want nil", r.Data, r.Meta)
		}
	}
}

// pattern returns n bytes that cycle through all values.
func pattern(n int) []byte {
	bytes := make([]byte, n)
	for i := range bytes {
		bytes[i] = byte(i)
	}
	return bytes
}
