package es

import (
	"context"
	"fmt"
	"slices"

	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/tag"
)

// checkCondition returns a ConflictError if a record matches the condition of an append.
func (m *Mem) checkCondition(a *Append) error {
	if len(a.Unless.Match) == 0 {
		return nil
	}
	conflict := &ConflictError{Stream: a.Stream, Expected: a.Expected, Unless: a.Unless.clone()}
	if a.Unless.After > Position(len(m.records)) {
		return fmt.Errorf("%w: %w", conflict, ErrRewound)
	}
	for _, f := range a.Unless.Match {
		if err := m.tagsAdded(f); err != nil {
			return err
		}
		for _, p := range m.taggedAfter(f, a.Unless.After) {
			if f.Match(m.records[p-1]) {
				return conflict
			}
		}
	}
	return nil
}

// taggedAfter returns the positions after one of the records with the rarest tag of a filter.
func (m *Mem) taggedAfter(f Filter, after Position) []Position {
	rarest := slices.MinFunc(f.Tags, func(a, b string) int { return len(m.tagged[a]) - len(m.tagged[b]) })
	positions := m.tagged[rarest]
	first, _ := slices.BinarySearch(positions, after+1)
	return positions[first:]
}

// checkTags refuses events without tags of a kind whose events have tags.
func (m *Mem) checkTags(appends []Append) error {
	var tagged map[string]bool // by these appends
	for i := range appends {
		for j := range appends[i].Events {
			if len(appends[i].Events[j].Tags) > 0 {
				if tagged == nil {
					tagged = make(map[string]bool)
				}
				tagged[appends[i].Stream.Kind] = true
			}
		}
	}
	if tagged == nil && m.kinds == nil {
		return nil
	}
	for i := range appends {
		a := &appends[i]
		if _, found := m.kinds[a.Stream.Kind]; !found && !tagged[a.Stream.Kind] {
			continue
		}
		for j := range a.Events {
			if len(a.Events[j].Tags) == 0 {
				return invalid("append to %s: events of this kind have tags, and %q has none: give its codec the Tag function", a.Stream, a.Events[j].Type)
			}
		}
	}
	return nil
}

// noteKinds notes, before appends are written, the kinds whose events have tags from now on.
func (m *Mem) noteKinds(appends []Append) {
	for i := range appends {
		if a := &appends[i]; len(a.Events) > 0 && len(a.Events[0].Tags) > 0 {
			m.noteKind(a.Stream.Kind)
		}
	}
}

func (m *Mem) noteKind(kind string) {
	if _, found := m.kinds[kind]; found {
		return
	}
	if m.kinds == nil {
		m.kinds = make(map[string]Position)
	}
	m.kinds[kind] = 0
	if slices.ContainsFunc(m.records, func(r Record) bool { return r.Stream.Kind == kind }) {
		m.kinds[kind] = Position(len(m.records))
	}
}

// index adds a record to the index of tags.
func (m *Mem) index(r *Record) {
	if len(r.Tags) > 0 && m.tagged == nil {
		m.tagged = make(map[string][]Position)
	}
	for _, tag := range r.Tags {
		positions := m.tagged[tag]
		at, _ := slices.BinarySearch(positions, r.Position)
		if at < len(positions) {
			positions = slices.Clone(positions) // readers have the old one
		}
		m.tagged[tag] = slices.Insert(positions, at, r.Position)
	}
}

// tagsAdded returns an error if a filter may match events that do not have their tags yet.
func (m *Mem) tagsAdded(f Filter) error {
	if len(f.Tags) == 0 {
		return nil
	}
	for kind, upTo := range m.kinds {
		if upTo > 0 && (len(f.Kinds) == 0 || slices.Contains(f.Kinds, kind)) {
			return fmt.Errorf("es: %w: older events of kind %.80q have no tags yet: call AddTags of the store until it returns nil", ErrUnavailable, kind)
		}
	}
	return nil
}

// AddTags gives the stored events of a kind the tags that a function returns, usually [Codec.Tags]. Events that have tags keep
// them. From the first call on, events of this kind are refused if they have no tags.
//
// It is needed once, if a kind has events from before its codec had a Tag function. Until AddTags has returned nil, conditions
// and filters with tags that concern the kind fail with an error that wraps [ErrUnavailable].
func (m *Mem) AddTags(ctx context.Context, kind string, tags func(r Record) ([]string, error)) (err error) {
	defer cause.Set(ctx, &err)
	if err := (Stream{kind, "i"}).Check(); err != nil {
		return err
	}
	m.mu.Lock()
	m.noteKind(kind)
	old := m.records[:m.kinds[kind]]
	m.mu.Unlock()
	added := make(map[Position][]string)
	for _, r := range old {
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.Stream.Kind != kind || len(r.Tags) > 0 {
			continue
		}
		given, err := tags(r.clone())
		if err != nil {
			return fmt.Errorf("es: add tags to %s: %w", r.ID(), err)
		}
		if bad := badTags(given); bad != "" {
			return invalid("add tags to %s: event %q %s", r.Stream, r.Type, bad)
		}
		added[r.Position] = tag.Set(given)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kinds[kind] == 0 {
		return nil // another call was faster
	}
	m.records = slices.Clone(m.records) // readers have the old one
	for position, tags := range added {
		r := &m.records[position-1]
		r.Tags = tags
		m.index(r)
		stream := slices.Clone(m.streams[r.Stream])
		stream[r.Version-1].Tags = tags
		m.streams[r.Stream] = stream
	}
	m.kinds[kind] = 0
	return nil
}

func (c Condition) clone() Condition {
	c.Match = slices.Clone(c.Match)
	for i := range c.Match {
		f := &c.Match[i]
		f.Kinds, f.Types, f.Tags = slices.Clone(f.Kinds), slices.Clone(f.Types), slices.Clone(f.Tags)
	}
	return c
}
