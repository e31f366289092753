// Package canon writes filters in a form in which equal filters are equal texts, so that they can be kept with a checkpoint and compared.
package canon

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/tag"
)

// Filter returns the canonical form of a filter: a JSON object whose lists are sorted and have no duplicates. A record must match every
// list that is there: kinds and types by any name in it, and all tags. Kinds and types that no record has are left out. A filter that
// matches nothing has the empty name, which no record has, as its only kind. The text is never empty.
func Filter(f es.Filter) string {
	kinds, types, tags := names(f.Kinds, es.MaxKind), names(f.Types, es.MaxType), names(f.Tags, es.MaxTag)
	impossible := slices.ContainsFunc(f.Tags, func(tag string) bool { return !slices.Contains(tags, tag) }) || len(tags) > es.MaxTags
	if len(f.Kinds) > 0 && len(kinds) == 0 || len(f.Types) > 0 && len(types) == 0 || impossible {
		kinds, types, tags = []string{""}, nil, nil
	}
	text, err := json.Marshal(es.Filter{Kinds: kinds, Types: types, Tags: tags})
	if err != nil {
		panic(err) // lists of strings have a JSON form
	}
	return string(text)
}

// Mark returns a hash of a canonical form, which is not 0.
func Mark(canonical string) int64 {
	h := fnv.New64a()
	h.Write([]byte(canonical))
	return int64(h.Sum64() | 1)
}

// names returns the names that a record can have, sorted and without duplicates.
func names(list []string, most int) []string {
	list = slices.DeleteFunc(slices.Clone(list), func(name string) bool {
		return name == "" || len(name) > most || !utf8.ValidString(name) || strings.ContainsRune(name, 0)
	})
	return tag.Set(list)
}

// Parse returns the filter of a canonical form.
func Parse(text string) (f es.Filter, err error) {
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return es.Filter{}, fmt.Errorf("filter %.80q: %w", text, err)
	}
	return f, nil
}
