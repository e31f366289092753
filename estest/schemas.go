package estest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/form"
	"github.com/thalo-go/es/internal/shape"
)

// The name is not update: many programs have a flag of that name for their own tests, and two of them panic.
var updateSchemas = flag.Bool("update-schemas", false, "have estest.TestSchemas write safe changes to its golden files")

// TestSchemas compares the events of a codec with a golden file of every shape that was ever stored. The file has each event's name, its JSON
// Schema, and a stored sample, and belongs in version control:
//
//	func TestSchemas(t *testing.T) { estest.TestSchemas(t, order.Codec, "testdata/events.json") }
//
// It fails if stored data could not be read completely any more: a field was removed, renamed or has another type, or a name is not read.
// It says what to do: keep the field, tag it with its stored name, or give the event a new name, and read the old one by Upcast or Rename.
// Each sample in the file must still be decoded, and, unless a function does so, without losing a part.
//
// New events and safe changes, such as an added field, fail too, until the file is written: go test -update-schemas, or -update if the test
// program has a flag of that name. Nothing is written if there is a change that is not safe. A file that was edited by hand is refused.
//
// Samples are made up. Give one for an event whose type has a method of its own that accepts only certain values.
//
// The type inside a sealed value is compared too, although the log has only its ciphertext.
//
// What a type makes of itself by MarshalJSON or another method is known from the sample alone. A codec of [es.CodecFunc] has no names to test.
func TestSchemas[E any](t testing.TB, codec *es.Codec[E], file string, samples ...E) {
	t.Helper()
	if len(codec.Names()) == 0 {
		t.Errorf("TestSchemas needs a codec with names, such as that of es.JSON")
		return
	}
	golden, err := shape.ReadFile(file)
	if err != nil {
		t.Errorf("%v", err)
		return
	}
	g := gate[E]{codec: codec, samples: samples}
	for _, name := range slices.Sorted(maps.Keys(golden.Events)) {
		g.check(name, golden.Events[name])
	}
	for _, name := range codec.Names() {
		g.add(name, golden)
	}
	for _, text := range g.breaks {
		t.Errorf("%s: %s", file, text)
	}
	if len(g.breaks) > 0 || len(g.safe) == 0 {
		return
	}
	if !updating() {
		t.Errorf("%s: %s: this is safe: go test -update-schemas writes it", file, strings.Join(g.safe, "; "))
		return
	}
	if err := golden.Write(file); err != nil {
		t.Errorf("%v", err)
	}
}

func updating() bool {
	if *updateSchemas {
		return true
	}
	f := flag.Lookup("update")
	return f != nil && f.Value.String() == "true"
}

// gate compares a codec with a golden file.
type gate[E any] struct {
	codec   *es.Codec[E]
	samples []E
	breaks  []string
	safe    []string // changes that may be written
}

func (g *gate[E]) broken(format string, args ...any) {
	g.breaks = append(g.breaks, fmt.Sprintf(format, args...))
}

// check checks that what is in the file under a name is still read.
func (g *gate[E]) check(name string, was *shape.Event) {
	t, of := g.codec.Form().Find(name)
	var now shape.Schema
	if t != nil {
		var err error
		if now, err = shape.Describe(t, of); err != nil {
			g.broken("%q: %v", name, err)
			return
		}
	}
	found := make(map[string]bool) // a change of several shapes is reported once
	for i, stored := range was.Shapes {
		if t != nil {
			if format := g.codec.ContentType(es.Record{Type: name}); format != stored.ContentType {
				g.broken("%q was stored as %s, and is read as %s: give the new format a new name, and read the old one by Fallback", name, stored.ContentType, format)
				return
			}
			for _, text := range shape.Breaks(stored.Schema, now) {
				if !found[text] {
					found[text] = true
					g.broken("%q: %s. Keep what is stored, or give the event a new name and add Upcast(%q, ...)", name, text, name)
				}
			}
		}
		if len(found) == 0 {
			g.decode(name, i, stored, t, of)
		}
	}
}

// decode decodes a stored sample and looks for parts that it loses.
func (g *gate[E]) decode(name string, i int, stored shape.Stored, t reflect.Type, of *form.Form) {
	r := es.Record{Stream: es.Stream{Kind: "estest", ID: "schemas"}, Version: es.Version(i + 1), Type: name, Data: bytes.Clone(stored.Bytes())}
	event, err := g.codec.Decode(r)
	var unknown *es.UnknownEventError
	switch {
	case errors.Is(err, es.ErrRetired):
		return
	case errors.As(err, &unknown):
		g.broken("%q is not read any more, and the log may have it: keep it, or add Rename(%q, %s), Upcast or Retire", name, name, g.like(stored.Schema))
		return
	case err != nil:
		g.broken("%q: the stored sample %.200s is not read: %v. Keep its form, or give the event a new name and add Upcast(%q, ...)", name, stored.Sample, err, name)
		return
	case t == nil || of.Schema != nil:
		return // a function has made another event of it, or the schema says all
	}
	again, err := g.render(event, of)
	if err != nil {
		g.broken("%q: the stored sample %.200s cannot be encoded again: %v", name, stored.Sample, err)
		return
	}
	want, err := shape.Decode(stored.Sample)
	if err != nil {
		return // the sum has shown that the file is as written
	}
	got, err := shape.Decode(again)
	if err != nil {
		g.broken("%q: %.200s is not JSON: %v", name, again, err)
		return
	}
	if lost := shape.Lost(want, got); lost != "" {
		g.broken("%q: %.200s loses %s of the stored sample. Keep its form, or give the event a new name and add Upcast(%q, ...)", name, again, lost, name)
	}
}

// like returns the name of an event that has the schema of another one, for a message.
func (g *gate[E]) like(was shape.Schema) string {
	for _, name := range g.codec.Names() {
		if now, err := shape.Describe(g.codec.Form().Types[name], g.codec.Form()); err == nil && reflect.DeepEqual(was, now) {
			return fmt.Sprintf("%q", name)
		}
	}
	return "..."
}

// render returns an event as JSON.
func (g *gate[E]) render(event E, of *form.Form) ([]byte, error) {
	if of != nil && of.JSON != nil {
		return of.JSON(event)
	}
	return json.Marshal(event)
}

// add adds an event that is written, if the file has no such shape of it.
func (g *gate[E]) add(name string, golden *shape.File) {
	f := g.codec.Form()
	t := f.Types[name]
	now, err := shape.Describe(t, f)
	if err != nil {
		g.broken("%q: %v", name, err)
		return
	}
	was := golden.Events[name]
	if was == nil {
		g.safe = append(g.safe, fmt.Sprintf("%q is new", name))
		was = new(shape.Event)
	} else {
		if reflect.DeepEqual(was.Shapes[len(was.Shapes)-1].Schema, now) {
			return
		}
		g.safe = append(g.safe, fmt.Sprintf("%q has changed", name))
	}
	stored, err := g.sample(t, f)
	if err != nil {
		g.broken("%q: no sample can be made up: %v: give one to TestSchemas", name, err)
		return
	}
	stored.Schema = now
	golden.Events[name] = &shape.Event{Shapes: append(slices.Clip(was.Shapes), stored)}
}

// sample encodes a sample of an event.
func (g *gate[E]) sample(t reflect.Type, f *form.Form) (s shape.Stored, err error) {
	event, found := g.given(t)
	if !found {
		var made any
		switch {
		case f.Sample != nil:
			made = f.Sample(t)
		case t.Kind() == reflect.Pointer:
			p := reflect.New(t.Elem())
			p.Elem().Set(shape.Sample(t.Elem()))
			made = p.Interface()
		default:
			made = shape.Sample(t).Interface()
		}
		event = made.(E)
	}
	r, err := g.codec.Encode(event)
	if err != nil {
		return s, err
	}
	if _, err := g.codec.Decode(r); err != nil {
		return s, err
	}
	s.ContentType = g.codec.ContentType(r)
	if s.ContentType == "application/json" {
		s.Sample = r.Data
		return s, nil
	}
	s.Data = r.Data
	s.Sample, err = g.render(event, f)
	return s, err
}

// given returns the sample that the test gives for a type.
func (g *gate[E]) given(t reflect.Type) (event E, found bool) {
	for _, event := range g.samples {
		if reflect.TypeOf(event) == t {
			return event, true
		}
	}
	return event, false
}
