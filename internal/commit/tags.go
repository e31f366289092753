package commit

import (
	"fmt"
	"slices"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/tag"
)

// CheckTagsAdded returns an error if a filter with tags may match events of a kind that do not have their tags yet.
func CheckTagsAdded(pending []string, f es.Filter) error {
	for _, kind := range pending {
		if len(f.Kinds) == 0 || slices.Contains(f.Kinds, kind) {
			return fmt.Errorf("%w: older events of kind %.80q have no tags yet: call AddTags of the store until it returns nil", es.ErrUnavailable, kind)
		}
	}
	return nil
}

// SearchTags returns the tags of a filter as a set. If no event can have all of them, none are returned.
func SearchTags(f es.Filter) []string {
	set := tag.Set(f.Tags)
	a := es.Append{Stream: es.Stream{Kind: "k", ID: "i"}, Unless: es.Condition{Match: []es.Filter{{Tags: set}}}}
	if es.CheckAppends(a) != nil {
		return nil
	}
	return set
}

// CloneCondition returns a condition that shares no memory with another one.
func CloneCondition(c es.Condition) es.Condition {
	c.Match = slices.Clone(c.Match)
	for i := range c.Match {
		f := &c.Match[i]
		f.Kinds, f.Types, f.Tags = slices.Clone(f.Kinds), slices.Clone(f.Types), slices.Clone(f.Tags)
	}
	return c
}
