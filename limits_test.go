package es_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/thalo-go/es"
)

func letters(n int) string { return strings.Repeat("a", n) }

// sized returns n events of so many bytes, which share their data.
func sized(n, bytes int) []es.Record {
	return slices.Repeat([]es.Record{{Type: "e", Data: make([]byte, bytes)}}, n)
}

func TestStreamNames(t *testing.T) {
	for _, test := range []struct {
		kind, id string
		says     string // nothing: it is fine
	}{
		{"account", "42", ""},
		{"账户", "зб/ \n\"'", ""},
		{letters(es.MaxKind), letters(es.MaxID), ""},
		{"", "42", "kind of stream \"/42\" is empty"},
		{"account", "", "id of stream \"account/\" is empty"},
		{letters(es.MaxKind + 1), "42", "has 129 bytes: the limit is 128"},
		{"account", letters(es.MaxID + 1), "has 513 bytes: the limit is 512"},
		{"a/b", "42", "separates kind and id"},
		{"a\x00", "42", "kind of stream \"a\\x00/42\" has a NUL"},
		{"account", "4\x002", "id of stream \"account/4\\x002\" has a NUL"},
		{"\xff", "42", "not UTF-8"},
		{"account", "\xc3", "not UTF-8"},
	} {
		err := es.Stream{Kind: test.kind, ID: test.id}.Check()
		if test.says == "" && err != nil || test.says != "" && (!errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%.20q %.20q: %v; want it to say %q", test.kind, test.id, err, test.says)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("%.20q %.20q: a message of %d bytes", test.kind, test.id, len(err.Error()))
		}
	}
}

func TestParseStream(t *testing.T) {
	for name, want := range map[string]es.Stream{
		"account/42":  {Kind: "account", ID: "42"},
		"account/a/b": {Kind: "account", ID: "a/b"},
		"account//":   {Kind: "account", ID: "/"},
	} {
		if got, err := es.ParseStream(name); err != nil || got != want {
			t.Errorf("%q: %#v, %v; want %#v", name, got, err, want)
		}
	}
	for _, name := range []string{"", "account", "/", "/42", "account/", "a\x00/42", letters(200) + "/42"} {
		if got, err := es.ParseStream(name); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("%.20q: %#v, %v; want it refused", name, got, err)
		}
	}
}

func TestAppendLimits(t *testing.T) {
	stream := es.Stream{Kind: "account", ID: "42"}
	with := func(r es.Record) []es.Append { return []es.Append{{Stream: stream, Events: []es.Record{r}}} }
	meta := func(bytes int) map[string]string { return map[string]string{letters(10): letters(bytes - 10)} }
	named := func(commands ...string) (appends []es.Append) {
		for _, c := range commands {
			appends = append(appends, es.Append{Stream: stream, Command: c})
		}
		return appends
	}
	tags := func(n, bytes int) (tags []string) {
		for i := range n {
			tags = append(tags, fmt.Sprintf("%0*d", bytes, i))
		}
		return tags
	}
	unless := func(after es.Position, match ...es.Filter) []es.Append {
		return []es.Append{{Stream: stream, Unless: es.Condition{After: after, Match: match}}}
	}
	for _, test := range []struct {
		name    string
		appends []es.Append
		says    []string // nothing: it is fine
	}{
		{"nothing at all", nil, nil},
		{"no events", []es.Append{{Stream: stream, Expected: es.AnyVersion}}, nil},
		{"a stream that cannot be", []es.Append{{Stream: stream}, {}}, []string{"is empty"}},
		{"an expected version below any", []es.Append{{Stream: stream, Expected: -2}}, []string{"account/42", "-2", "AnyVersion"}},

		{"a type at the limit", with(es.Record{Type: letters(es.MaxType)}), nil},
		{"a type over the limit", with(es.Record{Type: letters(es.MaxType + 1)}), []string{"account/42", "event type", "257 bytes", "256"}},
		{"no type", with(es.Record{}), []string{"account/42", "event type", "empty"}},
		{"a type with NUL", with(es.Record{Type: "\x00"}), []string{"account/42", "event type", "NUL"}},
		{"a type that is not UTF-8", with(es.Record{Type: "\xff"}), []string{"account/42", "UTF-8"}},

		{"data at the limit", with(es.Record{Type: "e", Data: make([]byte, es.MaxData)}), nil},
		{"data over the limit", with(es.Record{Type: "e", Data: make([]byte, es.MaxData+1)}), []string{"account/42", `"e"`, "16777217 bytes of data", "16777216"}},
		{"metadata at the limit", with(es.Record{Type: "e", Meta: meta(es.MaxMeta)}), nil},
		{"metadata over the limit", with(es.Record{Type: "e", Meta: meta(es.MaxMeta + 1)}), []string{"account/42", `"e"`, "65537 bytes of metadata", "65536"}},
		{"a key of metadata with NUL", with(es.Record{Type: "e", Meta: map[string]string{"k\x00": "v"}}), []string{"account/42", `"e"`, `"k\x00"="v"`}},
		{"a value of metadata that is not UTF-8", with(es.Record{Type: "e", Meta: map[string]string{"k": "\xff"}}), []string{"account/42", `"e"`, `"k"="\xff"`}},

		{"a command at the limit", named(letters(es.MaxCommand)), nil},
		{"a command over the limit", named(letters(es.MaxCommand + 1)), []string{"account/42", "command", "1025 bytes", "1024"}},
		{"a command with NUL", named("\x00"), []string{"account/42", "command", "NUL"}},
		{"a command twice", named("c", "d", "c"), []string{"account/42", `"c"`, "twice"}},
		{"no command twice", named("", ""), nil},
		{"a command on two streams", []es.Append{{Stream: stream, Command: "c"}, {Stream: es.Stream{Kind: "account", ID: "43"}, Command: "c"}}, nil},

		{"tags at the limit", with(es.Record{Type: "e", Tags: tags(es.MaxTags, es.MaxTag)}), nil},
		{"too many tags", with(es.Record{Type: "e", Tags: tags(es.MaxTags+1, 9)}), []string{"account/42", `"e"`, "17 tags", "16"}},
		{"a tag over the limit", with(es.Record{Type: "e", Tags: tags(1, es.MaxTag+1)}), []string{"account/42", `"e"`, "tag", "257 bytes", "256"}},
		{"an empty tag", with(es.Record{Type: "e", Tags: []string{"a", ""}}), []string{"account/42", `"e"`, "tag", "empty"}},
		{"a tag with NUL", with(es.Record{Type: "e", Tags: []string{"a\x00"}}), []string{"account/42", `"e"`, `tag "a\x00"`, "NUL"}},
		{"a tag that is not UTF-8", with(es.Record{Type: "e", Tags: []string{"\xff"}}), []string{"account/42", `"e"`, "tag", "UTF-8"}},

		{"a condition at the limit", unless(0, slices.Repeat([]es.Filter{{Tags: tags(es.MaxTags, es.MaxTag)}}, es.MaxConditions)...), nil},
		{"a condition with too many filters", unless(0, slices.Repeat([]es.Filter{{Tags: tags(1, 9)}}, es.MaxConditions+1)...), []string{"account/42", "condition", "65 filters", "64"}},
		{"a condition on kinds and types only", unless(0, es.Filter{Tags: tags(1, 9)}, es.Filter{Kinds: []string{"account"}, Types: []string{"e"}}), []string{"account/42", "condition", "filter 2", "no tag"}},
		{"a condition on everything", unless(0, es.Filter{}), []string{"account/42", "condition", "filter 1", "no tag"}},
		{"a condition with too many tags", unless(0, es.Filter{Tags: tags(es.MaxTags+1, 9)}), []string{"account/42", "condition", "filter 1", "17 tags"}},
		{"a condition with an empty tag", unless(0, es.Filter{Tags: []string{""}}), []string{"account/42", "condition", "tag", "empty"}},
		{"a condition on a kind over the limit", unless(0, es.Filter{Tags: tags(1, 9), Kinds: []string{letters(es.MaxKind + 1)}}), []string{"account/42", "condition", "kind", "129 bytes"}},
		{"a condition on a type with NUL", unless(0, es.Filter{Tags: tags(1, 9), Types: []string{"\x00"}}), []string{"account/42", "condition", "type", "NUL"}},
		{"a condition after a negative position", unless(-1, es.Filter{Tags: tags(1, 9)}), []string{"account/42", "condition", "-1"}},
		{"no condition", unless(0), nil},

		{"events at the limit", []es.Append{{Stream: stream, Events: sized(es.MaxEvents-1, 0)}, {Stream: stream, Events: sized(1, 0)}}, nil},
		{"events over the limit, over all", []es.Append{{Stream: stream, Events: sized(es.MaxEvents, 0)}, {Stream: stream, Events: sized(1, 0)}}, []string{"10001 events", "10000", "several calls"}},
		{"bytes at the limit", []es.Append{{Stream: stream, Events: sized(3, es.MaxData)}, {Stream: stream, Events: sized(1, es.MaxData)}}, nil},
		{"bytes over the limit, over all", []es.Append{{Stream: stream, Events: sized(4, es.MaxData)}, {Stream: stream, Events: []es.Record{{Type: "e", Meta: map[string]string{"k": ""}}}}}, []string{"67108865 bytes", "67108864", "several calls"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := es.CheckAppends(test.appends...)
			if test.says == nil && err != nil || test.says != nil && !errors.Is(err, es.ErrInvalid) {
				t.Fatalf("%v; want it refused: %t", err, test.says != nil)
			}
			for _, want := range test.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v; it does not say %q", err, want)
				}
			}
		})
	}
}

// The id of a record is used as the id of a command that reacts to it.
func TestRecordIDFitsACommandID(t *testing.T) {
	r := es.Record{Stream: es.Stream{Kind: letters(es.MaxKind), ID: letters(es.MaxID)}, Version: 1<<63 - 1}
	if err := es.CheckAppends(es.Append{Stream: r.Stream, Command: r.ID() + "/suffix"}); err != nil {
		t.Error(err)
	}
}

func TestFilters(t *testing.T) {
	r := es.Record{Stream: es.Stream{Kind: "account", ID: "42"}, Type: "opened", Tags: []string{"bank:1", "owner:ann"}}
	for _, test := range []struct {
		filter es.Filter
		match  bool
		prints string
	}{
		{es.Filter{}, true, "everything"},
		{es.Filter{Kinds: []string{"loan", "account"}}, true, `kinds ["loan" "account"], types []`},
		{es.Filter{Kinds: []string{"loan"}}, false, `kinds ["loan"], types []`},
		{es.Filter{Types: []string{"closed", "opened"}}, true, `kinds [], types ["closed" "opened"]`},
		{es.Filter{Types: []string{"closed"}}, false, `kinds [], types ["closed"]`},
		{es.Filter{Kinds: []string{"account"}, Types: []string{"closed"}}, false, `kinds ["account"], types ["closed"]`},
		{es.Filter{Kinds: []string{"loan"}, Types: []string{"opened"}}, false, `kinds ["loan"], types ["opened"]`},
		{es.Filter{Tags: []string{"owner:ann"}}, true, `kinds [], types [], tags ["owner:ann"]`},
		{es.Filter{Tags: []string{"owner:ann", "bank:1", "owner:ann"}}, true, `kinds [], types [], tags ["owner:ann" "bank:1" "owner:ann"]`},
		{es.Filter{Tags: []string{"owner:ann", "bank:2"}}, false, `kinds [], types [], tags ["owner:ann" "bank:2"]`},
		{es.Filter{Types: []string{"closed"}, Tags: []string{"owner:ann"}}, false, `kinds [], types ["closed"], tags ["owner:ann"]`},
	} {
		if got := test.filter.Match(r); got != test.match || test.filter.String() != test.prints {
			t.Errorf("%s matches %t; want %s to match %t", test.filter, got, test.prints, test.match)
		}
	}
}
