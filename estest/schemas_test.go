package estest_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/internal/test/recorder"
)

// The events of an order over the years. Each type is the same event in another release.
type (
	placed       struct{ Total int64 }
	placedRename struct{ Sum int64 }
	placedTagged struct {
		Sum int64 `json:"Total"`
	}
	placedMore struct {
		Total int64
		Note  string
	}
	placedText struct{ Total string }
	shipped    struct{ At time.Time }
)

// euros encodes itself, in a way that depends on the release.
type euros struct{ cents int64 }

var asText bool

func (e euros) MarshalJSON() ([]byte, error) {
	if asText {
		return json.Marshal(map[string]int64{"cents": e.cents})
	}
	return json.Marshal(e.cents)
}

func (e *euros) UnmarshalJSON(data []byte) error {
	if asText {
		var o struct{ Cents int64 }
		err := json.Unmarshal(data, &o)
		e.cents = o.Cents
		return err
	}
	return json.Unmarshal(data, &e.cents)
}

type paid struct{ Amount euros }

// strict accepts only one value.
type strict struct{ s string }

func (s strict) MarshalText() ([]byte, error) {
	if s.s != "good" {
		return nil, errors.New("not good")
	}
	return []byte(s.s), nil
}

func (s *strict) UnmarshalText(b []byte) error {
	if s.s = string(b); s.s != "good" {
		return errors.New("not good")
	}
	return nil
}

type guarded struct{ S strict }

func update(t *testing.T, is bool) {
	t.Helper()
	text := map[bool]string{true: "true", false: "false"}[is]
	if err := flag.Set("update-schemas", text); err != nil {
		t.Fatal(err)
	}
}

// release is a release of a program: its codec, and what its test says before and after its golden file is written.
type release struct {
	codec   *es.Codec[any]
	says    []string // nothing: the file is as it was
	refused bool     // also with -update-schemas
}

func jsonOf(events map[string]any) *es.Codec[any] { return es.JSON(events) }

// gobOf returns a codec of a binary format.
func gobOf(events map[string]any) *es.Codec[any] {
	return es.NewCodec("application/x-gob", events, func(v any) ([]byte, error) {
		var b bytes.Buffer
		err := gob.NewEncoder(&b).Encode(v)
		return b.Bytes(), err
	}, func(data []byte, v any) error { return gob.NewDecoder(bytes.NewReader(data)).Decode(v) })
}

// TestSchemasFollowAProgram has the releases of programs, one after the other, each with the file that the last one left.
func TestSchemasFollowAProgram(t *testing.T) {
	first := release{jsonOf(map[string]any{"placed": placed{}}), []string{`"placed" is new`, "this is safe: go test -update-schemas writes it"}, false}
	upcast := es.From(func(old placed) any { return placedText{"7"} })
	for name, releases := range map[string][]release{
		"nothing changes":  {first, {jsonOf(map[string]any{"placed": placed{}}), nil, false}},
		"an event is new":  {first, {jsonOf(map[string]any{"placed": placed{}, "shipped": shipped{}}), []string{`"shipped" is new`}, false}, {jsonOf(map[string]any{"placed": placed{}, "shipped": shipped{}}), nil, false}},
		"a field is added": {first, {jsonOf(map[string]any{"placed": placedMore{}}), []string{`"placed" has changed`, "safe"}, false}, {jsonOf(map[string]any{"placed": placedMore{}}), nil, false}},
		"a field is added and removed": {first, {jsonOf(map[string]any{"placed": placedMore{}}), []string{`"placed" has changed`}, false},
			{jsonOf(map[string]any{"placed": placed{}}), []string{`"placed": Note is gone, and stored data loses it`, `Upcast("placed", ...)`}, true}},
		"a field is renamed":                      {first, {jsonOf(map[string]any{"placed": placedRename{}}), []string{`"placed": Total is gone`, "if it is now Sum, tag that `json:\"Total\"`", `new name and add Upcast("placed", ...)`}, true}},
		"a field is renamed and keeps its name":   {first, {jsonOf(map[string]any{"placed": placedTagged{}}), nil, false}},
		"a field changes its type":                {first, {jsonOf(map[string]any{"placed": placedText{}}), []string{`"placed": Total was integer`, "is string"}, true}},
		"a new shape gets a new name":             {first, {jsonOf(map[string]any{"placed.v2": placedText{}}).Upcast("placed", upcast), []string{`"placed.v2" is new`}, false}, {jsonOf(map[string]any{"placed.v2": placedText{}}).Upcast("placed", upcast), nil, false}},
		"a new shape gets a new name by Rename":   {first, {jsonOf(map[string]any{"placed.v2": placedText{}}).Rename("placed", "placed.v2"), []string{`"placed": Total was integer`}, true}},
		"an upcast that fails":                    {first, {jsonOf(map[string]any{"placed.v2": placedText{}}).Upcast("placed", es.From(func(placedText) any { return nil })), []string{`"placed": the stored sample`, "is not read"}, true}},
		"an event gets another name":              {first, {jsonOf(map[string]any{"ordered": placed{}}), []string{`"placed" is not read any more`, `Rename("placed", "ordered")`}, true}},
		"an event gets another name by Rename":    {first, {jsonOf(map[string]any{"ordered": placed{}}).Rename("placed", "ordered"), []string{`"ordered" is new`}, false}, {jsonOf(map[string]any{"ordered": placedMore{}}).Rename("placed", "ordered"), []string{`"ordered" has changed`}, false}},
		"an event is retired":                     {first, {jsonOf(map[string]any{"shipped": shipped{}}).Retire("placed"), []string{`"shipped" is new`}, false}},
		"an event is removed":                     {first, {jsonOf(map[string]any{"shipped": shipped{}}), []string{`"placed" is not read any more`, "Retire"}, true}},
		"another format under the same name":      {first, {gobOf(map[string]any{"placed": placed{}}), []string{`"placed" was stored as application/json, and is read as application/x-gob`, "Fallback"}, true}},
		"another format under a new name":         {first, {gobOf(map[string]any{"placed.gob": placed{}}).Fallback(jsonOf(map[string]any{"placed": placed{}})), []string{`"placed.gob" is new`}, false}},
		"a change of what a Fallback reads":       {first, {gobOf(map[string]any{"placed.gob": placed{}}).Fallback(jsonOf(map[string]any{"placed": placedRename{}})), []string{`"placed": Total is gone`}, true}},
		"a field of a binary format is added":     {{gobOf(map[string]any{"placed": placed{}}), []string{"is new"}, false}, {gobOf(map[string]any{"placed": placedMore{}}), []string{"has changed"}, false}, {gobOf(map[string]any{"placed": placedMore{}}), nil, false}},
		"a field of a binary format is renamed":   {{gobOf(map[string]any{"placed": placed{}}), []string{"is new"}, false}, {gobOf(map[string]any{"placed": placedRename{}}), []string{"Total is gone"}, true}},
		"a codec without names":                   {{es.CodecFunc(func(any) (es.Record, error) { return es.Record{}, nil }, func(es.Record) (any, error) { return nil, nil }), []string{"needs a codec with names"}, true}},
		"an event of which no sample can be made": {{jsonOf(map[string]any{"guarded": guarded{}}), []string{`"guarded": no sample can be made up`, "give one to TestSchemas"}, true}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "testdata", "events.json")
			for _, r := range releases {
				before, _ := os.ReadFile(file) // none at first
				update(t, false)
				recorder.Fails(t, func(t testing.TB) { estest.TestSchemas(t, r.codec, file) }, r.says...)
				update(t, true)
				var says []string
				if r.refused {
					says = r.says
				}
				recorder.Fails(t, func(t testing.TB) { estest.TestSchemas(t, r.codec, file) }, says...)
				update(t, false)
				after, _ := os.ReadFile(file)
				if (r.refused || r.says == nil) && !bytes.Equal(before, after) {
					t.Errorf("the file was written although it was refused, or nothing has changed")
				}
				if !r.refused {
					recorder.Fails(t, func(t testing.TB) { estest.TestSchemas(t, r.codec, file) })
				}
			}
		})
	}
}

// TestSchemasWithAMethod changes what a type makes of itself, of which only the sample tells.
func TestSchemasWithAMethod(t *testing.T) {
	file := filepath.Join(t.TempDir(), "events.json")
	codec := jsonOf(map[string]any{"paid": paid{}})
	update(t, true)
	recorder.Fails(t, func(t testing.TB) { estest.TestSchemas(t, codec, file) })
	update(t, false)
	recorder.Fails(t, func(t testing.TB) { estest.TestSchemas(t, codec, file) })
	asText = true
	defer func() { asText = false }()
	recorder.Fails(t, func(t testing.TB) { estest.TestSchemas(t, codec, file) }, `"paid": the stored sample`, "is not read", `Upcast("paid", ...)`)
}

func TestSchemasWithAGivenSample(t *testing.T) {
	file := filepath.Join(t.TempDir(), "events.json")
	codec := jsonOf(map[string]any{"guarded": guarded{}})
	update(t, true)
	recorder.Fails(t, func(t testing.TB) { estest.TestSchemas(t, codec, file, any(guarded{strict{"good"}})) })
	update(t, false)
	recorder.Fails(t, func(t testing.TB) { estest.TestSchemas(t, codec, file) }) // the sample is in the file
	if data, err := os.ReadFile(file); err != nil || !strings.Contains(string(data), `"good"`) {
		t.Errorf("%s, %v: the sample is not in it", data, err)
	}
}

func TestAGoldenFileThatWasEditedIsRefused(t *testing.T) {
	codec := jsonOf(map[string]any{"placed": placed{}, "shipped": shipped{}})
	original := filepath.Join(t.TempDir(), "events.json")
	update(t, true)
	recorder.Fails(t, func(t testing.TB) { estest.TestSchemas(t, codec, original) })
	update(t, false)
	data, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	without := func(change func(events map[string]any)) []byte {
		t.Helper()
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		var parsed map[string]any
		if err := d.Decode(&parsed); err != nil {
			t.Fatal(err)
		}
		change(parsed["events"].(map[string]any))
		changed, err := json.Marshal(parsed)
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	for name, test := range map[string]struct {
		data []byte
		says string
	}{
		"a sample":        {bytes.Replace(data, []byte(`"Total": 7`), []byte(`"Total": 8`), 1), `edited by hand at "placed"`},
		"a schema":        {bytes.Replace(data, []byte(`"date-time"`), []byte(`"date"`), 1), `edited by hand at "shipped"`},
		"an event":        {without(func(events map[string]any) { delete(events, "placed") }), "an event was added, removed or renamed"},
		"a name":          {without(func(events map[string]any) { events["sent"] = events["shipped"]; delete(events, "shipped") }), "an event was added, removed or renamed"},
		"all shapes":      {without(func(events map[string]any) { events["placed"] = map[string]any{"shapes": []any{}, "sum": ""} }), `edited by hand at "placed"`},
		"nothing of it":   {without(func(events map[string]any) { events["placed"] = nil }), `edited by hand at "placed"`},
		"another field":   {bytes.Replace(data, []byte(`"about"`), []byte(`"note": 1, "about"`), 1), "edited by hand"},
		"a conflict":      {append([]byte("<<<<<<< HEAD\n"), data...), "edited by hand"},
		"another program": {[]byte(`{"events": []}`), "edited by hand"},
		"nothing":         {nil, "edited by hand"},
		"its layout only": {without(func(map[string]any) {}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if bytes.Equal(test.data, data) {
				t.Fatal("the file was not changed")
			}
			file := filepath.Join(t.TempDir(), "edited.json")
			if err := os.WriteFile(file, test.data, 0o600); err != nil {
				t.Fatal(err)
			}
			var says []string
			if test.says != "" {
				says = []string{"edited.json was", test.says}
			}
			for _, updating := range []bool{false, true} {
				update(t, updating)
				recorder.Fails(t, func(t testing.TB) { estest.TestSchemas(t, codec, file) }, says...)
			}
			update(t, false)
			if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, test.data) {
				t.Errorf("the file was written, %v", err)
			}
		})
	}
}
