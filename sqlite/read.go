package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/progress"
	"github.com/thalo-go/es/internal/tag"
)

// background is for calls of the driver that do not block. For a context that can end, the driver starts a goroutine.
var background = context.Background()

// Records are read in pages that are buffered, so that no connection is held while the loop body runs.
// Pages grow, so that reading a few records stays cheap. pageBytes bounds the memory.
const (
	firstPage = 64
	lastPage  = 1024
	pageBytes = 4 << 20
)

// filterSpan is the number of positions that a filtered read scans in one transaction. While a transaction reads, SQLite cannot reset
// its write-ahead log, so a scan of the whole log would make that file grow.
const filterSpan = 20_000

// The filtered read scans by position ("not indexed"). With the index on kinds, SQLite would sort all matches for each page.
const (
	selectStream   = "select position, version, time, type, data, meta, tags from es_events where kind = ? and id = ? and version > ? order by version limit ?"
	selectAll      = "select position, version, time, type, data, meta, tags, kind, id from es_events where position > ? order by position limit ?"
	selectAt       = "select position, version, time, type, data, meta, tags, kind, id from es_events where position in (select value from json_each(?)) order by position limit ?"
	selectFiltered = `select position, version, time, type, data, meta, tags, kind, id from es_events not indexed
		where position > ?1 and position <= ?2
		and (?4 is null or kind in (select value from json_each(?4)))
		and (?5 is null or type in (select value from json_each(?5)))
		order by position limit ?3`
)

// Read implements [es.Store]. It reads each page in a transaction of its own.
func (s *Store) Read(ctx context.Context, stream es.Stream, after es.Version) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		if err := stream.Check(); err != nil {
			yield(es.Record{}, err)
			return
		}
		after := max(after, 0)
		s.readPages(ctx, yield, "read "+stream.String(), func(last *es.Record, limit int) (string, []driver.Value) {
			if last != nil {
				after = last.Version
			}
			return selectStream, []driver.Value{stream.Kind, stream.ID, int64(after), int64(limit)}
		}, stream)
	}
}

// All implements [es.Log]. It reads each page in a transaction of its own.
func (s *Store) All(ctx context.Context, after es.Position, filter es.Filter) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		after := max(after, 0)
		if len(filter.Tags) > 0 {
			s.tagged(ctx, yield, after, filter)
			return
		}
		if len(filter.Kinds) > 0 || len(filter.Types) > 0 {
			s.filtered(ctx, yield, after, filter)
			return
		}
		s.readPages(ctx, yield, readLog, func(last *es.Record, limit int) (string, []driver.Value) {
			if last != nil {
				after = last.Position
			}
			return selectAll, []driver.Value{int64(after), int64(limit)}
		}, es.Stream{})
	}
}

const readLog = "read the log"

// recall returns the records at positions, which are in order. It reads each page in a transaction of its own.
func (s *Store) recall(ctx context.Context, positions []es.Position) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		s.readPagesFrom(ctx, len(positions)+1, yield, "read records again", func(last *es.Record, limit int) (string, []driver.Value) {
			if last != nil {
				next, _ := slices.BinarySearch(positions, last.Position+1)
				positions = positions[next:]
			}
			list, _ := json.Marshal(positions) // cannot fail for numbers
			return selectAt, []driver.Value{string(list), int64(limit)}
		}, es.Stream{})
	}
}

func (s *Store) filtered(ctx context.Context, yield func(es.Record, error) bool, after es.Position, filter es.Filter) {
	_, head, err := s.end(ctx)
	if err != nil {
		yield(es.Record{}, s.within(ctx, readHead, err))
		return
	}
	kinds, types := names(filter.Kinds), names(filter.Types)
	s.readSpans(ctx, yield, after, head, func(after es.Position) (es.Position, pageQuery, error) {
		upTo := min(after+filterSpan, head)
		return upTo, func(after es.Position, limit int) (string, []driver.Value) {
			return selectFiltered, []driver.Value{int64(after), int64(upTo), int64(limit), kinds, types}
		}, nil
	})
}

// pageQuery returns the query for a page of records after a position.
type pageQuery func(after es.Position, limit int) (string, []driver.Value)

// readSpans reads the log after a position up to its head, one span after the other. span returns where the span after a position ends, and the
// query for its pages.
func (s *Store) readSpans(ctx context.Context, yield func(es.Record, error) bool, after, head es.Position, span func(after es.Position) (es.Position, pageQuery, error)) {
	for after < head {
		upTo, query, err := span(after)
		if err != nil {
			yield(es.Record{}, s.within(ctx, readLog, err))
			return
		}
		more := s.readPages(ctx, yield, readLog, func(last *es.Record, limit int) (string, []driver.Value) {
			if last != nil {
				after = last.Position
			}
			return query(after, limit)
		}, es.Stream{})
		if !more {
			return
		}
		after = upTo
		if after < head && progress.Wanted(ctx) && !yield(progress.Mark(after), nil) {
			return
		}
	}
}

// names returns a list for json_each, or nil if it is empty. It leaves out invalid names, as they match nothing, and JSON would change them.
func names(list []string) driver.Value {
	if len(list) == 0 {
		return nil
	}
	stored := make([]string, 0, len(list))
	for _, name := range list {
		if utf8.ValidString(name) && strings.IndexByte(name, 0) < 0 {
			stored = append(stored, name)
		}
	}
	text, _ := json.Marshal(stored) // cannot fail for strings
	return string(text)
}

// readPages reads page by page and yields the records. next returns the query for the page after a record, or for the first page if last is nil.
// readPages reports whether it reached the end without an error, and the loop did not break.
func (s *Store) readPages(ctx context.Context, yield func(es.Record, error) bool, what string, next func(last *es.Record, limit int) (string, []driver.Value), stream es.Stream) bool {
	return s.readPagesFrom(ctx, firstPage, yield, what, next, stream)
}

// readPagesFrom is readPages with another size of the first page.
func (s *Store) readPagesFrom(ctx context.Context, first int, yield func(es.Record, error) bool, what string, next func(last *es.Record, limit int) (string, []driver.Value), stream es.Stream) bool {
	reused, _ := s.pages.Get().(*[]es.Record)
	if reused == nil {
		reused = new([]es.Record)
	}
	page, most := (*reused)[:0], 0
	defer func() {
		clear(page[:most]) // so that the pool keeps no data alive
		*reused = page
		s.pages.Put(reused)
	}()
	var last *es.Record
	for limit := first; ; limit = min(4*limit, lastPage) {
		query, args := next(last, limit)
		var whole bool
		var err error
		epoch := s.history.seen.Epoch()
		page, whole, err = s.readPage(ctx, page[:0], query, args, limit, stream)
		most = max(most, len(page))
		if err != nil {
			yield(es.Record{}, s.within(ctx, what, err))
			return false
		}
		if n := len(page); n > 0 {
			if stream.Kind == "" {
				s.history.seen.NoteAll(epoch, page)
			} else {
				s.history.seen.Note(epoch, page[n-1].Position, stream)
			}
			if err := s.observe(ctx, &page[n-1]); err != nil {
				yield(es.Record{}, s.within(ctx, what, err))
				return false
			}
		}
		for i := range page {
			if err := ctx.Err(); err != nil {
				yield(es.Record{}, cause.Of(ctx, err))
				return false
			}
			if !yield(page[i], nil) {
				return false
			}
		}
		if whole {
			return true
		}
		last = &page[len(page)-1]
	}
}

// readPage appends up to limit records to a page, fewer if they are large. whole reports whether there are no more.
func (s *Store) readPage(ctx context.Context, page []es.Record, query string, args []driver.Value, limit int, stream es.Stream) (_ []es.Record, whole bool, err error) {
	conn, err := s.reader(ctx)
	if err != nil {
		return page, false, err
	}
	defer conn.Close()
	s.log.reading.RLock()
	defer s.log.reading.RUnlock()
	err = conn.Raw(func(dc any) error {
		// Without the context, as each step is short and watching a context is slow. scan checks it between the steps.
		rows, err := dc.(driver.QueryerContext).QueryContext(background, query, named(args))
		if err != nil {
			return err
		}
		page, whole, err = scan(ctx, page, rows, limit, stream)
		return errors.Join(err, rows.Close())
	})
	return page, whole, err
}

// reader returns a connection for reading.
func (s *Store) reader(ctx context.Context) (*sql.Conn, error) {
	if err := s.files.checkRead(); err != nil {
		return nil, err
	}
	return s.readerConn(ctx)
}

// row reads a single row.
func (s *Store) row(ctx context.Context, query string, args []any, into ...any) error {
	conn, err := s.reader(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	s.log.reading.RLock()
	defer s.log.reading.RUnlock()
	return conn.QueryRowContext(ctx, query, args...).Scan(into...)
}

func scan(ctx context.Context, page []es.Record, rows driver.Rows, limit int, stream es.Stream) (_ []es.Record, whole bool, err error) {
	values := make([]driver.Value, len(rows.Columns()))
	for bytes := 0; len(page) < limit && bytes < pageBytes; {
		if err := ctx.Err(); err != nil {
			return page, false, err
		}
		if err := rows.Next(values); errors.Is(err, io.EOF) {
			return page, true, nil
		} else if err != nil {
			return page, false, err
		}
		page = append(page, es.Record{})
		r := &page[len(page)-1]
		if err := record(r, values, stream); err != nil {
			return page, false, err
		}
		meta, _ := values[5].(string)
		bytes += len(r.Data) + len(meta)
	}
	return page, false, nil
}

// record sets r from a row. The values are not shared with other rows.
func record(r *es.Record, values []driver.Value, stream es.Stream) error {
	if len(values) > 7 {
		stream.Kind, _ = values[7].(string)
		stream.ID, _ = values[8].(string)
	}
	position, _ := values[0].(int64)
	version, _ := values[1].(int64)
	micros, _ := values[2].(int64)
	r.Stream, r.Version, r.Position, r.Time = stream, es.Version(version), es.Position(position), time.UnixMicro(micros).UTC()
	r.Type, _ = values[3].(string)
	r.Data, _ = values[4].([]byte)
	if tags, _ := values[6].(string); tags != "" {
		r.Tags = tag.Split(tags)
	}
	if meta, ok := values[5].(string); ok {
		if err := json.Unmarshal([]byte(meta), &r.Meta); err != nil {
			return fmt.Errorf("metadata of %s at position %d: %w", r.ID(), position, err)
		}
	}
	return nil
}
