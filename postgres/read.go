package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/progress"
	"github.com/thalo-go/es/internal/tag"
)

// Pages are buffered so that no connection is held while the loop body runs. They grow, so that reading a few records is cheap, and their
// bytes are limited.
const (
	firstPage = 64
	lastPage  = 1024
	logPage   = 4096 // of the log, where each page costs a round trip in which the server is idle
	pageBytes = 8 << 20
)

// A page is consecutive records, or a piece of them.
type page struct {
	records []es.Record
	token   int64 // of the last one
	mark    mark
	known   bool // the snapshot had the fingerprint of the mark
	more    bool // other pieces of the page follow
	err     error
	upTo    es.Position // if not 0, the filter excludes the records after the last one up to here
	head    es.Position // of the log, if the statement returns it
	spanEnd es.Position // of the events of a tag that the statement has scanned, if there may be more

	// Of the page up to and including this piece.
	count int  // of records
	size  int  // bytes of their data
	whole bool // no records follow the page
	mixed bool // its records arrived out of order and were dropped
}

// verify notes whether the snapshot had the fingerprint of the mark, given the token at its position.
func (p *page) verify(m mark, token []byte) {
	p.mark, p.known = m, m.position == 0 || token != nil && getInt8(token) == m.token
}

// Read implements [es.Store]. It reads page by page. Streams that many goroutines begin to read at the same time share one query.
func (s *Store) Read(ctx context.Context, stream es.Stream, after es.Version) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		if err := stream.Check(); err != nil {
			yield(es.Record{}, err)
			return
		}
		what := "read " + stream.String()
		after := max(after, 0)
		p, r := s.loader.load(ctx, stream, after)
		defer func() { r.end() }()
		for limit := lastPage; ; p = r.next() {
			if n := len(p.records); n > 0 {
				last := &p.records[n-1]
				if p.known {
					s.heads.read(p.mark, stream, last.Version, last.Position, p.token)
				}
				after = last.Version
			}
			if !p.more && !p.whole && p.err == nil {
				limit = nextLimit(p, limit, lastPage)
				r = s.readStream(ctx, stream, after, limit, nil) // while the loop body handles the last piece
			}
			if !handOut(ctx, p, what, yield) {
				return
			}
		}
	}
}

// All implements [es.Log]. It reads in pages, and prefetches the next one while the loop body runs.
func (s *Store) All(ctx context.Context, after es.Position, filter es.Filter) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		next := s.logReader(ctx, max(after, 0), filter)
		ahead := make(chan page, 1)
		reading := false
		defer func() {
			if reading { // the goroutine must not outlive the loop
				stuck := time.AfterFunc(s.abandonAfter, cancel)
				<-ahead
				stuck.Stop()
			}
			cancel()
		}()
		p := next(firstPage, nil)
		var free []es.Record // the memory of the page before, whose records have all been handed out
		for limit := nextLimit(p, firstPage, logPage); ; {
			if !p.whole && p.err == nil {
				reading = true
				room := slices.Grow(free[:0], limit)
				go func() { ahead <- next(limit, room) }()
			}
			if !handOut(ctx, p, "read the log", yield) {
				return
			}
			free = p.records
			p = <-ahead
			reading = false
			limit = nextLimit(p, limit, logPage)
		}
	}
}

// logReader returns a function that reads the next page of the log.
func (s *Store) logReader(ctx context.Context, after es.Position, filter es.Filter) func(limit int, room []es.Record) page {
	if len(filter.Tags) > 0 {
		return s.taggedReader(ctx, after, filter)
	}
	stmt, names := s.filtered(filter)
	return func(want int, room []es.Record) page {
		p := s.readPage(ctx, func(conn *pgx.Conn) page {
			return s.paced(ctx, want, len(names) > 0, func(limit int, span es.Position) page {
				params := append([][]byte{int8Param(int64(after)), int8Param(int64(limit))}, names...)
				if len(names) > 0 {
					params = slices.Insert(params, 2, int8Param(int64(span)))
				}
				p := s.pageOn(ctx, conn, page{records: room[:0]}, stmt, es.Stream{}, mark{}, limit, nil, params...)
				if p.whole && p.head > after+span {
					p.whole, p.upTo = false, after+span
				}
				return p
			})
		})
		after = p.end(after)
		return p
	}
}

// end returns the position up to which a page has what a filter lets through, if it begins after one.
func (p *page) end(after es.Position) es.Position {
	switch n := len(p.records); {
	case p.upTo > 0:
		return p.upTo
	case n > 0:
		return p.records[n-1].Position
	}
	return after
}

// recall returns the records at positions, which are in order, page by page.
func (s *Store) recall(ctx context.Context, positions []es.Position) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		for left := positions; len(left) > 0; {
			asked := 0
			p := s.readPage(ctx, func(conn *pgx.Conn) page {
				return s.paced(ctx, len(left), false, func(limit int, _ es.Position) page {
					asked = limit
					var at array
					at.reset(oidInt8)
					for _, position := range left[:limit] {
						at.int8(int64(position))
					}
					return s.pageOn(ctx, conn, page{}, s.statements.at, es.Stream{}, mark{}, limit+1, nil, at.param())
				})
			})
			whole := p.whole
			if p.whole = false; !handOut(ctx, p, "read records again", yield) {
				return
			}
			if whole || len(p.records) == 0 {
				left = left[asked:]
				continue
			}
			next, _ := slices.BinarySearch(left, p.records[len(p.records)-1].Position+1)
			left = left[next:]
		}
	}
}

// nextLimit returns the number of records of the page after one: four times as many, or fewer if they would exceed the page's bytes.
// The server does not know that limit, so records beyond it would be sent and dropped.
func nextLimit(p page, limit, most int) int {
	limit = min(4*limit, most)
	if p.size > 0 {
		limit = min(limit, max(1, p.count*pageBytes/p.size))
	}
	return limit
}

// handOut gives a page to the loop body, and reports whether there is more to read.
func handOut(ctx context.Context, p page, what string, yield func(es.Record, error) bool) bool {
	if p.err != nil {
		yield(es.Record{}, within(ctx, what, p.err))
		return false
	}
	for i := range p.records {
		if err := ctx.Err(); err != nil {
			yield(es.Record{}, cause.Of(ctx, err))
			return false
		}
		if !yield(p.records[i], nil) {
			return false
		}
	}
	if p.upTo > 0 && progress.Wanted(ctx) && !yield(progress.Mark(p.upTo), nil) {
		return false
	}
	return !p.whole
}

func (s *Store) filtered(f es.Filter) (*statement, [][]byte) {
	switch {
	case len(f.Kinds) > 0 && len(f.Types) > 0:
		return s.statements.both, [][]byte{textArray(f.Kinds), textArray(f.Types)}
	case len(f.Kinds) > 0:
		return s.statements.kinds, [][]byte{textArray(f.Kinds)}
	case len(f.Types) > 0:
		return s.statements.types, [][]byte{textArray(f.Types)}
	}
	return s.statements.all, nil
}

// textArray encodes the names of a filter. It omits names that no stream or type can have and the server would refuse: they match nothing.
func textArray(names []string) []byte {
	var a array
	a.reset(oidText)
	for _, name := range names {
		if (es.Stream{Kind: "k", ID: name}).Check() == nil || (es.Stream{Kind: name, ID: "i"}).Check() == nil {
			a.text(name)
		}
	}
	return a.param()
}

// A reading is a page that arrives in pieces, so that the caller can handle the first ones early. The channel holds a whole page, so the
// reader never blocks.
type reading struct {
	pieces       chan page
	cancel       context.CancelFunc
	abandonAfter time.Duration
}

const (
	pieceOf      = 64                     // records
	abandonAfter = 100 * time.Millisecond // how long an abandoned page may take to arrive before its query, and so its connection, is cancelled
)

// readStream starts to read a page of a stream. It calls done, if not nil, when the connection is free.
func (s *Store) readStream(ctx context.Context, stream es.Stream, after es.Version, limit int, done func()) *reading {
	ctx, cancel := context.WithCancel(ctx)
	r := &reading{make(chan page, limit/pieceOf+1), cancel, s.abandonAfter}
	go func() {
		defer close(r.pieces)
		m := s.heads.mark()
		last := s.readPage(ctx, func(conn *pgx.Conn) page {
			return s.paced(ctx, limit, false, func(limit int, _ es.Position) page {
				return s.pageOn(ctx, conn, page{}, s.statements.stream, stream, m, limit, func(p page) { r.pieces <- p }, streamParams(stream, after, limit, m)...)
			})
		})
		if done != nil {
			done()
		}
		r.pieces <- last
	}()
	return r
}

// next returns the next piece.
func (r *reading) next() page { return <-r.pieces }

// end waits for the rest of an abandoned page, and cancels the query if that takes long.
func (r *reading) end() {
	if r == nil {
		return
	}
	defer r.cancel()
	if r.drain() {
		return
	}
	stuck := time.AfterFunc(r.abandonAfter, r.cancel)
	defer stuck.Stop()
	for range r.pieces {
	}
}

// drain drops the pieces that have arrived, and reports whether the last was among them.
func (r *reading) drain() bool {
	for {
		select {
		case _, more := <-r.pieces:
			if !more {
				return true
			}
		default:
			return false
		}
	}
}

func streamParams(stream es.Stream, after es.Version, limit int, m mark) [][]byte {
	return [][]byte{[]byte(stream.Kind), []byte(stream.ID), int8Param(int64(after)), int8Param(int64(limit)), int8Param(int64(m.position))}
}

func (s *Store) streamOn(ctx context.Context, conn *pgx.Conn, m mark, stream es.Stream, after es.Version, limit int) page {
	return s.pageOn(ctx, conn, page{}, s.statements.stream, stream, m, limit, nil, streamParams(stream, after, limit, m)...)
}

func (s *Store) readPage(ctx context.Context, read func(conn *pgx.Conn) page) page {
	if s.closed() {
		return page{err: fmt.Errorf("store is %w", es.ErrClosed)}
	}
	conn, err := s.borrowRead(ctx)
	if err != nil {
		return page{err: s.orClosed(err)}
	}
	defer conn.Release()
	p := read(conn.Conn())
	p.err = s.orClosed(p.err)
	return p
}

// pageOn reads a page of a stream or, if stream is zero, of the log, on a connection. It reuses the memory of p.records. If give is not nil,
// it gets each piece but the last one, which is returned.
func (s *Store) pageOn(ctx context.Context, conn *pgx.Conn, p page, stmt *statement, stream es.Stream, m mark, limit int, give func(page), params ...[]byte) page {
	p.whole = true
	epoch := s.heads.seen.Epoch()
	known := func(records []es.Record) { // by the caller, soon
		if n := len(records); stream.Kind == "" {
			s.heads.seen.NoteAll(epoch, records)
		} else if n > 0 {
			s.heads.seen.Note(epoch, records[n-1].Position, stream)
		}
	}
	var mem memory
	p.err = s.each(ctx, conn, stmt, params, func(row [][]byte) error {
		if row[1] == nil { // see filteredStatement
			p.head = es.Position(getInt8(row[0]))
			if row[6] != nil {
				p.spanEnd = es.Position(getInt8(row[6]))
			}
			return nil
		}
		if p.size > pageBytes {
			p.whole = false // the rest is read again, in a smaller page
			return nil
		}
		if give != nil && len(p.records) == pieceOf {
			p.more, p.whole = true, false
			known(p.records)
			give(p)
			p.more, p.whole, p.records = false, true, nil
		}
		r, token, err := mem.record(row, stream)
		if err != nil {
			return err
		}
		p.count++
		p.size += len(r.Data)
		p.records, p.token = append(p.records, r), token
		if stream.Kind != "" {
			p.verify(m, row[7])
		}
		return nil
	})
	if p.count == limit {
		p.whole = false
	}
	known(p.records)
	if n := len(p.records); n > 0 {
		s.grown(p.records[n-1].Position)
	}
	s.grown(p.head)
	return p
}

// A memory allocates names and data of records in few blocks. Recent names are shared, and small data is placed together.
type memory struct {
	names []string // the most recent ones
	free  []byte   // the rest of the last block
	size  int      // of the last block
}

const (
	sharedNames = 8
	firstBlock  = 512     // bytes; each further block is twice as large, up to lastBlock
	lastBlock   = 8 << 10 // also the most memory of other records that one record can keep alive
)

func (m *memory) name(b []byte) string {
	for _, name := range m.names {
		if name == string(b) {
			return name
		}
	}
	if len(m.names) == sharedNames {
		m.names = m.names[:0]
	}
	m.names = append(m.names, string(b))
	return m.names[len(m.names)-1]
}

func (m *memory) bytes(b []byte) []byte {
	if len(b) > lastBlock/8 {
		return bytes.Clone(b)
	}
	if len(b) > len(m.free) {
		m.size = max(firstBlock, min(2*m.size, lastBlock), len(b))
		m.free = make([]byte, m.size)
	}
	own := m.free[:len(b):len(b)]
	m.free = m.free[copy(own, b):]
	return own
}

// record returns the record and the token in a row.
func (m *memory) record(row [][]byte, stream es.Stream) (r es.Record, token int64, err error) {
	if stream.Kind == "" {
		stream = es.Stream{Kind: m.name(row[7]), ID: string(row[8])}
	}
	r = es.Record{
		Stream:   stream,
		Position: es.Position(getInt8(row[0])),
		Version:  es.Version(getInt8(row[1])),
		Time:     getTime(row[2]),
		Type:     m.name(row[3]),
		Data:     m.bytes(row[4]),
	}
	if tags := row[len(row)-1]; len(tags) > 0 {
		r.Tags = tag.Split(string(tags))
	}
	if len(row[5]) > 0 {
		if r.Meta, err = metaOf(row[5]); err != nil {
			return r, 0, fmt.Errorf("metadata of %s at position %d: %w", r.ID(), r.Position, err)
		}
	}
	return r, getInt8(row[6]), nil
}

// metaOf is a separate function because, inlined in record, every meta would escape to the heap.
func metaOf(text []byte) (meta map[string]string, err error) {
	err = json.Unmarshal(text, &meta)
	return meta, err
}

// SaveSnapshot implements [es.Snapshots].
func (s *Store) SaveSnapshot(ctx context.Context, n es.Snapshot) error {
	if err := n.Stream.Check(); err != nil {
		return err
	}
	data := n.Data
	if data == nil {
		data = []byte{}
	}
	return within(ctx, "snapshot of "+n.Stream.String(), s.once(ctx, s.runner(), s.statements.saveSnapshot, [][]byte{
		[]byte(n.Stream.Kind), []byte(n.Stream.ID), int8Param(int64(n.Version)), int8Param(int64(n.Position)), int8Param(int64(n.Schema)), data,
	}, nil))
}

// LoadSnapshot implements [es.Snapshots].
func (s *Store) LoadSnapshot(ctx context.Context, stream es.Stream) (n es.Snapshot, err error) {
	defer cause.Set(ctx, &err)
	if stream.Check() != nil {
		return n, ctx.Err() // it has no snapshot, and the server would refuse the name
	}
	epoch := s.heads.seen.Epoch()
	err = s.once(ctx, s.each, s.statements.loadSnapshot, [][]byte{[]byte(stream.Kind), []byte(stream.ID)}, func(row [][]byte) error {
		n = es.Snapshot{
			Stream: stream, Version: es.Version(getInt8(row[0])), Position: es.Position(getInt8(row[1])), Schema: int(getInt8(row[2])), Data: slices.Clone(row[3]),
		}
		return nil
	})
	if n.Version > 0 {
		s.heads.seen.Note(epoch, n.Position, stream)
	}
	return n, within(ctx, "snapshot of "+stream.String(), err)
}
