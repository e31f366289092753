package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/tag"
)

// tagArrays are the parameters of append_tagged beyond those of append_judged, as it names them. A batch without tags and conditions is
// written by the other functions.
type tagArrays struct {
	used                   bool
	eTags                  array
	tEvent, tHash          array
	qAppend, qAfter, qHash array
	qTags, qKinds, qTypes  array
	touched                commit.Touched
	kinds                  []string // of events with tags
	hash                   func(tag string) int64
	failed, lacking        []int64 // appends, as the server has judged them
	pending                string
}

func (t *tagArrays) reset() {
	if !t.used {
		return
	}
	t.used = false
	t.start()
}

func (t *tagArrays) start() {
	for _, a := range []*array{&t.eTags, &t.qTags, &t.qKinds, &t.qTypes} {
		a.reset(oidText)
	}
	for _, a := range []*array{&t.tHash, &t.qAfter, &t.qHash} {
		a.reset(oidInt8)
	}
	for _, a := range []*array{&t.tEvent, &t.qAppend} {
		a.reset(oidInt4)
	}
	t.touched.Reset()
	t.kinds, t.failed, t.lacking, t.pending = nil, nil, nil, ""
}

// tagsOf reports whether a request has tags or conditions.
func tagsOf(r *commit.Request) bool {
	for i := range r.Appends {
		a := &r.Appends[i]
		if len(a.Unless.Match) > 0 {
			return true
		}
		for j := range a.Events {
			if len(a.Events[j].Tags) > 0 {
				return true
			}
		}
	}
	return false
}

// use prepares for a request with tags or conditions, after so many events of the batch.
func (t *tagArrays) use(events int) {
	if t.used {
		return
	}
	t.used = true
	t.start()
	for range events {
		t.eTags.text("")
	}
}

// event adds the tags of event n of the batch, counted from 1.
func (t *tagArrays) event(n int, kind string, tags []string) {
	set := tag.Set(tags)
	t.eTags.text(tag.Join(set))
	for _, x := range set {
		t.tEvent.int4(n)
		t.tHash.int8(t.hash(x))
	}
	if len(set) > 0 && !slices.Contains(t.kinds, kind) {
		t.kinds = append(t.kinds, kind)
	}
}

// condition adds the condition of append n of the batch, counted from 1.
func (t *tagArrays) condition(n int, c *es.Condition) {
	for _, f := range c.Match {
		t.qAppend.int4(n)
		t.qAfter.int8(int64(c.After))
		t.qHash.int8(t.hash(f.Tags[0]))
		t.qTags.text(tag.Pattern(tag.Set(f.Tags)))
		t.qKinds.text(tag.Join(f.Kinds))
		t.qTypes.text(tag.Join(f.Types))
	}
}

// params returns the parameters.
func (t *tagArrays) params(p *params) {
	p.add(t.tEvent.param(), t.tHash.param())
	for _, a := range []*array{&t.qAppend, &t.qAfter, &t.qHash, &t.qTags, &t.qKinds, &t.qTypes} {
		if t.qAppend.n == 0 {
			p.add(nil)
		} else {
			p.add(a.param())
		}
	}
}

// read reads what append_tagged returns beyond append_judged.
func (t *tagArrays) read(row [][]byte) error {
	var errs [2]error
	t.failed, errs[0] = getInts(row[0])
	t.lacking, errs[1] = getInts(row[1])
	t.pending = string(row[2])
	return errors.Join(errs[:]...)
}

// verdict returns the error for an append that is number i of the batch, if its condition is the reason for a conflict.
func (t *tagArrays) verdict(a *es.Append, i int, before es.Position) error {
	n := int64(i + 1)
	switch {
	case slices.Contains(t.lacking, n):
		return commit.CheckTagsAdded([]string{t.pending}, es.Filter{})
	case slices.Contains(t.failed, n):
		return failedCondition(a, before)
	}
	return nil
}

// failedCondition returns the conflict of an append, after a log that ends at a position.
func failedCondition(a *es.Append, end es.Position) error {
	err := &es.ConflictError{Stream: a.Stream, Expected: a.Expected, Unless: commit.CloneCondition(a.Unless)}
	if a.Unless.After > end {
		return fmt.Errorf("%w: %w", err, es.ErrRewound)
	}
	return err
}

// refuse gives the requests that are not in a batch, now that it is written, their verdict if a record of it fails their condition. Those with
// a command may be duplicates, so the server has to judge them, but they hold up no other request.
func (b *batch) refuse(before es.Position) {
	if !b.tags.used || len(b.rest) == 0 {
		return
	}
	b.tags.touched.Reset()
	for _, r := range b.requests {
		if r.Err == nil {
			b.tags.touched.Add(r)
		}
	}
	b.rest = slices.DeleteFunc(b.rest, func(r *commit.Request) bool {
		a, broken := b.tags.touched.Matches(r, before)
		switch {
		case !broken:
			return false
		case len(r.Appends) > 1 || a.Command != "":
			r.Broken = true
			return false
		}
		r.Position, r.Err = 0, failedCondition(a, before+es.Position(b.events))
		return true
	})
}

// ignore drops the row of a function without a result.
func ignore([][]byte) error { return nil }

// newBatch returns a batch that is not the one of the group commit.
func (s *Store) newBatch() *batch {
	b := new(batch)
	b.tags.hash = s.batch.tags.hash
	return b
}

// startKinds notes in the database that events of the kinds of a batch have tags from now on. Kinds that the store has noted cost nothing.
func (s *Store) startKinds(ctx context.Context, run runner, conn *pgx.Conn, b *batch, learn bool) error {
	for _, kind := range b.tags.kinds {
		if _, known := s.taggedKinds.Load(kind); known {
			continue
		}
		if err := run(ctx, conn, s.statements.tagKind, [][]byte{[]byte(kind)}, ignore); err != nil {
			return fmt.Errorf("note that events of kind %s have tags: %w", kind, err)
		}
		if learn {
			s.taggedKinds.Store(kind, true)
		}
	}
	return nil
}

// startTagged returns the tag with the fewest events after a position, by which to read. The error says that events lack their tags.
func (s *Store) startTagged(ctx context.Context, conn *pgx.Conn, after es.Position, f es.Filter) (hash int64, err error) {
	var hashes array
	hashes.reset(oidInt8)
	for _, t := range f.Tags {
		hashes.int8(s.batch.tags.hash(t))
	}
	var pending []string
	least := int64(-1)
	err = s.each(ctx, conn, s.statements.tagStart, [][]byte{int8Param(int64(after)), hashes.param()}, func(row [][]byte) error {
		if row[2] != nil {
			pending = append(pending, string(row[2]))
			return nil
		}
		if count := getInt8(row[1]); least < 0 || count < least {
			least, hash = count, getInt8(row[0])
		}
		return nil
	})
	if err == nil {
		err = commit.CheckTagsAdded(pending, f)
	}
	return hash, err
}

// taggedReader returns a function that reads the next page of the records that a filter with tags matches.
func (s *Store) taggedReader(ctx context.Context, after es.Position, filter es.Filter) func(limit int, room []es.Record) page {
	if filter.Tags = commit.SearchTags(filter); filter.Tags == nil {
		return func(int, []es.Record) page { return page{whole: true} }
	}
	rest := [][]byte{[]byte(tag.Pattern(filter.Tags)), nil, nil}
	for i, names := range [][]string{filter.Kinds, filter.Types} {
		if len(names) > 0 {
			rest[i+1] = textArray(names)
		}
	}
	var hash []byte
	return func(want int, room []es.Record) page {
		p := s.readPage(ctx, func(conn *pgx.Conn) page {
			if hash == nil {
				h, err := s.startTagged(ctx, conn, after, filter)
				if err != nil {
					return page{err: err}
				}
				hash = int8Param(h)
			}
			return s.paced(ctx, want, true, func(limit int, span es.Position) page {
				params := append([][]byte{int8Param(int64(after)), int8Param(int64(limit)), int8Param(int64(span)), hash}, rest...)
				p := s.pageOn(ctx, conn, page{records: room[:0]}, s.statements.tagged, es.Stream{}, mark{}, limit, nil, params...)
				if p.whole && p.spanEnd > 0 {
					p.whole, p.upTo = false, p.spanEnd
				}
				return p
			})
		})
		after = p.end(after)
		return p
	}
}

// AddTags gives the stored events of a kind the tags that a function returns, usually [es.Codec.Tags]. Events that have tags keep them. From
// the first call on, events of this kind are refused if they have no tags.
//
// It is needed once, if a kind has events from before its codec had a Tag function. Until AddTags has returned nil, conditions and filters
// with tags that concern the kind fail with an error that wraps [es.ErrUnavailable]. It runs beside other work, in short transactions. After
// an interruption it continues where it stopped.
func (s *Store) AddTags(ctx context.Context, kind string, tags func(r es.Record) ([]string, error)) (err error) {
	defer cause.Set(ctx, &err)
	if err := (es.Stream{Kind: kind, ID: "i"}).Check(); err != nil {
		return err
	}
	what := "add tags to kind " + kind
	if s.config.ReadOnly {
		return fmt.Errorf("postgres: %s: %w", what, errReadOnly)
	}
	var done, upTo es.Position
	err = s.once(ctx, s.runner(), s.statements.tagKind, [][]byte{[]byte(kind)}, ignore)
	if err == nil {
		err = s.once(ctx, s.each, s.statements.taggedKind, [][]byte{[]byte(kind)}, func(row [][]byte) error {
			done, upTo = es.Position(getInt8(row[0])), es.Position(getInt8(row[1]))
			return nil
		})
	}
	if err != nil {
		return within(ctx, what, err)
	}
	return commit.AddTags(ctx, s, kind, done, upTo, tags, func(page []commit.Added, end es.Position) error {
		return within(ctx, what, s.once(ctx, s.runner(), s.statements.addTags, s.addedParams(kind, page, end), ignore))
	})
}

// addedParams returns the parameters of add_tags.
func (s *Store) addedParams(kind string, page []commit.Added, end es.Position) [][]byte {
	var positions, texts, hash, hPosition array
	for _, a := range []*array{&positions, &hash, &hPosition} {
		a.reset(oidInt8)
	}
	texts.reset(oidText)
	for _, a := range page {
		if len(a.Tags) == 0 {
			continue
		}
		positions.int8(int64(a.Position))
		texts.text(tag.Join(a.Tags))
		for _, t := range a.Tags {
			hash.int8(s.batch.tags.hash(t))
			hPosition.int8(int64(a.Position))
		}
	}
	return [][]byte{[]byte(kind), int8Param(int64(end)), positions.param(), texts.param(), hash.param(), hPosition.param()}
}
