package shape_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/thalo-go/es/internal/shape"
	"github.com/thalo-go/es/sealed"
)

type (
	cents    int64
	currency string
	inner    struct{ A, B int64 }
	innerB   struct{ B int64 }
	chain    struct {
		N    int
		Next *chain
	}
	chain2 struct {
		N    int
		Next *chain2
		More string
	}
	chain3 struct {
		N    string
		Next *chain3
	}
	Base struct {
		Number int64
		Note   string
	}
	method struct{ S string }
	other  struct{ S string }
)

func (m method) MarshalText() ([]byte, error)  { return []byte(m.S), nil }
func (m *method) UnmarshalText(b []byte) error { m.S = string(b); return nil }
func (m other) MarshalText() ([]byte, error)   { return []byte(m.S), nil }
func (m *other) UnmarshalText(b []byte) error  { m.S = string(b); return nil }

// in makes a struct with a field F of a type, which stands for any change of that type.
func in[T any]() reflect.Type { return reflect.TypeFor[struct{ F T }]() }

// TestVerdicts is the table of changes.
func TestVerdicts(t *testing.T) {
	is := reflect.TypeOf
	for _, test := range []struct {
		name     string
		old, new reflect.Type
		says     string // "" if it is safe
	}{
		{"nothing", is(inner{}), is(inner{}), ""},
		{"a field is added", is(struct{ A int }{}), is(struct {
			A int
			B string
		}{}), ""},
		{"a field is removed", is(struct {
			A int
			B string
		}{}), is(struct{ A int }{}), "B is gone, and stored data loses it"},
		{"a field is renamed", is(struct{ Amount int }{}), is(struct{ Cents int }{}), "Amount is gone, and stored data loses it; if it is now Cents, tag that `json:\"Amount\"`"},
		{"a field is renamed and keeps its name in JSON", is(struct{ Amount int }{}), is(struct {
			Cents int `json:"Amount"`
		}{}), ""},
		{"only the case of a name changes", is(struct{ Amount int }{}), is(struct {
			Amount int `json:"amount"`
		}{}), "Amount is now amount: tag the field `json:\"Amount\"`"},
		{"a tag is added that changes the name", is(struct{ Amount int }{}), is(struct {
			Amount int `json:"sum"`
		}{}), "Amount is gone"},
		{"a field is hidden from JSON", is(struct{ A, B int }{}), is(struct {
			A int
			B int `json:"-"`
		}{}), "B is gone"},
		{"fields change places", is(struct {
			A int
			B string
		}{}), is(struct {
			B string
			A int
		}{}), ""},
		{"omitempty is added", in[int](), is(struct {
			F int `json:",omitempty"`
		}{}), ""},
		{"omitempty is removed", is(struct {
			F []int `json:",omitempty"`
		}{}), in[[]int](), ""},
		{"omitzero is added", in[time.Time](), is(struct {
			F time.Time `json:",omitzero"`
		}{}), ""},
		{"the option string is added", in[int64](), is(struct {
			F int64 `json:",string"`
		}{}), "F was integer from -9223372036854775808 to 9223372036854775807, is JSON in a string"},
		{"the option string is removed", is(struct {
			F int64 `json:",string"`
		}{}), in[int64](), "F was JSON in a string, is integer"},
		{"a quoted number becomes wider", is(struct {
			F int32 `json:",string"`
		}{}), is(struct {
			F int64 `json:",string"`
		}{}), ""},
		{"a quoted number becomes narrower", is(struct {
			F *int64 `json:",string"`
		}{}), is(struct {
			F *int32 `json:",string"`
		}{}), "F was integer"},

		{"a number becomes wider", in[int32](), in[int64](), ""},
		{"a number becomes narrower", in[int64](), in[int32](), "F was integer from -9223372036854775808"},
		{"a signed number becomes unsigned", in[int32](), in[uint64](), "F was integer from -2147483648"},
		{"an unsigned number becomes signed and wider", in[uint32](), in[int64](), ""},
		{"an unsigned number becomes signed", in[uint64](), in[int64](), "F was integer from 0 to 18446744073709551615"},
		{"a small whole number becomes a fraction", in[int32](), in[float64](), ""},
		{"a large whole number becomes a fraction", in[int64](), in[float64](), "F was integer"},
		{"a small whole number becomes a small fraction", in[int32](), in[float32](), "F was integer"},
		{"a fraction becomes a whole number", in[float64](), in[int64](), "F was number (double), is integer"},
		{"a fraction becomes wider", in[float32](), in[float64](), ""},
		{"a fraction becomes narrower", in[float64](), in[float32](), "F was number (double), is number (float)"},
		{"a whole number becomes a json.Number", in[int64](), in[json.Number](), ""},
		{"a fraction becomes a json.Number", in[float64](), in[json.Number](), ""},
		{"a json.Number becomes a fraction", in[json.Number](), in[float64](), "F was number (decimal)"},
		{"a number becomes text", in[int64](), in[string](), "F was integer from -9223372036854775808 to 9223372036854775807, is string"},
		{"text becomes a number", in[string](), in[int64](), "F was string, is integer"},
		{"a bool becomes a number", in[bool](), in[int](), "F was boolean"},
		{"a number gets a type of its own", in[int64](), in[cents](), ""},
		{"text becomes a type of its own, as for an enumeration", in[string](), in[currency](), ""},
		{"a duration is a number", in[time.Duration](), in[int64](), ""},

		{"a value becomes a pointer", in[int](), in[*int](), ""},
		{"a pointer becomes a value", in[*int](), in[int](), "or null, is integer"},
		{"a pointer to a struct becomes a value", in[*inner](), in[inner](), "F was object or null, is object"},
		{"a struct becomes a pointer", in[inner](), in[*inner](), ""},
		{"a value becomes a list", in[int](), in[[]int](), "is array"},
		{"a list becomes a value", in[[]int](), in[int](), "was array"},
		{"a list becomes an array", in[[]int](), in[[3]int](), "F was array, is array of 3"},
		{"an array becomes a list", in[[3]int](), in[[]int](), ""},
		{"an array becomes longer", in[[2]int](), in[[3]int](), ""},
		{"an array becomes shorter", in[[3]int](), in[[2]int](), "F was array of 3, is array of 2"},
		{"an element becomes wider", in[[]int8](), in[[]int](), ""},
		{"an element changes its type", in[[]int](), in[[]string](), "F[] was integer"},
		{"bytes become text", in[[]byte](), in[string](), "F was bytes"},
		{"text becomes bytes", in[string](), in[[]byte](), "F was string, is bytes"},
		{"bytes become a list of numbers", in[[]byte](), in[[]int](), "F was bytes, is array"},
		{"a field of an element is removed", in[[]inner](), in[[]innerB](), "F[].A is gone"},

		{"a map gets wider values", in[map[string]int8](), in[map[string]int](), ""},
		{"a map gets other values", in[map[string]int](), in[map[string]bool](), "F[] was integer"},
		{"a field of a map's values is removed", in[map[string]inner](), in[map[string]*innerB](), "F[].A is gone"},
		{"keys become text", in[map[int]int](), in[map[string]int](), ""},
		{"keys become numbers", in[map[string]int](), in[map[int]int](), "F has other keys"},
		{"keys become narrower", in[map[int]int](), in[map[int8]int](), "F has other keys"},
		{"a struct becomes a map", in[inner](), in[map[string]int64](), "is map"},
		{"a map becomes a struct", in[map[string]int64](), in[inner](), "was map"},

		{"a time becomes text", in[time.Time](), in[string](), ""},
		{"text becomes a time", in[string](), in[time.Time](), "F was string, is time"},
		{"a time becomes a number", in[time.Time](), in[int64](), "F was time"},
		{"anything becomes a type", in[any](), in[string](), "F was any"},
		{"a type becomes anything", in[int64](), in[any](), "is any"},
		{"anything stays anything", in[any](), in[any](), ""},
		{"an encoded text becomes text", in[method](), in[string](), ""},
		{"text becomes an encoded text", in[string](), in[method](), "F was string, is text"},
		{"a method is of another type, so the sample must tell", in[method](), in[other](), ""},

		{"fields are moved into an embedded struct", is(struct {
			Number int64
			Note   string
			Owner  string
		}{}), is(struct {
			Base
			Owner string
		}{}), ""},
		{"an embedded struct gets a name", is(struct{ Base }{}), is(struct {
			Base Base `json:"base"`
		}{}), "Number is gone"},
		{"an embedded struct becomes a pointer", is(struct{ Base }{}), is(struct{ *Base }{}), ""},
		{"a field of a field is removed", in[inner](), in[innerB](), "F.A is gone"},
		{"a type is renamed", in[inner](), in[struct{ A, B int64 }](), ""},

		{"a sealed value stays", in[sealed.Value[inner]](), in[*sealed.Value[struct{ A, B, C int64 }]](), ""},
		{"a sealed value is of another type", in[sealed.Value[string]](), in[sealed.Value[int64]](), "F (sealed) was string, is integer"},
		{"a sealed value loses a field", in[sealed.Value[inner]](), in[sealed.Value[innerB]](), "F (sealed).A is gone"},
		{"text becomes a sealed value", in[string](), in[sealed.Value[string]](), "F was string, is object"},
		{"a type within itself", is(chain{}), is(chain{}), ""},
		{"a type within itself gets a field", is(chain{}), is(chain2{}), ""},
		{"a type within itself loses a field", is(chain2{}), is(chain{}), "More is gone"},
		{"a field of a type within itself changes", in[chain](), in[chain3](), "F.N was integer"},
		{"an event that is a number becomes wider", is(int32(0)), is(int64(0)), ""},
		{"an event that is a number becomes text", is(int32(0)), is(""), "the event was integer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			breaks := shape.Breaks(normal(t, test.old), normal(t, test.new))
			if said := strings.Join(breaks, "; "); !strings.Contains(said, test.says) || (said == "") != (test.says == "") {
				t.Errorf("the verdict is %q, want %q", said, test.says)
			}
			if len(breaks) > 0 {
				return
			}
			data, err := json.Marshal(shape.Sample(test.old).Interface())
			if err != nil {
				t.Fatal(err)
			}
			if lost := lostBy(t, data, test.new); lost != "" {
				t.Errorf("it is safe, but %s loses %s", data, lost)
			}
		})
	}
}

type fatal interface {
	Helper()
	Fatal(args ...any)
}

func normal(t fatal, of reflect.Type) shape.Schema {
	t.Helper()
	s, err := shape.Normal(shape.Of(of))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// lostBy decodes data into a type, encodes it again, and returns what is lost.
func lostBy(t fatal, data []byte, typ reflect.Type) string {
	t.Helper()
	v := reflect.New(typ)
	if err := json.Unmarshal(data, v.Interface()); err != nil {
		return err.Error()
	}
	again, err := json.Marshal(v.Interface())
	if err != nil {
		return err.Error()
	}
	want, err := shape.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := shape.Decode(again)
	if err != nil {
		t.Fatal(err)
	}
	return shape.Lost(want, got)
}

var scalars = []reflect.Type{
	reflect.TypeFor[bool](), reflect.TypeFor[string](), reflect.TypeFor[currency](),
	reflect.TypeFor[int8](), reflect.TypeFor[int32](), reflect.TypeFor[int64](), reflect.TypeFor[int](),
	reflect.TypeFor[uint8](), reflect.TypeFor[uint32](), reflect.TypeFor[uint64](),
	reflect.TypeFor[float32](), reflect.TypeFor[float64](), reflect.TypeFor[json.Number](), reflect.TypeFor[time.Time](), reflect.TypeFor[[]byte](),
	reflect.TypeFor[any](),
}

// pointerTo returns the type of pointers to a type, unless that can be nil itself: a pointer to nil is not told from nil in JSON.
func pointerTo(t reflect.Type) reflect.Type {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		return t
	}
	return reflect.PointerTo(t)
}

// typ draws a type.
func typ(t *rapid.T, depth int) reflect.Type {
	kind := rapid.IntRange(0, 8).Draw(t, "kind")
	if depth == 0 {
		kind = 0
	}
	switch kind {
	case 1:
		return pointerTo(typ(t, depth-1))
	case 2:
		return reflect.SliceOf(typ(t, depth-1))
	case 3:
		return reflect.ArrayOf(rapid.IntRange(0, 3).Draw(t, "length"), typ(t, depth-1))
	case 4:
		return reflect.MapOf(rapid.SampledFrom([]reflect.Type{reflect.TypeFor[string](), reflect.TypeFor[int8](), reflect.TypeFor[int64](), reflect.TypeFor[uint16]()}).Draw(t, "key"), typ(t, depth-1))
	case 5, 6:
		return structure(t, depth-1)
	}
	return rapid.SampledFrom(scalars).Draw(t, "scalar")
}

func structure(t *rapid.T, depth int) reflect.Type {
	var fields []reflect.StructField
	names := make(map[string]bool)
	for i := range rapid.IntRange(1, 4).Draw(t, "fields") {
		name := rapid.SampledFrom([]string{"A", "a", "B", "Ab", "ab", "AB", "C"}).Draw(t, "name")
		if names[name] {
			continue
		}
		names[name] = true
		option := rapid.SampledFrom([]string{"", "", ",omitempty", ",string"}).Draw(t, "option")
		fields = append(fields, reflect.StructField{Name: fmt.Sprint("F", i), Type: typ(t, depth), Tag: reflect.StructTag(fmt.Sprintf("json:%q", name+option))})
	}
	return reflect.StructOf(fields)
}

// changed draws a type that is like another one, apart from a change or two.
func changed(t *rapid.T, old reflect.Type, depth int) reflect.Type {
	switch change := rapid.IntRange(0, 11).Draw(t, "change"); {
	case change == 0:
		return typ(t, 1)
	case change == 1:
		return pointerTo(old)
	case change == 2 && old.Kind() == reflect.Pointer:
		return old.Elem()
	case change == 3 && old.Kind() == reflect.Array:
		return reflect.SliceOf(old.Elem())
	case change < 4:
		return rapid.SampledFrom(scalars).Draw(t, "scalar")
	}
	switch old.Kind() {
	case reflect.Pointer:
		return pointerTo(changed(t, old.Elem(), depth-1))
	case reflect.Slice:
		return reflect.SliceOf(changed(t, old.Elem(), depth-1))
	case reflect.Array:
		return reflect.ArrayOf(max(0, old.Len()+rapid.IntRange(-1, 1).Draw(t, "longer")), changed(t, old.Elem(), depth-1))
	case reflect.Map:
		key := rapid.SampledFrom([]reflect.Type{old.Key(), old.Key(), reflect.TypeFor[string](), reflect.TypeFor[int64]()}).Draw(t, "key")
		return reflect.MapOf(key, changed(t, old.Elem(), depth-1))
	case reflect.Struct:
		if old.Name() != "" {
			return old
		}
		var fields []reflect.StructField
		names := make(map[string]bool)
		for i := range old.NumField() {
			f := old.Field(i)
			tag, option, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch rapid.IntRange(0, 12).Draw(t, "field") {
			case 0:
				continue // removed
			case 1:
				tag = rapid.SampledFrom([]string{"A", "a", "D"}).Draw(t, "name")
			case 2:
				option = rapid.SampledFrom([]string{"", "omitempty", "string"}).Draw(t, "option")
			case 3, 4:
				f.Type = changed(t, f.Type, depth-1)
			}
			if !names[tag] {
				names[tag] = true
				fields = append(fields, reflect.StructField{Name: fmt.Sprint("G", i), Type: f.Type, Tag: reflect.StructTag(fmt.Sprintf("json:%q", tag+","+option))})
			}
		}
		if name := rapid.SampledFrom([]string{"", "N", "b", "ab"}).Draw(t, "new"); name != "" && !names[name] {
			fields = append(fields, reflect.StructField{Name: "New", Type: typ(t, 1), Tag: reflect.StructTag(fmt.Sprintf("json:%q", name))})
		}
		return reflect.StructOf(fields)
	}
	return old
}

// random fills a value.
func random(t *rapid.T, v reflect.Value, depth int) {
	switch {
	case v.Type() == reflect.TypeFor[json.Number]():
		v.SetString(rapid.SampledFrom([]string{"0", "7", "-1.5", "12345678901234567890123.5", "1e400"}).Draw(t, "number"))
		return
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "time"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.String:
		v.SetString(rapid.SampledFrom([]string{"", "x", "12", "2026-01-02T03:04:05Z", "ü"}).Draw(t, "text"))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "int") >> (64 - v.Type().Bits()))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(rapid.Uint64().Draw(t, "uint") >> (64 - v.Type().Bits()))
	case reflect.Float32:
		v.SetFloat(float64(rapid.Float32().Draw(t, "float")))
	case reflect.Float64:
		v.SetFloat(rapid.Float64().Draw(t, "float"))
	case reflect.Interface:
		v.Set(reflect.ValueOf(rapid.SampledFrom([]any{"x", 1.5, true, map[string]any{"A": "b"}}).Draw(t, "any")))
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "set") {
			v.Set(reflect.New(v.Type().Elem()))
			random(t, v.Elem(), depth-1)
		}
	case reflect.Slice:
		if rapid.Bool().Draw(t, "set") {
			v.Set(reflect.MakeSlice(v.Type(), rapid.IntRange(0, 2).Draw(t, "length"), 2))
		}
		for i := range v.Len() {
			random(t, v.Index(i), depth-1)
		}
	case reflect.Array:
		for i := range v.Len() {
			random(t, v.Index(i), depth-1)
		}
	case reflect.Map:
		if !rapid.Bool().Draw(t, "set") {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for range rapid.IntRange(0, 2).Draw(t, "length") {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			random(t, key, depth-1)
			random(t, value, depth-1)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			random(t, field, depth-1)
		}
	}
}

// TestSafeMeansThatOldDataDecodes changes random types at random and encodes random values of the old one.
func TestSafeMeansThatOldDataDecodes(t *testing.T) {
	verdicts := make(map[bool]int)
	rapid.Check(t, func(t *rapid.T) {
		old := structure(t, 3)
		now := changed(t, old, 3)
		safe := len(shape.Breaks(normal(t, old), normal(t, now))) == 0
		verdicts[safe]++
		if !safe {
			return
		}
		for range 3 {
			v := reflect.New(old).Elem()
			random(t, v, 3)
			data, err := json.Marshal(v.Interface())
			if err != nil {
				continue // 1e400 with the option string
			}
			if lost := lostBy(t, data, now); lost != "" {
				t.Fatalf("%v to %v is safe, but %s loses %s", old, now, data, lost)
			}
		}
	})
	if verdicts[true] == 0 || verdicts[false] == 0 {
		t.Errorf("verdicts by safety: %v: both must come about", verdicts)
	}
}

// TestSchemasAcceptWhatTheyDescribe validates random values of random types.
func TestSchemasAcceptWhatTheyDescribe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		of := structure(t, 3)
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		if err := c.AddResource("http://test/schema.json", normal(t, of)); err != nil {
			t.Fatal(err)
		}
		schema, err := c.Compile("http://test/schema.json")
		if err != nil {
			t.Fatal(err)
		}
		v := reflect.New(of).Elem()
		random(t, v, 3)
		data, err := json.Marshal(v.Interface())
		if err != nil {
			return // 1e400 with the option string
		}
		value, err := shape.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Fatalf("%v: %s: %v", of, data, err)
		}
	})
}

// TestSamplesSetEveryField looks at samples of types with methods.
func TestSamplesSetEveryField(t *testing.T) {
	type event struct {
		Base
		Big     *big.Int
		Address netip.Addr
		Text    method
		At      *time.Time
		Raw     json.RawMessage
		Maps    map[string][]inner
		Any     any
		Flag    bool   `json:",string"`
		Left    string `json:"-"`
	}
	data, err := json.Marshal(shape.Sample(reflect.TypeFor[event]()).Interface())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"Number":7,"Note":"text","Big":7,"Address":"127.0.0.1","Text":"7","At":"2026-01-02T03:04:05.000006Z","Raw":7,"Maps":{"text":[{"A":7,"B":7}]},"Any":"text","Flag":"true"}`
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Error(diff)
	}
}

func TestLost(t *testing.T) {
	for _, test := range []struct{ want, got, lost string }{
		{`{"a":1,"b":"x"}`, `{"b":"x","a":1.0,"c":2}`, ""},
		{`{"a":1}`, `{"A":1}`, "a = 1"},
		{`{"a":0,"b":null,"c":[],"d":{"e":""},"f":false}`, `{}`, ""},
		{`{"a":0}`, `{"a":1}`, "a = 0"},
		{`{"a":[1,2]}`, `{"a":[1]}`, "a[1] = 2"},
		{`{"a":[{"b":1}]}`, `{"a":[{"b":2}]}`, "a[0].b = 1"},
		{`{"a":9007199254740993}`, `{"a":9007199254740992}`, "a = 9007199254740993"},
		{`{"a":"1"}`, `{"a":1}`, `a = "1"`},
		{`7`, `8`, "7"},
	} {
		want, err := shape.Decode([]byte(test.want))
		if err != nil {
			t.Fatal(err)
		}
		got, err := shape.Decode([]byte(test.got))
		if err != nil {
			t.Fatal(err)
		}
		if lost := shape.Lost(want, got); lost != test.lost {
			t.Errorf("%s without %s: %q is lost, want %q", test.want, test.got, lost, test.lost)
		}
	}
}
