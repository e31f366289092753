package canon_test

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/canon"
)

func TestFilter(t *testing.T) {
	for _, test := range []struct {
		filter es.Filter
		want   string
	}{
		{es.Filter{}, `{}`},
		{es.Filter{Kinds: []string{}, Types: []string{}}, `{}`},
		{es.Filter{Kinds: []string{"b", "a", "b"}}, `{"kinds":["a","b"]}`},
		{es.Filter{Kinds: []string{"a"}, Types: []string{"y", "x"}}, `{"kinds":["a"],"types":["x","y"]}`},
		{es.Filter{Kinds: []string{"a", "", "\xff", "a\x00", strings.Repeat("k", es.MaxKind+1)}}, `{"kinds":["a"]}`},
		{es.Filter{Kinds: []string{"\xff"}, Types: []string{"x"}}, `{"kinds":[""]}`}, // nothing
		{es.Filter{Kinds: []string{"a"}, Types: []string{""}}, `{"kinds":[""]}`},     // nothing
		{es.Filter{Tags: []string{"b", "a", "b"}}, `{"tags":["a","b"]}`},
		{es.Filter{Kinds: []string{"a"}, Tags: []string{"a", ""}}, `{"kinds":[""]}`}, // nothing
		{es.Filter{Types: []string{"<&>"}}, `{"types":["\u003c\u0026\u003e"]}`},
	} {
		if got := canon.Filter(test.filter); got != test.want {
			t.Errorf("%v: %s; want %s", test.filter, got, test.want)
		}
	}
}

// Two filters have one form if and only if they match the same records.
func TestFilterFormsAreEqualIfTheMeaningIs(t *testing.T) {
	names := []string{"a", "b", "", "\xff"}
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.SampledFrom(names), 0, 4)
		draw := func(label string) es.Filter {
			return es.Filter{Kinds: list.Draw(t, label+" kinds"), Types: list.Draw(t, label+" types"), Tags: list.Draw(t, label+" tags")}
		}
		f, g := draw("one"), draw("other")
		same := true
		for _, kind := range []string{"a", "b", "c"} {
			for _, typ := range []string{"a", "b", "c"} {
				for _, tags := range [][]string{nil, {"a"}, {"b"}, {"a", "b"}, {"c"}} {
					r := es.Record{Stream: es.Stream{Kind: kind, ID: "1"}, Type: typ, Tags: tags}
					same = same && f.Match(r) == g.Match(r)
					if parsed, err := canon.Parse(canon.Filter(f)); err != nil || parsed.Match(r) != f.Match(r) {
						t.Fatalf("%v has the form %s, which is parsed as %v (%v)", f, canon.Filter(f), parsed, err)
					}
				}
			}
		}
		if (canon.Filter(f) == canon.Filter(g)) != same {
			t.Fatalf("%v is %s and %v is %s; want them equal: %v", f, canon.Filter(f), g, canon.Filter(g), same)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	if f, err := canon.Parse("kinds a"); err == nil || !reflect.DeepEqual(f, es.Filter{}) {
		t.Errorf("parsed as %v, %v", f, err)
	}
}
