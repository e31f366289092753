package tag_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/thalo-go/es/internal/tag"
)

func TestSet(t *testing.T) {
	given := []string{"b", "a", "b"}
	if got := tag.Set(given); !slices.Equal(got, []string{"a", "b"}) || !slices.Equal(given, []string{"b", "a", "b"}) {
		t.Errorf("Set is %q, and the argument %q", got, given)
	}
	if tag.Set(nil) != nil || tag.Set([]string{}) != nil {
		t.Error("the set of no tags is not nil")
	}
}

// Databases hold hashes and joined texts, so they are frozen.
func TestTheFormOfTagsIsFrozen(t *testing.T) {
	if got := tag.Hash("course:7"); got != 9173543646578383542 {
		t.Errorf("the hash of course:7 is %d", got)
	}
	if got := tag.Join([]string{`a\`, "b\x1fc", "d"}); got != "\x1fa\\\\\x1f\x1fb\\sc\x1f\x1fd\x1f" {
		t.Errorf("the tags are joined as %q", got)
	}
}

func FuzzJoin(f *testing.F) {
	f.Add("a\x00b\x00a", "a")
	f.Add("\x1f\x00\\\x00\\s", `\s`)
	f.Add("\x1f\x00\\\x00\\s", "\x1f")
	f.Fuzz(func(t *testing.T, list, one string) {
		set := tag.Set(slices.DeleteFunc(strings.Split(list, "\x00"), func(tag string) bool { return tag == "" }))
		text := tag.Join(set)
		if back := tag.Split(text); !slices.Equal(back, set) {
			t.Errorf("%q is joined as %q and split into %q", set, text, back)
		}
		if one != "" && strings.Contains(text, tag.Term(one)) != slices.Contains(set, one) {
			t.Errorf("%q has %q: %t, but its text %q says otherwise", set, one, slices.Contains(set, one), text)
		}
	})
}
