package xes_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es/examples/loans/xes"
)

const small = `<?xml version="1.0" encoding="UTF-8" ?>
<log xes.version="1.0" xmlns="http://www.xes-standard.org/">
	<extension name="Concept" prefix="concept" uri="http://www.xes-standard.org/concept.xesext"/>
	<global scope="trace"><string key="concept:name" value="UNKNOWN"/><int key="amount" value="0"/></global>
	<global scope="event"><string key="lifecycle:transition" value="COMPLETE"/></global>
	<classifier name="c" keys="concept:name"/>
	<string key="author" value="an author"/>
	<trace>
		<string key="concept:name" value="a &amp; b"><string key="amount" value="nested, so not of the trace"/></string>
		<event>
			<date key="time:timestamp" value="2011-10-01T00:38:44.546+02:00"/>
			<string key="lifecycle:transition" value="START"/>
		</event>
		<event><list key="l"><values><string key="concept:name" value="in a list"/></values></list></event>
		<int key="amount" value="7"/>
	</trace>
	<trace/>
</log>
`

func collect(r io.Reader) (traces []xes.Trace, err error) {
	for t, e := range xes.Read(r) {
		switch {
		case err != nil:
			return traces, errors.New("something comes after the error")
		case e == nil:
			traces = append(traces, t)
		case !cmp.Equal(t, xes.Trace{}):
			return traces, errors.New("a trace comes with the error")
		}
		err = e
	}
	return traces, err
}

func pack(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadReturnsWhatTheFileSays(t *testing.T) {
	want := []xes.Trace{
		{
			Line:       8,
			Attributes: xes.Attributes{{"string", "concept:name", "a & b"}, {"int", "amount", "7"}},
			Events: []xes.Event{
				{Line: 10, Attributes: xes.Attributes{{"date", "time:timestamp", "2011-10-01T00:38:44.546+02:00"}, {"string", "lifecycle:transition", "START"}}},
				{Line: 14, Attributes: xes.Attributes{{"list", "l", ""}, {"string", "lifecycle:transition", "COMPLETE"}}},
			},
		},
		{Line: 17, Attributes: xes.Attributes{{"string", "concept:name", "UNKNOWN"}, {"int", "amount", "0"}}},
	}
	for name, file := range map[string][]byte{
		"plain":                  []byte(small),
		"packed":                 pack(t, small),
		"packed in two parts":    slices.Concat(pack(t, small[:300]), pack(t, small[300:])),
		"with carriage returns":  []byte(strings.ReplaceAll(small, "\n", "\r\n")),
		"with a byte order mark": []byte("\ufeff" + small),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := collect(bytes.NewReader(file))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestValueTellsWhetherThereIsOne(t *testing.T) {
	a := xes.Attributes{{"string", "empty", ""}}
	if value, found := a.Value("empty"); value != "" || !found {
		t.Errorf("empty: %q, %v", value, found)
	}
	if _, found := a.Value("missing"); found {
		t.Error("a key that is not there was found")
	}
}

func TestReadStopsWithTheCaller(t *testing.T) {
	n := 0
	for _, err := range xes.Read(strings.NewReader(small)) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d traces after a break at the first", n)
	}
}

func TestReadSaysWhereAFileIsBroken(t *testing.T) {
	edit := func(old, now string) string {
		if !strings.Contains(small, old) {
			t.Fatalf("there is no %q to replace", old)
		}
		return strings.Replace(small, old, now, 1)
	}
	for _, c := range []struct {
		name   string
		file   string
		traces int
		line   int
		want   string
	}{
		{"an empty file", "", 0, 1, "not XES"},
		{"another kind of file", "case,activity\n1,A\n", 0, 1, "not XES"},
		{"another kind of XML", "\n<html></html>", 0, 2, "not XES"},
		{"cut off within an event", upTo("<list"), 0, 14, "cut off"},
		{"cut off between traces", upTo("<trace/>"), 1, 17, "cut off"},
		{"cut off within a tag", upTo("</log>") + "</l", 2, 18, "cut off"},
		{"an element closed by another", edit("</event>", "</trace>"), 0, 13, "closed by"},
		{"the < of an attribute lost", edit("<int key=\"amount\" value=\"7\"/>", "int key=\"amount\" value=\"7\"/>"), 0, 16, "text before this, within <trace>"},
		{"an attribute of no known type", edit("<int key=\"amount\" value=\"7\"/>", "<number key=\"amount\" value=\"7\"/>"), 0, 15, "<number> has no place within <trace>"},
		{"an attribute without a key", edit("key=\"l\"", ""), 0, 14, "<list> within <event> has no key"},
		{"an attribute given twice", edit("<list key=\"l\">", "<int key=\"l\" value=\"1\"/><list key=\"l\">"), 0, 14, `two values of "l"`},
		{"an event outside a trace", edit("<trace/>", "<event/>"), 1, 17, "<event> has no place within <log>"},
		{"globals of nothing known", edit("scope=\"event\"", "scope=\"log\""), 0, 5, `scope "log"`},
		{"text after the log", small + "more", 2, 19, "text"},
		{"two logs in one file", small + "<log/>", 2, 19, "more than one log"},
		{"an entity that is not declared", edit("&amp;", "&euro;"), 0, 9, "entity"},
		{"bytes that are not UTF-8", edit("an author", "\xff"), 0, 7, "UTF-8"},
		{"another encoding", edit("UTF-8", "ISO-8859-1"), 0, 1, "convert it to UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, file := range [][]byte{[]byte(c.file), pack(t, c.file)} {
				traces, err := collect(bytes.NewReader(file))
				var broken *xes.Error
				if !errors.As(err, &broken) || broken.Line != c.line || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want one of line %d with %q", err, c.line, c.want)
				}
				if len(traces) != c.traces {
					t.Errorf("%d traces before the error, want %d", len(traces), c.traces)
				}
			}
		})
	}
}

func TestReadSaysWhereAPackedFileIsBroken(t *testing.T) {
	text := upTo("</log>") + strings.Repeat("\t<trace/>\n", 50_000) + "</log>\n"
	packed := pack(t, text)
	flipped := bytes.Clone(packed)
	flipped[len(flipped)-5] ^= 1 // in the checksum
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"cut off in the middle", packed[:len(packed)/2], "cut off"},
		{"cut off in the checksum", packed[:len(packed)-3], "cut off"},
		{"cut off in the header", packed[:5], "cut off"},
		{"with a wrong checksum", flipped, "damaged"},
		{"with something behind it", append(bytes.Clone(packed), "and more than a header"...), "damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			traces, err := collect(bytes.NewReader(c.file))
			var broken *xes.Error
			if !errors.As(err, &broken) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			// Each trace has a line of its own from line 17 on, so the line tells how many traces came before it.
			if last := 16 + len(traces) - 1; len(traces) > 0 && (broken.Line < last || broken.Line > last+3) {
				t.Errorf("line %d after %d traces", broken.Line, len(traces))
			}
		})
	}
}

var errDisk = errors.New("the disk is gone")

func TestReadPassesOnTheErrorOfTheReader(t *testing.T) {
	_, err := collect(io.MultiReader(strings.NewReader(small[:400]), badDisk{}))
	if !errors.Is(err, errDisk) {
		t.Errorf("error %v, want that of the reader", err)
	}
}

type badDisk struct{}

func (badDisk) Read([]byte) (int, error) { return 0, errDisk }

// upTo returns the small file up to some text in it.
func upTo(text string) string {
	before, _, _ := strings.Cut(small, text)
	return before
}
