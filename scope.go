package es

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"github.com/thalo-go/es/internal/tag"
)

// scope is the canonical form of a Boundary.
type scope[S any] struct {
	initial S
	query   []Filter // sorted, without duplicates
	lane    string   // the key of the query, and the stream
	limit   Version  // records that a state may rest on; negative for no limit
}

// newScope returns the scope of a boundary and the key of its query.
func newScope[S any](b Boundary[S]) (s *scope[S], key string, err error) {
	if err := b.Stream.Check(); err != nil {
		return nil, "", err
	}
	if len(b.Query) == 0 {
		return nil, "", invalid("boundary of %s has no query: use a Repo for decisions on one stream", b.Stream)
	}
	c := Condition{Match: b.Query}
	if _, err := c.check(b.Stream); err != nil {
		return nil, "", err
	}
	type keyed struct {
		key    string
		filter Filter
	}
	filters := make([]keyed, len(b.Query))
	for i, f := range b.Query {
		if len(f.Types) > 0 {
			f.Types = slices.Concat(f.Types, []string{TypeRedaction}) // a state must be dropped when one of its records is redacted
		}
		f = Filter{Kinds: tag.Set(f.Kinds), Types: tag.Set(f.Types), Tags: tag.Set(f.Tags)}
		filters[i] = keyed{f.key(), f}
	}
	slices.SortFunc(filters, func(a, b keyed) int { return cmp.Compare(a.key, b.key) })
	filters = slices.CompactFunc(filters, func(a, b keyed) bool { return a.key == b.key })
	s = &scope[S]{initial: b.Initial, query: make([]Filter, len(filters))}
	var text strings.Builder
	for i, f := range filters {
		s.query[i] = f.filter
		text.WriteString(f.key)
		text.WriteByte(1)
	}
	key = text.String()
	text.WriteString(b.Stream.String())
	s.lane = text.String()
	return s, key, nil
}

// key returns a text that is that of no other filter. Names are not empty and have no NUL.
func (f *Filter) key() string {
	var text strings.Builder
	for _, names := range [][]string{f.Kinds, f.Types, f.Tags} {
		for _, name := range names {
			text.WriteString(name)
			text.WriteByte(0)
		}
		text.WriteByte(0)
	}
	return text.String()
}

// begins reports whether two scopes begin with the same state.
func (s *scope[S]) begins(other *scope[S]) bool {
	return s == other || reflect.DeepEqual(s.initial, other.initial)
}

func (s *scope[S]) tooMany(stream Stream) error {
	return invalid("decision on %s rests on more than %d records: narrow its query, or raise Limit", stream, s.limit)
}

// warnOf logs that a state has grown from a tenth of the limit or less to more.
func (s *scope[S]) warnOf(log *slog.Logger, stream Stream, before, now Version) {
	many := Version(defaultLimit / 10)
	if s.limit > 0 {
		many = s.limit / 10
	}
	if before <= many && now > many {
		log.Warn("es: decision rests on many records", "stream", stream.String(), "query", fmt.Sprint(s.query), "records", int64(now), "limit", int64(s.limit))
	}
}

// match reports whether the query selects a record.
func (s *scope[S]) match(r Record) bool {
	return slices.ContainsFunc(s.query, func(f Filter) bool { return f.Match(r) })
}

// selected returns the records after a position that any of some filters matches, in order, each once.
func selected(ctx context.Context, log Log, after Position, query []Filter) iter.Seq2[Record, error] {
	if len(query) == 1 {
		return log.All(ctx, after, query[0])
	}
	return func(yield func(Record, error) bool) {
		type cursor struct {
			next   func() (Record, error, bool)
			record Record
		}
		var open []*cursor
		advance := func(c *cursor) (err error) {
			var more bool
			if c.record, err, more = c.next(); !more {
				open = slices.DeleteFunc(open, func(o *cursor) bool { return o == c })
			}
			return err
		}
		for _, f := range query {
			next, stop := iter.Pull2(log.All(ctx, after, f))
			defer stop() //nolint:revive // all are read until the end
			c := &cursor{next: next}
			open = append(open, c)
			if err := advance(c); err != nil {
				yield(Record{}, err)
				return
			}
		}
		for len(open) > 0 {
			first := slices.MinFunc(open, func(a, b *cursor) int { return cmp.Compare(a.record.Position, b.record.Position) }).record
			if !yield(first, nil) {
				return
			}
			for _, c := range slices.Clone(open) {
				if c.record.Position != first.Position {
					continue
				}
				if err := advance(c); err != nil {
					yield(Record{}, err)
					return
				}
			}
		}
	}
}
