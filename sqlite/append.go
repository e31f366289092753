package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/engine"
)

// Append implements [es.Store]. Concurrent appends share a transaction.
//
// If another process holds the write lock longer than [Config.BusyTimeout], or the disk is full, nothing is written, and the error wraps
// [es.ErrUnavailable]. If the commit fails with an I/O error, or the context ends while the transaction is being written for
// other callers as well, the error wraps [es.ErrUnknownOutcome].
func (s *Store) Append(ctx context.Context, appends ...es.Append) (_ es.Position, err error) {
	began := s.queue.Clock()
	defer func() { s.queue.Count(began, appends, err) }()
	defer cause.Set(ctx, &err)
	if err := es.CheckAppends(appends...); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := s.outside(ctx); err != nil {
		return 0, fmt.Errorf("sqlite: append: %w", err)
	}
	position, err := s.queue.Append(ctx, appends)
	if err != nil {
		var refusal *engine.RefusedError
		if !errors.As(err, &refusal) { // it may wrap any error of a handler
			err = s.explain(err)
		}
		return 0, fmt.Errorf("sqlite: append: %w", err)
	}
	return position, nil
}

var errReadOnly = fmt.Errorf("%w: the store is read-only: open it without Config.ReadOnly", es.ErrInvalid)

// begin begins a transaction that may write. It waits up to Config.BusyTimeout for transactions of other processes.
func (s *Store) begin(ctx context.Context) (conn *sql.Conn, err error) {
	err = s.beginWith(ctx, func(c *sql.Conn) error {
		conn = c
		// Without a context: "begin" does not wait (busy_timeout is 0), and go-sqlite3 starts a goroutine for each context that it watches.
		_, err := c.ExecContext(background, "begin immediate")
		return err
	})
	return conn, err
}

// beginWith calls try with the writing connection until it succeeds. It retries while another process holds the lock.
func (s *Store) beginWith(ctx context.Context, try func(conn *sql.Conn) error) error {
	if s.readOnly {
		return errReadOnly
	}
	if err := s.outside(ctx); err != nil {
		return err
	}
	if err := s.files.check(); err != nil {
		return fmt.Errorf("%w; nothing was written", err)
	}
	return s.turns.take(ctx, s.busy, func() error {
		conn, err := s.writerConn(ctx)
		if err == nil {
			if err = try(conn); err != nil {
				_ = conn.Close() // returns it to the pool
			}
		}
		return err
	})
}

func (s *Store) beginAppend(ctx context.Context) (commit.Tx, error) {
	s.trim(ctx)
	t := &tx{store: s}
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// tx is a transaction of the group commit.
type tx struct {
	store  *Store
	conn   *sql.Conn
	inline *sql.Tx // the same transaction for inline projections; nil without any
}

func (t *tx) begin(ctx context.Context) (err error) {
	if t.store.inline != nil {
		t.conn, t.inline, err = t.store.beginTx(ctx)
	} else {
		t.conn, err = t.store.begin(ctx)
	}
	return err
}

// Write implements commit.Tx. If one request fails the others, because an inline projection refuses it or because of what it appends, Write
// halves the batch until that request is alone. Without inline projections it ignores the context, as only the disk determines how long it
// takes.
func (t *tx) Write(ctx context.Context, requests []*commit.Request) {
	s, most, careful := t.store, max(len(requests), 1), false
	write := t.write
	if t.inline != nil {
		write = t.writeInline
	}
	for {
		part := requests[:min(most, len(requests))]
		err := write(ctx, part, careful)
		var refusal *engine.RefusedError
		refused := errors.As(err, &refusal) // first, because it may wrap any error
		switch {
		case err == nil:
			t.wrote(part)
			requests, most, careful = requests[len(part):], 2*most, false
		case !refused && isConstraint(err) && !careful:
			careful = true // a stream that was assumed to be new exists: try again and read every head
		case refused && (errors.Is(err, engine.ErrCallsStore) || errors.Is(err, engine.ErrEndsTransaction)): // it takes long to find out whose event made the handler do that
			fail(part, refusal)
			requests, most = requests[len(part):], 1
		case (refused || isDatum(err)) && len(part) > 1:
			most = len(part) / 2
		case refused:
			fail(part, refusal)
			requests, most = requests[1:], 1
		case isDatum(err):
			fail(part, fmt.Errorf("%w: %w", es.ErrInvalid, err))
			requests, most = requests[1:], 1
		case errors.Is(err, engine.ErrBehind):
			if err := s.inline.CatchUp(ctx); err != nil {
				fail(requests, err)
				return
			}
		default:
			fail(requests, err) // all verdicts are void: they depend on rows that were not written
			return
		}
		if len(requests) == 0 {
			return
		}
		if err := t.begin(ctx); err != nil {
			fail(requests, err)
			return
		}
	}
}

func fail(requests []*commit.Request, err error) {
	for _, r := range requests {
		r.Position, r.Err = 0, err
	}
}

// wrote estimates what a transaction has added to the write-ahead log.
func (t *tx) wrote(requests []*commit.Request) {
	t.store.log.written += 4 * pageSize // pages changed by every transaction
	for _, r := range requests {
		t.store.log.written += int64(r.Bytes)
	}
}

const pageSize = 4 << 10 // SQLite's own default

// write writes the requests in the open transaction, ends it, and returns the connection to the pool.
func (t *tx) write(_ context.Context, requests []*commit.Request, careful bool) error {
	defer t.conn.Close()
	w := &t.store.writer
	return t.conn.Raw(func(driver any) error {
		err := w.try(driver.(*sqlite3.SQLiteConn), requests, careful, t.store.commit)
		if err == nil {
			t.store.growth.Note(w.view.seen(w.head), nil)
		}
		return err
	})
}

func (w *writer) try(conn *sqlite3.SQLiteConn, requests []*commit.Request, careful bool, commit func(do func() error) error) error {
	b := w.batch(conn, careful)
	err := b.write(requests)
	if err == nil && len(b.rows) > 0 {
		err = commit(func() error {
			_, err := conn.Exec("commit", nil)
			return err
		})
	}
	if err != nil || len(b.rows) == 0 { // also without rows, as it needs no sync
		_, _ = conn.Exec("rollback", nil) // returns an error if SQLite has rolled back already
	}
	if err != nil {
		w.forget()
		return err
	}
	b.committed()
	return nil
}

// batch is the rows of one transaction, and the state of the store after them.
type batch struct {
	*writer
	conn     *sqlite3.SQLiteConn
	careful  bool // read every head that is not cached, including those expected to be 0
	heads    map[es.Stream]es.Version
	commands map[command]span
	rows     []row
	byTag    map[string][]int // rows; nil if none has tags
	head     es.Position
	time     int64 // microseconds since 1970
}

func (w *writer) batch(conn *sqlite3.SQLiteConn, careful bool) *batch {
	return &batch{writer: w, conn: conn, careful: careful, heads: make(map[es.Stream]es.Version)}
}

// write sets the verdicts of the requests and writes those that hold.
func (b *batch) write(requests []*commit.Request) error {
	err := b.ready(b.conn)
	for _, r := range requests {
		if err != nil {
			return err
		}
		r.Position, r.Err, err = b.add(r.Appends)
	}
	if err == nil {
		err = b.insert()
	}
	return err
}

// committed updates the cache of the writer.
func (b *batch) committed() {
	if len(b.rows) == 0 {
		return
	}
	w := b.writer
	w.head, w.time = b.head, b.time
	for stream, version := range b.heads {
		w.heads.Add(stream, version)
		w.history.report(stream)
	}
	for i, r := range b.rows {
		if i+1 == len(b.rows) || b.rows[i+1].stream != r.stream {
			w.history.seen.Note(w.view.rewinds, b.head-es.Position(len(b.rows)-1-i), *r.stream)
		}
	}
	last := b.rows[len(b.rows)-1]
	w.history.saw(w.view, mark{b.head, b.time, *last.stream, last.version})
}

type (
	command struct {
		stream es.Stream
		id     string
	}
	span struct{ first, last es.Version }
	row  struct {
		stream  *es.Stream
		version es.Version
		event   *es.Record
		meta    any // string or nil
		tags    string
	}
)

// add returns the verdict on one call of Append. If there is none, it adds the rows of the call to the batch.
func (b *batch) add(appends []es.Append) (position es.Position, verdict, err error) {
	versions, verdict, err := b.judge(appends, b.careful)
	if verdict != nil && len(appends) > 1 && !b.careful {
		// An earlier stream of this call may have been assumed to be new although it exists. If so, that is the conflict to report.
		versions, verdict, err = b.judge(appends, true)
	}
	if verdict != nil || err != nil {
		return 0, verdict, err
	}
	before := len(b.rows)
	for i := range appends {
		if err := b.take(&appends[i], versions[i]); err != nil {
			return 0, nil, err
		}
	}
	if len(b.rows) > before {
		position = b.writer.head + es.Position(len(b.rows))
	}
	return position, nil, nil
}

// judge returns the current version of each stream of a call, or the verdict on the first append that does not hold.
// careful is as in batch.
func (b *batch) judge(appends []es.Append, careful bool) (versions []es.Version, verdict, err error) {
	var heads map[es.Stream]es.Version // after this call; those of the batch change only if all appends hold
	if len(appends) > 1 {
		heads = make(map[es.Stream]es.Version, len(appends))
	}
	versions = make([]es.Version, len(appends))
	for i := range appends {
		a := &appends[i]
		if a.Command != "" {
			if c, found, err := b.lookUp(command{a.Stream, a.Command}); err != nil {
				return nil, nil, err
			} else if found {
				return nil, &es.DuplicateError{Stream: a.Stream, Command: a.Command, First: c.first, Last: c.last}, nil
			}
		}
		if verdict, err := b.holds(a); verdict != nil || err != nil {
			return nil, verdict, err
		}
		head, earlier := heads[a.Stream]
		if !earlier {
			if head, err = b.headOf(a, careful); err != nil {
				return nil, nil, err
			}
		}
		if a.Expected > 0 && !earlier {
			if lost, err := b.isLost(a, head); err != nil {
				return nil, nil, err
			} else if lost {
				return nil, fmt.Errorf("%w: %w", &es.ConflictError{Stream: a.Stream, Expected: a.Expected}, es.ErrRewound), nil
			}
		}
		if a.Expected != es.AnyVersion && a.Expected != head {
			return nil, &es.ConflictError{Stream: a.Stream, Expected: a.Expected}, nil
		}
		versions[i] = head
		if heads != nil {
			heads[a.Stream] = head + es.Version(len(a.Events))
		}
	}
	return versions, nil, nil
}

func (b *batch) take(a *es.Append, version es.Version) error {
	if len(a.Events) == 0 {
		return nil
	}
	if a.Command != "" {
		if b.commands == nil {
			b.commands = make(map[command]span)
		}
		b.commands[command{a.Stream, a.Command}] = span{version + 1, version + es.Version(len(a.Events))}
	}
	for i := range a.Events {
		e := &a.Events[i]
		version++
		r := row{stream: &a.Stream, version: version, event: e}
		if len(e.Meta) > 0 {
			meta, err := json.Marshal(e.Meta)
			if err != nil {
				return err
			}
			r.meta = string(meta)
		}
		if len(e.Tags) > 0 {
			b.noteTags(&r)
		}
		b.rows = append(b.rows, r)
	}
	b.heads[a.Stream] = version
	return nil
}

// headOf returns the version of the stream of an append, including the rows of the batch so far.
func (b *batch) headOf(a *es.Append, careful bool) (es.Version, error) {
	if head, found := b.heads[a.Stream]; found {
		return head, nil
	}
	if head, found := b.writer.heads.Get(a.Stream); found {
		return head, nil
	}
	if a.Expected == 0 && !careful && len(a.Events) > 0 {
		return 0, nil // if the stream exists, the unique index rejects the row
	}
	return b.selectHead(a.Stream)
}

// isLost reports whether the version that an append expects may be of a history that was lost: the stream did not reach it before the
// histories diverge. It reports that once for each stream.
func (b *batch) isLost(a *es.Append, head es.Version) (bool, error) {
	common, rewound := b.history.rewound(0)
	if !rewound || !b.history.seen.Suspect(a.Stream) {
		return false, nil
	}
	if a.Expected <= head {
		position, err := b.selectPosition(a.Stream, a.Expected)
		if err != nil || position > 0 && position <= common {
			return false, err
		}
	}
	return b.history.report(a.Stream), nil
}

func (b *batch) lookUp(c command) (span, bool, error) {
	if s, found := b.commands[c]; found {
		return s, true, nil
	}
	return b.selectCommand(c)
}
