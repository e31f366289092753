package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/tag"
)

// Tags are in a column of the event. The index es_tags has their hashes. A reader and a condition compare the tags themselves, so a collision
// of hashes costs time and changes no answer.
//
// "cross join" keeps the order of the tables: the index first.
const (
	selectTagged = `select e.position, version, time, type, data, meta, tags, kind, id from es_tags t cross join es_events e on e.position = t.position
		where t.hash = ?1 and t.position > ?2 and t.position <= ?3 and ` + matches + ` order by t.position limit ?4`
	selectMatch = `select 1 from es_tags t cross join es_events e on e.position = t.position
		where t.hash = ?1 and t.position > ?2 and t.position <= ?3 and ` + matches + ` limit ?4`
	matches = `not exists (select 1 from json_each(?5) j where instr(e.tags, j.value) = 0)
		and (?6 is null or e.kind in (select value from json_each(?6)))
		and (?7 is null or e.type in (select value from json_each(?7)))`

	// The position of the last of so many events of a tag.
	selectTagSpan = `select count(*), coalesce(max(position), 0) from (select position from es_tags where hash = ?1 and position > ?2 and position <= ?3 order by position limit ?4)`

	selectPending = "select kind from es_tagged where done < upto"
	selectKinds   = "select kind, done < upto from es_tagged"
	selectHasKind = "select exists (select 1 from es_events where kind = ?)"
	insertTagged  = "insert into es_tagged (kind, done, upto) values (?, 0, ?) on conflict do nothing"
	insertTag     = "insert into es_tags (hash, position) values (?, ?) on conflict do nothing"
	createTrigger = `create trigger if not exists es_untagged before insert on es_events
		when new.tags = '' and exists (select 1 from es_tagged where kind = new.kind)
		begin select raise(abort, 'es: events of this kind have tags, and this one has none: give the codec that writes it its Tag function'); end`
	selectTaggedKind = "select done, upto from es_tagged where kind = ?"
	updateTags       = "update es_events set tags = ? where position = ? and tags = ''"
	updateTagged     = "update es_tagged set done = ? where kind = ?"
)

const maxPosition = int64(1) << 62

// tagArgs returns the parameters 5 to 7 of matches.
func tagArgs(f es.Filter) [3]driver.Value {
	terms := make([]string, len(f.Tags))
	for i, t := range f.Tags {
		terms[i] = tag.Term(t)
	}
	text, _ := json.Marshal(terms) // cannot fail for strings
	return [...]driver.Value{string(text), names(f.Kinds), names(f.Types)}
}

// tagged reads the records that a filter with tags matches.
func (s *Store) tagged(ctx context.Context, yield func(es.Record, error) bool, after es.Position, filter es.Filter) {
	_, head, err := s.end(ctx)
	if err == nil {
		err = s.tagsAdded(ctx, filter)
	}
	if err != nil {
		yield(es.Record{}, s.within(ctx, readLog, err))
		return
	}
	if filter.Tags = commit.SearchTags(filter); filter.Tags == nil {
		return
	}
	rest := tagArgs(filter)
	s.readSpans(ctx, yield, after, head, func(after es.Position) (es.Position, pageQuery, error) {
		hash, upTo, err := s.tagSpan(ctx, filter.Tags, after, head)
		return upTo, func(after es.Position, limit int) (string, []driver.Value) {
			return selectTagged, []driver.Value{hash, int64(after), int64(upTo), int64(limit), rest[0], rest[1], rest[2]}
		}, err
	})
}

// tagSpan returns the tag by which to read next, and up to which position: that of the last of so many of its events that a transaction scans.
// It is the tag with the fewest events.
func (s *Store) tagSpan(ctx context.Context, tags []string, after, head es.Position) (hash int64, upTo es.Position, err error) {
	least := filterSpan + 1
	for _, t := range tags {
		h := s.writer.hash(t)
		var count int
		var last es.Position
		if err := s.row(ctx, selectTagSpan, []any{h, int64(after), int64(head), filterSpan}, &count, &last); err != nil {
			return 0, 0, err
		}
		if count < filterSpan {
			last = head
		}
		if count < least || count == least && last > upTo {
			hash, upTo, least = h, last, count
		}
	}
	return hash, upTo, nil
}

// tagsAdded returns an error if a filter may match events that do not have their tags yet.
func (s *Store) tagsAdded(ctx context.Context, f es.Filter) error {
	conn, err := s.reader(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	s.log.reading.RLock()
	defer s.log.reading.RUnlock()
	rows, err := conn.QueryContext(ctx, selectPending)
	if err != nil {
		return err
	}
	defer rows.Close()
	var pending []string
	for rows.Next() {
		var kind string
		if err := rows.Scan(&kind); err != nil {
			return err
		}
		pending = append(pending, kind)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return commit.CheckTagsAdded(pending, f)
}

// taggedKinds is what the writer knows of the kinds whose events have tags: whether some of them do not have theirs yet.
type taggedKinds map[string]bool

// loadKinds reads the kinds whose events have tags, unless they are known.
func (w *writer) loadKinds() error {
	if w.kinds != nil {
		return nil
	}
	kinds := make(taggedKinds)
	err := w.each(selectKinds, 2, func(values []driver.Value) {
		kind, _ := values[0].(string)
		pending, _ := values[1].(int64)
		kinds[kind] = pending != 0
	})
	if err == nil {
		w.kinds = kinds
	}
	return err
}

// each runs a statement and calls row with each row that it returns.
func (w *writer) each(query string, columns int, row func(values []driver.Value), args ...driver.Value) error {
	rows, err := w.conn.Query(query, args)
	if err != nil {
		return err
	}
	values := make([]driver.Value, columns)
	for {
		if err := rows.Next(values); errors.Is(err, io.EOF) {
			return rows.Close()
		} else if err != nil {
			return errors.Join(err, rows.Close())
		}
		row(values)
	}
}

// holds returns the verdict on the condition of an append: nil if it holds, before and within the batch.
func (b *batch) holds(a *es.Append) (verdict, err error) {
	if len(a.Unless.Match) == 0 {
		return nil, nil
	}
	conflict := &es.ConflictError{Stream: a.Stream, Expected: a.Expected, Unless: commit.CloneCondition(a.Unless)}
	if a.Unless.After > b.writer.head {
		return fmt.Errorf("%w: %w", conflict, es.ErrRewound), nil
	}
	if err := b.loadKinds(); err != nil {
		return nil, err
	}
	var pending []string
	for kind, is := range b.kinds {
		if is {
			pending = append(pending, kind)
		}
	}
	for _, f := range a.Unless.Match {
		if err := commit.CheckTagsAdded(pending, f); err != nil {
			return err, nil
		}
		for _, i := range b.byTag[f.Tags[0]] {
			if r := &b.rows[i]; f.Match(es.Record{Stream: *r.stream, Type: r.event.Type, Tags: r.event.Tags}) {
				return conflict, nil
			}
		}
		rest := tagArgs(f)
		var one [1]int64
		found, err := b.query(selectMatch, one[:], b.hash(f.Tags[0]), int64(a.Unless.After), maxPosition, int64(1), rest[0], rest[1], rest[2])
		if err != nil || found {
			return conflict, err
		}
	}
	return nil, nil
}

// noteTags adds the tags of a row of the batch, which is the next one.
func (b *batch) noteTags(r *row) {
	set := tag.Set(r.event.Tags)
	if len(set) == 0 {
		return
	}
	r.tags = tag.Join(set)
	if b.byTag == nil {
		b.byTag = make(map[string][]int)
	}
	for _, t := range set {
		b.byTag[t] = append(b.byTag[t], len(b.rows))
	}
}

// insertTags writes the index of the tags of the batch.
func (b *batch) insertTags() error {
	for t, rows := range b.byTag {
		hash := b.hash(t)
		for _, i := range rows {
			if err := b.run(insertTag, hash, int64(b.writer.head)+int64(i)+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// noteKinds notes, before the rows of the batch are written, the kinds whose events have tags from now on.
func (b *batch) noteKinds() error {
	if err := b.loadKinds(); err != nil {
		return err
	}
	for i := range b.rows {
		r := &b.rows[i]
		if _, known := b.kinds[r.stream.Kind]; r.tags == "" || known {
			continue
		}
		pending, err := b.startKind(r.stream.Kind, b.writer.head)
		if err != nil {
			return err
		}
		b.kinds[r.stream.Kind] = pending
	}
	return nil
}

// startKind notes that events of a kind have tags from the end of the log on. It reports whether there are events that may have none.
func (w *writer) startKind(kind string, head es.Position) (pending bool, err error) {
	var has [1]int64
	if _, err := w.query(selectHasKind, has[:], kind); err != nil {
		return false, err
	}
	upTo := es.Position(0)
	if pending = has[0] != 0; pending {
		upTo = head
	}
	if err := w.run(insertTagged, kind, int64(upTo)); err != nil {
		return false, err
	}
	_, err = w.conn.Exec(createTrigger, nil)
	return pending, err
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
	var done, upTo es.Position
	err = s.tagging(ctx, func(w *writer) error {
		if _, err := w.startKind(kind, w.head); err != nil {
			return err
		}
		var span [2]int64
		_, err := w.query(selectTaggedKind, span[:], kind)
		done, upTo = es.Position(span[0]), es.Position(span[1])
		return err
	})
	if err != nil {
		return fmt.Errorf("sqlite: add tags to kind %s: %w", kind, s.explain(err))
	}
	return commit.AddTags(ctx, s, kind, done, upTo, tags, func(page []commit.Added, end es.Position) error {
		if err := s.tagging(ctx, func(w *writer) error { return w.addTags(kind, page, end) }); err != nil {
			return fmt.Errorf("sqlite: add tags to kind %s: %w", kind, s.explain(err))
		}
		return nil
	})
}

func (w *writer) addTags(kind string, page []commit.Added, end es.Position) error {
	for _, a := range page {
		if len(a.Tags) == 0 {
			continue
		}
		if err := w.run(updateTags, tag.Join(a.Tags), int64(a.Position)); err != nil {
			return err
		}
		for _, t := range a.Tags {
			if err := w.run(insertTag, w.hash(t), int64(a.Position)); err != nil {
				return err
			}
		}
	}
	return w.run(updateTagged, int64(end), kind)
}

// tagging runs a function in a transaction of the writing connection.
func (s *Store) tagging(ctx context.Context, f func(w *writer) error) error {
	conn, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(driver any) error {
		w := &s.writer
		c := driver.(*sqlite3.SQLiteConn)
		err := w.ready(c)
		if err == nil {
			w.kinds = nil
			err = f(w)
		}
		if err == nil {
			err = s.commit(func() error {
				_, err := c.Exec("commit", nil)
				return err
			})
		}
		if err != nil {
			_, _ = c.Exec("rollback", nil) // the first error is the cause
			w.forget()
		}
		w.kinds = nil
		return err
	})
}
