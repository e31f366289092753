package commit

import (
	"context"
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

// Added is the tags of an event from before its codec had a Tag function. They are a set, and may be none.
type Added struct {
	Position es.Position
	Tags     []string
}

// addedAtOnce is the number of events that get their tags in one transaction.
const addedAtOnce = 500

// AddTags gives the events of a kind after a position, up to another, the tags that a function returns. It calls write with some events at a
// time, in order, and the position up to which all have their tags then. The caller has checked the kind.
func AddTags(ctx context.Context, log es.Log, kind string, done, upTo es.Position, tags func(r es.Record) ([]string, error), write func(page []Added, end es.Position) error) error {
	if done >= upTo {
		return nil
	}
	var page []Added
	for r, err := range log.All(ctx, done, es.Filter{Kinds: []string{kind}}) {
		if err != nil {
			return err
		}
		if r.Position > upTo {
			break
		}
		given, err := tags(r)
		if err == nil {
			err = es.CheckAppends(es.Append{Stream: r.Stream, Events: []es.Record{{Type: r.Type, Tags: given}}})
		}
		if err != nil {
			return fmt.Errorf("es: add tags to %s: %w", r.ID(), err)
		}
		if page = append(page, Added{r.Position, tag.Set(given)}); len(page) == addedAtOnce {
			if err := write(page, r.Position); err != nil {
				return err
			}
			page = page[:0]
		}
	}
	return write(page, upTo)
}
