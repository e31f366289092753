package es_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
)

// Events of each shape that a codec must handle.
type (
	happening any

	plain struct{ Cents int64 }
	other struct{ Owner string }

	hidden  struct{ cents int64 }
	ignored struct {
		Cents, Cache int64 `json:"-"`
	}
	channel  struct{ C chan int }
	function struct{ F func() }
	iface    struct{ S fmt.Stringer }
	deep     struct{ In map[string][]*hidden }

	cents        int64
	embedsScalar struct{ cents }
	base         struct{ Cents int64 }
	embedsStruct struct {
		base
		Owner string
	}
	embedsPointer struct {
		*base
		Owner string
	}
	embedsTime struct {
		time.Time
		Owner string
	}
	namesTime struct {
		At    time.Time
		Owner string
	}
	embedsBig struct {
		*big.Int
		Owner string
	}
	onlyTime struct{ time.Time }

	bigValue   struct{ Amount big.Int }
	bigPointer struct{ Amount *big.Int }
	bigSlice   struct{ Amounts []big.Int }
	bigArray   struct{ Amounts [2]big.Int }
	ifaceArray struct{ S [2]fmt.Stringer }
	bigMap     struct{ Amounts map[string]big.Int }

	embedsSilent struct {
		time.Time `json:"-"`
		Owner     string
	}
	anyField   struct{ Any any }
	numberKeys struct {
		M map[int8]int
		N map[uint64]map[string]int
	}
	timeKeys  struct{ M map[time.Time]int }
	floatKeys struct{ M map[float64]int }

	left       struct{ Cents int64 }
	right      struct{ Cents int64 }
	embedsBoth struct {
		left
		right
	}
	shadows struct {
		base
		Cents int64
	}
	tagged struct {
		base  `json:"base"`
		Cents int64
	}
	alike struct {
		ID    string
		Other string `json:"id"`
	}

	oneWay     struct{ code int }
	usesOneWay struct{ Code oneWay }
	pointKey   struct{ M map[point]int }
	point      struct{ X, Y int }
	tree       struct {
		N    int
		Kids []tree
	}
)

// sameTag is an event of a type that go vet would reject.
var sameTag = reflect.Zero(reflect.StructOf([]reflect.StructField{
	{Name: "Net", Type: reflect.TypeFor[int64](), Tag: `json:"amount"`},
	{Name: "Gross", Type: reflect.TypeFor[int64](), Tag: `json:"amount"`},
})).Interface()

func (o oneWay) MarshalJSON() ([]byte, error) { return json.Marshal(o.code) }

func TestJSONRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		events map[string]happening
		says   []string // nothing: it is fine
	}{
		{"nothing", map[string]happening{"a": nil}, []string{`"a"`, "no event"}},
		{"a pointer", map[string]happening{"a": &plain{}}, []string{`"a"`, "*es_test.plain", "give es_test.plain{}"}},
		{"two names for one type", map[string]happening{"b": plain{}, "a": plain{}}, []string{"es_test.plain", `"a"`, `"b"`, "Rename"}},
		{"an empty name", map[string]happening{"": plain{}}, []string{"is empty"}},
		{"a name with NUL", map[string]happening{"a\x00": plain{}}, []string{`"a\x00"`, "NUL"}},
		{"a name that is not UTF-8", map[string]happening{"a\xff": plain{}}, []string{"UTF-8"}},
		{"a name over the limit", map[string]happening{strings.Repeat("a", es.MaxType+1): plain{}}, []string{"257 bytes"}},
		{"a name at the limit", map[string]happening{strings.Repeat("a", es.MaxType): plain{}}, nil},

		{"an unexported field", map[string]happening{"a": hidden{}}, []string{`"a"`, "es_test.hidden.cents"}},
		{"an unexported field deep within", map[string]happening{"a": deep{}}, []string{`"a"`, "es_test.hidden.cents"}},
		{"a field left out on purpose", map[string]happening{"a": ignored{}}, nil},
		{"a channel", map[string]happening{"a": channel{}}, []string{"a chan int"}},
		{"a function", map[string]happening{"a": function{}}, []string{"a func()"}},
		{"an interface that JSON cannot fill", map[string]happening{"a": iface{}}, []string{"the interface fmt.Stringer"}},
		{"a type within itself", map[string]happening{"a": tree{}}, nil},
		{"a map with keys that JSON cannot write", map[string]happening{"a": pointKey{}}, []string{"es_test.point", "key"}},

		{"an embedded unexported scalar, which JSON drops", map[string]happening{"a": embedsScalar{}}, []string{"es_test.embedsScalar.cents"}},
		{"an embedded unexported struct, whose fields JSON keeps", map[string]happening{"a": embedsStruct{}}, nil},
		{"an embedded unexported pointer, which JSON writes and cannot read", map[string]happening{"a": embedsPointer{}}, []string{"es_test.embedsPointer.base"}},
		{"an embedded marshaler that speaks for its neighbours", map[string]happening{"a": embedsTime{}}, []string{"es_test.embedsTime.Time"}},
		{"an embedded pointer that speaks for its neighbours", map[string]happening{"a": embedsBig{}}, []string{"es_test.embedsBig.Int"}},
		{"an embedded marshaler alone", map[string]happening{"a": onlyTime{}}, nil},
		{"a marshaler in a field", map[string]happening{"a": namesTime{}}, nil},

		// The methods of big.Int have pointer receivers: JSON cannot reach them from a value and writes {}.
		{"a marshaler out of reach in a field", map[string]happening{"a": bigValue{}}, []string{"big.Int"}},
		{"a marshaler out of reach in a map", map[string]happening{"a": bigMap{}}, []string{"big.Int"}},
		{"a marshaler out of reach in an array", map[string]happening{"a": bigArray{}}, []string{"big.Int"}},
		{"an interface in an array", map[string]happening{"a": ifaceArray{}}, []string{"the interface fmt.Stringer"}},
		{"an embedded marshaler that is left out of the JSON and speaks all the same", map[string]happening{"a": embedsSilent{}}, []string{"es_test.embedsSilent.Time"}},
		{"any, which JSON can fill", map[string]happening{"a": anyField{}}, nil},
		{"numbers as the keys of a map", map[string]happening{"a": numberKeys{}}, nil},
		{"text marshalers as the keys of a map", map[string]happening{"a": timeKeys{}}, nil},
		{"floats as the keys of a map", map[string]happening{"a": floatKeys{}}, []string{"float64 as the key"}},
		{"a marshaler behind a pointer", map[string]happening{"a": bigPointer{}}, nil},
		{"a marshaler in a slice", map[string]happening{"a": bigSlice{}}, nil},
		{"two fields with one JSON name, which JSON drops", map[string]happening{"a": sameTag}, []string{".Net", ".Gross", `"amount"`}},
		{"two embedded structs with one field, which JSON drops", map[string]happening{"a": embedsBoth{}}, []string{"es_test.left.Cents", "es_test.right.Cents"}},
		{"a field that shadows an embedded one, which JSON drops", map[string]happening{"a": shadows{}}, []string{"es_test.base.Cents", "es_test.shadows.Cents"}},
		{"an embedded struct under a name", map[string]happening{"a": tagged{}}, nil},
		{"names that differ in case only", map[string]happening{"a": alike{}}, nil},
		{"a type that is written by a method and read by none", map[string]happening{"a": usesOneWay{}}, []string{"es_test.oneWay"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			said := panicOf(func() { es.JSON(test.events) })
			if len(test.says) == 0 && said != "" {
				t.Fatalf("JSON panicked: %s", said)
			}
			for _, want := range append(test.says, "es: JSON: ")[:len(test.says)] {
				if !strings.Contains(said, want) {
					t.Errorf("JSON panicked with %q, which does not say %q", said, want)
				}
			}
		})
	}
}

// panicOf returns what f panics with, as text, or "".
func panicOf(f func()) (said string) {
	defer func() {
		if v := recover(); v != nil {
			said = fmt.Sprint(v)
		}
	}()
	f()
	return ""
}

func TestJSONRoundTrips(t *testing.T) {
	codec := es.JSON(map[string]happening{
		"plain": plain{}, "embeds": embedsStruct{}, "time": namesTime{}, "only": onlyTime{}, "pointer": bigPointer{}, "slice": bigSlice{}, "tree": tree{},
	})
	at := time.Date(2026, 7, 5, 4, 3, 2, 1000, time.UTC)
	huge, _ := new(big.Int).SetString("123456789012345678901234567890", 10)
	for _, event := range []happening{
		plain{1 << 62},
		embedsStruct{base{7}, "Ada"},
		namesTime{at, "Ada"},
		onlyTime{at},
		bigPointer{huge},
		bigSlice{[]big.Int{*huge}},
		tree{1, []tree{{2, nil}, {3, []tree{{4, nil}}}}},
	} {
		t.Run(fmt.Sprintf("%T", event), func(t *testing.T) {
			r, err := codec.Encode(event)
			if err != nil {
				t.Fatal(err)
			}
			got, err := codec.Decode(r)
			if err != nil {
				t.Fatal(err)
			}
			same := cmp.Options{
				cmp.AllowUnexported(embedsStruct{}),
				cmp.Comparer(func(a, b big.Int) bool { return a.Cmp(&b) == 0 }),
			}
			if diff := cmp.Diff(event, got, same); diff != "" {
				t.Errorf("%s came back changed (-want +got):\n%s", r.Data, diff)
			}
		})
	}
}

func TestEncodeRefusesWhatJSONWouldAlter(t *testing.T) {
	type named string
	type note struct {
		Text  named
		Lines []string
		Tags  map[string]int
		Any   any
		Raw   json.RawMessage
		Bytes []byte
		By    *text
	}
	codec := es.JSON(map[string]happening{"note": note{}})
	for name, test := range map[string]struct {
		event   note
		refused bool
	}{
		"invalid UTF-8 in a string":                 {note{Text: "a\xff"}, true},
		"invalid UTF-8 in a slice":                  {note{Lines: []string{"fine", "\xc3"}}, true},
		"invalid UTF-8 as a key":                    {note{Tags: map[string]int{"\xff": 1}}, true},
		"invalid UTF-8 within any":                  {note{Any: []any{"\xff"}}, true},
		"invalid UTF-8 from a text marshaler":       {note{By: &text{"\xff"}}, true},
		"the replacement character itself":          {note{Text: "\ufffd", By: &text{"\ufffd"}}, false},
		"the escape of the replacement character":   {note{Text: `\ufffd and \\ufffd`}, false},
		"the escape in JSON that the event carries": {note{Raw: json.RawMessage(`"\ufffd"`)}, false},
		"bytes, which are encoded as base64":        {note{Bytes: []byte{0xff}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := codec.Encode(test.event)
			if refused := errors.Is(err, es.ErrInvalid); refused != test.refused || err != nil && (!refused || !strings.Contains(err.Error(), "note")) {
				t.Errorf("Encode returned %v; refused should be %v, by name and with ErrInvalid", err, test.refused)
			}
		})
	}
}

// text is encoded by a method.
type text struct{ s string }

func (x text) MarshalText() ([]byte, error)  { return []byte(x.s), nil }
func (x *text) UnmarshalText(b []byte) error { x.s = string(b); return nil }

func TestJSONIgnoresUnknownAndMissingFields(t *testing.T) {
	codec := es.JSON(map[string]happening{"plain": plain{}})
	for data, want := range map[string]plain{
		`{"Cents":7,"Currency":"EUR"}`: {7}, // a field that the type does not have
		`{}`:                           {0}, // one that the data does not have
	} {
		got, err := codec.Decode(es.Record{Type: "plain", Data: []byte(data)})
		if err != nil || got != want {
			t.Errorf("%s is read as %v, %v, not %v", data, got, err, want)
		}
	}
}

func TestJSONNames(t *testing.T) {
	codec := es.JSON(map[string]happening{"b": plain{}, "a": other{}}).Rename("c", "b").Retire("d")
	if diff := cmp.Diff([]string{"a", "b"}, codec.Names()); diff != "" {
		t.Errorf("Names gives those written, sorted (-want +got):\n%s", diff)
	}
}

func TestUnknownEvents(t *testing.T) {
	codec := es.JSON(map[string]happening{"plain": plain{}})
	t.Run("encode", func(t *testing.T) {
		for event, name := range map[happening]string{other{}: "es_test.other", &plain{}: "*es_test.plain", nil: "<nil>"} {
			_, err := codec.Encode(event)
			var unknown *es.UnknownEventError
			if !errors.As(err, &unknown) || unknown.Type != name {
				t.Errorf("Encode(%T): %v; want an UnknownEventError of %s", event, err, name)
			}
		}
	})
	t.Run("decode", func(t *testing.T) {
		_, err := codec.Decode(es.Record{Stream: es.Stream{Kind: "account", ID: "42"}, Version: 7, Type: "gone"})
		var unknown *es.UnknownEventError
		if !errors.As(err, &unknown) || unknown.Type != "gone" {
			t.Errorf("Decode: %v; want an UnknownEventError of gone", err)
		}
		if err == nil || !strings.Contains(err.Error(), "account/42/7") {
			t.Errorf("Decode: %v; it does not name account/42/7", err)
		}
	})
	t.Run("nothing of them is written", func(t *testing.T) {
		store := newSpy()
		repo := es.NewRepo(store, "thing", anything{}, codec)
		_, err := repo.Execute(t.Context(), "1", happening(other{}))
		var unknown *es.UnknownEventError
		if !errors.As(err, &unknown) || len(store.take().Appends) > 0 {
			t.Errorf("Execute: %v; want an UnknownEventError and no append", err)
		}
	})
}

// anything has trivial rules: a command is the event that it causes, and the state is the last event.
type anything struct{}

func (anything) Decide(_, c happening) ([]happening, error) { return []happening{c}, nil }
func (anything) Evolve(_, e happening) happening            { return e }

func TestDecodingErrorsNameTheRecord(t *testing.T) {
	store := new(es.Mem)
	stream := es.Stream{Kind: "thing", ID: "1"}
	for _, data := range []string{`{"Cents":1}`, `{"Cents":`} {
		if _, err := store.Append(t.Context(), es.Append{Stream: stream, Expected: es.AnyVersion, Events: []es.Record{{Type: "plain", Data: []byte(data)}}}); err != nil {
			t.Fatal(err)
		}
	}
	repo := es.NewRepo(store, "thing", anything{}, es.JSON(map[string]happening{"plain": plain{}}))
	_, loading := repo.Load(t.Context(), "1")
	_, executing := repo.Execute(t.Context(), "1", happening(plain{2}))
	for _, err := range []error{loading, executing} {
		if err == nil || !strings.Contains(err.Error(), "thing/1/2") || !strings.Contains(err.Error(), `"plain"`) {
			t.Errorf("%v: it does not name thing/1/2 and its type, \"plain\"", err)
		}
		var syntax *json.SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%v: it does not wrap what encoding/json says", err)
		}
	}
	if got, err := repo.LoadAt(t.Context(), "1", 1); err != nil || got.State != (plain{1}) {
		t.Errorf("LoadAt before the broken event: %v, %v", got.State, err)
	}
}
