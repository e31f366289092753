package es_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
)

// gobCodec stores events by encoding/gob, which is a binary format.
func gobCodec(events map[string]basketEvent) *es.Codec[basketEvent] {
	marshal := func(v any) ([]byte, error) {
		var b bytes.Buffer
		err := gob.NewEncoder(&b).Encode(v)
		return b.Bytes(), err
	}
	return es.NewCodec("application/x-gob", events, marshal, func(data []byte, v any) error { return gob.NewDecoder(bytes.NewReader(data)).Decode(v) })
}

func TestCodecOfAnotherFormat(t *testing.T) {
	codec := gobCodec(map[string]basketEvent{"picked": picked{}, "counted": &counted{}}).
		Rename("taken", "picked").
		Upcast("numbered", es.From(func(old struct{ N int }) basketEvent { return &counted{N: old.N} })).
		Upcast("renumbered", es.From(func(old *counted) basketEvent { return old })).
		Retire("printed")
	for _, event := range []basketEvent{picked{[]string{"a"}}, &counted{N: 1, Name: "x"}, &counted{}} {
		r, err := codec.Encode(event)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := codec.Decode(r); err != nil || cmp.Diff(event, got) != "" || codec.ContentType(r) != "application/x-gob" {
			t.Errorf("%#v is decoded to %#v, %v, content type %q", event, got, err, codec.ContentType(r))
		}
	}
	numbered, err := codec.Encode(&counted{N: 7})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"numbered", "renumbered"} {
		numbered.Type = name
		if got, err := codec.Decode(numbered); err != nil || cmp.Diff(basketEvent(&counted{N: 7}), got) != "" {
			t.Errorf("%s is decoded to %#v, %v", name, got, err)
		}
	}
	if _, err := codec.Decode(es.Record{Type: "printed"}); err != es.ErrRetired {
		t.Errorf("%v, want ErrRetired", err)
	}
	if _, err := codec.Encode((*counted)(nil)); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "counted: the event is a nil") {
		t.Errorf("Encode of a nil pointer: %v", err)
	}
	if codec.ContentType(es.Record{Type: "foreign"}) != "" {
		t.Error("a name that the codec does not read has a content type")
	}
}

func TestNewCodecRefuses(t *testing.T) {
	marshal := func(any) ([]byte, error) { return nil, nil }
	unmarshal := func([]byte, any) error { return nil }
	events := map[string]happening{"a": plain{}}
	old := func() *es.Codec[happening] {
		return es.JSON(map[string]happening{"old": other{}}).Rename("older", "old").Retire("gone")
	}
	made := func() *es.Codec[happening] { return es.NewCodec("x/y", events, marshal, unmarshal) }
	functions := es.CodecFunc(func(happening) (es.Record, error) { return es.Record{}, nil }, func(es.Record) (happening, error) { return nil, nil })
	for name, test := range map[string]struct {
		declare func()
		says    string
	}{
		"no content type":      {func() { es.NewCodec("", events, marshal, unmarshal) }, "needs a content type"},
		"no marshal":           {func() { es.NewCodec("x/y", events, nil, unmarshal) }, "marshal"},
		"no unmarshal":         {func() { es.NewCodec("x/y", events, marshal, nil) }, "unmarshal"},
		"two names for a type": {func() { es.NewCodec("x/y", map[string]happening{"a": plain{}, "b": plain{}}, marshal, unmarshal) }, "two names"},
		"nothing":              {func() { es.NewCodec("x/y", map[string]happening{"a": nil}, marshal, unmarshal) }, "no event"},

		"a Fallback of nil":                      {func() { made().Fallback(nil) }, "needs a codec"},
		"two Fallbacks":                          {func() { made().Fallback(old()).Fallback(old()) }, "once"},
		"a Fallback to itself":                   {func() { c := made(); c.Fallback(c) }, "itself"},
		"a Fallback in a circle":                 {func() { a, b := made(), old(); a.Fallback(b.Fallback(a)) }, "itself"},
		"a Fallback of functions":                {func() { functions.Fallback(old()) }, "CodecFunc"},
		"a Fallback with a name in both":         {func() { made().Fallback(es.JSON(events)) }, `"a" is in both`},
		"a Fallback with a retired name in both": {func() { made().Retire("gone").Fallback(old()) }, `"gone" is in both`},
		"a Fallback with an old name in both":    {func() { made().Rename("older", "a").Fallback(old()) }, `"older" is in both`},
		"a Fallback whose Fallback has a name": {func() {
			old().Fallback(es.JSON(map[string]happening{"b": plain{}}).Fallback(es.JSON(map[string]happening{"gone": plain{}})))
		}, `"gone" is in both`},
		"an Upcast of a name of the Fallback":      {func() { made().Fallback(old()).Upcast("old", es.From(func(plain) happening { return nil })) }, "twice"},
		"a Rename of a name of the Fallback":       {func() { made().Fallback(old()).Rename("gone", "a") }, "twice"},
		"a Retire of a name of the Fallback":       {func() { made().Fallback(old()).Retire("older") }, "twice"},
		"an Exact of a name that is not there":     {func() { made().Exact("b") }, `no event "b"`},
		"an Exact of a name of functions":          {func() { functions.Exact("b") }, `no event "b"`},
		"an Exact of a name that is only read":     {func() { made().Rename("b", "a").Exact("b") }, `no event "b"`},
		"a Fallback of functions is fine":          {func() { made().Fallback(functions) }, ""},
		"an Exact of functions is fine":            {func() { functions.Exact() }, ""},
		"a Fallback with other names is fine":      {func() { made().Fallback(old()).Retire("new") }, ""},
		"a Fallback before its owner is named too": {func() { made().Fallback(old().Fallback(es.JSON(map[string]happening{"oldest": tree{}}))) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if said := panicOf(test.declare); !strings.Contains(said, test.says) || (said == "") != (test.says == "") {
				t.Errorf("it panicked with %q, which does not say %q", said, test.says)
			}
		})
	}
}

// TestALogOfTwoFormats moves a log from JSON to a binary format, by way of a release that reads both and writes the old one.
func TestALogOfTwoFormats(t *testing.T) {
	older := func() *es.Codec[basketEvent] {
		return es.JSON(map[string]basketEvent{"picked": picked{}, "counted": counted{}}).
			Rename("taken", "picked").
			Upcast("numbered", es.From(func(n int) basketEvent { return counted{N: n} })).
			Retire("printed").
			Tag(func(e basketEvent) []string { return []string{fmt.Sprintf("type:%T", e)} })
	}
	newer := func() *es.Codec[basketEvent] {
		return gobCodec(map[string]basketEvent{"picked.gob": picked{}, "counted.gob": counted{}}).
			Rename("taken.gob", "picked.gob").
			Upcast("numbered.gob", es.From(func(old struct{ M int }) basketEvent { return counted{N: old.M} })).
			Retire("printed.gob")
	}
	log, stream := new(es.Mem), es.Stream{Kind: "basket", ID: "1"}
	put := func(typ string, data []byte) {
		t.Helper()
		if _, err := log.Append(t.Context(), es.Append{Stream: stream, Expected: es.AnyVersion, Events: []es.Record{{Type: typ, Data: data}}}); err != nil {
			t.Fatal(err)
		}
	}
	binary := func(v any) []byte {
		var b bytes.Buffer
		if err := gob.NewEncoder(&b).Encode(v); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	var want []basketEvent
	var names []string
	write := func(codec *es.Codec[basketEvent], event basketEvent, name string) {
		t.Helper()
		repo := es.NewRepo(log, "basket", baskets{}, codec)
		repo.Snapshots, repo.SnapshotEvery = log, 2
		want, names = append(want, event), append(names, name)
		result, err := repo.Execute(t.Context(), "1", []basketEvent{event})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(basket{want}, result.State); diff != "" {
			t.Errorf("the state after %s (-want +got):\n%s", name, diff)
		}
		if err := repo.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	put("taken", []byte(`{"Items":["a"]}`))
	put("printed", []byte("not JSON"))
	put("numbered", []byte(`3`))
	put("taken.gob", binary(picked{[]string{"b"}}))
	put("printed.gob", []byte("not gob"))
	put("numbered.gob", binary(struct{ M int }{4}))
	want = []basketEvent{picked{[]string{"a"}}, counted{N: 3}, picked{[]string{"b"}}, counted{N: 4}}

	write(older().Fallback(newer()), picked{[]string{"c"}}, "picked")        // reads both, writes the old one
	write(newer().Fallback(older()), picked{[]string{"d"}}, "picked.gob")    // reads both, writes the new one
	write(newer().Fallback(older()), counted{N: 5}, "counted.gob")           // on a snapshot of both
	write(older().Fallback(newer()), counted{N: 6, Name: "back"}, "counted") // back again

	codec := newer().Fallback(older())
	var got []string
	for r, err := range log.Read(t.Context(), stream, 6) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Type)
		isNew := strings.HasSuffix(r.Type, ".gob")
		if format := codec.ContentType(r); (format == "application/x-gob") != isNew || (format == "application/json") == isNew {
			t.Errorf("the content type of %s is %q", r.Type, format)
		}
		tags, err := codec.Tags(r)
		if err != nil || !slices.Equal(tags, r.Tags) || len(tags) != 1 {
			t.Errorf("%s has tags %q, by the codec %q, %v", r.Type, r.Tags, tags, err)
		}
	}
	if !slices.Equal(got, names) {
		t.Errorf("stored as %q, want %q", got, names)
	}
	var unknown *es.UnknownEventError
	if _, err := codec.Decode(es.Record{Type: "foreign"}); !errors.As(err, &unknown) || unknown.Type != "foreign" {
		t.Errorf("%v, want an UnknownEventError", err)
	}
	if _, err := older().Decode(es.Record{Type: "picked.gob", Data: binary(picked{})}); !errors.As(err, &unknown) {
		t.Errorf("a program without the new format gets %v, want an UnknownEventError", err)
	}
	if _, err := codec.Encode(noted{}); !errors.As(err, &unknown) {
		t.Errorf("Encode of an event of neither: %v", err)
	}
}

// TestExactEventsAreNotDecoded counts calls of unmarshal.
func TestExactEventsAreNotDecoded(t *testing.T) {
	decoded := 0
	functions := func() *es.Codec[basketEvent] {
		return es.CodecFunc(func(e basketEvent) (es.Record, error) { return es.Record{Type: "counted"}, nil },
			func(es.Record) (basketEvent, error) { decoded++; return counted{}, nil })
	}
	formed := func() *es.Codec[basketEvent] {
		return es.NewCodec("x/y", map[string]basketEvent{"counted": counted{}, "picked": picked{}}, func(any) ([]byte, error) { return nil, nil },
			func([]byte, any) error { decoded++; return nil })
	}
	for name, test := range map[string]struct {
		codec *es.Codec[basketEvent]
		want  int
	}{
		"no promise":                 {formed(), 1},
		"a promise about all":        {formed().Exact(), 0},
		"a promise about it":         {formed().Exact("counted"), 0},
		"a promise about another":    {formed().Exact("picked"), 1},
		"functions":                  {functions(), 1},
		"functions with the promise": {functions().Exact(), 0},
	} {
		t.Run(name, func(t *testing.T) {
			decoded = 0
			if _, err := es.NewRepo(new(es.Mem), "basket", baskets{}, test.codec).Execute(t.Context(), "1", []basketEvent{counted{}}); err != nil || decoded != test.want {
				t.Errorf("%d events were decoded, %v; want %d", decoded, err, test.want)
			}
		})
	}
}
