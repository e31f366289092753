package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/engine"
)

// Append implements [es.Store]. It waits for the transaction that it shares with whoever else appends at the time.
//
// If another process holds the write lock longer than [Config.BusyTimeout], or the disk is full, nothing was written and the error says so.
// If the disk fails at the very commit, or the context ends while the transaction is being written for others as well,
// the error wraps [es.ErrUnknownOutcome].
func (s *Store) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
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
		if !errors.As(err, &refusal) { // its error may be any
			err = explain(err)
		}
		return 0, fmt.Errorf("sqlite: append: %w", err)
	}
	return position, nil
}

var errSealed = fmt.Errorf("%w: the store was opened to read: open it without Config.ReadOnly to write", es.ErrInvalid)

// begin begins a transaction that may write, waiting as long as Config.BusyTimeout for other processes' to end.
func (s *Store) begin(ctx context.Context) (conn *sql.Conn, err error) {
	err = s.beginWith(ctx, func(c *sql.Conn) error {
		conn = c
		// Without a context: beginning does not wait (busy_timeout is 0), and go-sqlite3 starts a goroutine for each context it watches.
		_, err := c.ExecContext(background, "begin immediate")
		return err
	})
	return conn, err
}

// beginWith tries to begin on the connection that writes until it does.
func (s *Store) beginWith(ctx context.Context, try func(conn *sql.Conn) error) error {
	if s.sealed {
		return errSealed
	}
	if err := s.outside(ctx); err != nil {
		return err
	}
	deadline := time.Now().Add(s.busy)
	for {
		conn, err := s.write.Conn(ctx)
		if err == nil {
			if err = try(conn); err == nil {
				return nil
			}
			_ = conn.Close() // hands it back to the pool
		}
		if !isBusy(err) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w, for longer than %v", err, s.busy)
		}
		select {
		case <-time.After(100*time.Microsecond + rand.N(time.Millisecond)): // jittered, so that two processes take turns
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Store) beginAppend(ctx context.Context) (commit.Tx, error) {
	s.trim(ctx)
	t := &tx{store: s}
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// A tx is a transaction of the group commit.
type tx struct {
	store  *Store
	conn   *sql.Conn
	inline *sql.Tx // that of the inline projections, if there are any
}

func (t *tx) begin(ctx context.Context) (err error) {
	if t.store.inline != nil {
		t.conn, t.inline, err = t.store.beginTx(ctx)
	} else {
		t.conn, err = t.store.begin(ctx)
	}
	return err
}

// Write implements commit.Tx. Without inline projections a transaction takes no longer than its disk, so nobody's context ends it.
func (t *tx) Write(ctx context.Context, requests []*commit.Request) {
	if t.inline != nil {
		t.writeInline(ctx, requests)
		return
	}
	err := t.write(requests, false)
	if isConstraint(err) {
		// A stream taken for new is not. Once more, with a look at every head, when other processes give the lock back.
		if t.conn, err = t.store.begin(ctx); err == nil {
			err = t.write(requests, true)
		}
	}
	t.store.log.written += 4 * pageSize // those that every transaction changes
	for _, r := range requests {
		t.store.log.written += int64(r.Bytes)
		if err != nil {
			r.Position, r.Err = 0, err // nobody's verdict stands: it may count on what a neighbour was to write
		}
	}
}

const pageSize = 4 << 10 // SQLite's own default

// write writes the requests in the transaction that is open, ends it, and hands the connection back.
func (t *tx) write(requests []*commit.Request, careful bool) error {
	defer t.conn.Close()
	w := &t.store.writer
	return t.conn.Raw(func(driver any) error {
		err := w.try(driver.(*sqlite3.SQLiteConn), requests, careful)
		if err == nil {
			t.store.watcher.saw(w.head)
		}
		return err
	})
}

func (w *writer) try(conn *sqlite3.SQLiteConn, requests []*commit.Request, careful bool) error {
	b := w.batch(conn, careful)
	err := b.write(requests)
	end := "commit"
	if err != nil || len(b.rows) == 0 {
		end = "rollback" // also when there is nothing to write: it costs no sync
	}
	if _, endErr := conn.Exec(end, nil); err == nil && endErr != nil {
		err = endErr
		if isIO(endErr) {
			err = fmt.Errorf("%w: %w", es.ErrUnknownOutcome, endErr) // after a failed sync, a crash may still bring it to light
		}
		_, _ = conn.Exec("rollback", nil) // fails if SQLite has rolled back already
	}
	if err != nil {
		w.forget()
		return err
	}
	b.committed()
	return nil
}

// A batch is what the requests of one transaction come to.
type batch struct {
	*writer
	conn     *sqlite3.SQLiteConn
	careful  bool // look up every head that is not known, also those that are expected to be 0
	heads    map[es.Stream]es.Version
	commands map[command]span
	rows     []row
	head     es.Position
	time     int64 // microseconds since 1970
}

func (w *writer) batch(conn *sqlite3.SQLiteConn, careful bool) *batch {
	return &batch{writer: w, conn: conn, careful: careful, heads: make(map[es.Stream]es.Version)}
}

// write gives the requests their verdicts, and writes what is good.
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

// committed notes what the writer knows now.
func (b *batch) committed() {
	if len(b.rows) == 0 {
		return
	}
	w := b.writer
	w.head, w.time = b.head, b.time
	for stream, version := range b.heads {
		w.heads.Add(stream, version)
	}
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
	}
)

// add gives the verdict on one call of Append and, if it is good, takes its rows into the batch.
func (b *batch) add(appends []es.Append) (position es.Position, verdict, err error) {
	versions, verdict, err := b.judge(appends, b.careful)
	if verdict != nil && len(appends) > 1 && !b.careful {
		// A stream may have been taken for new that is not: then this call is refused for that, and not for what comes behind.
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

// judge returns the version that each stream of a call has, or the verdict on the first append that does not hold.
// Careful is as in batch.
func (b *batch) judge(appends []es.Append, careful bool) (versions []es.Version, verdict, err error) {
	var heads map[es.Stream]es.Version // as they will be; the batch's own change only if all goes well
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
		head, earlier := heads[a.Stream]
		if !earlier {
			if head, err = b.headOf(a, careful); err != nil {
				return nil, nil, err
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
		b.rows = append(b.rows, r)
	}
	b.heads[a.Stream] = version
	return nil
}

// headOf returns the version of the stream of an append, as it stands in the batch so far.
func (b *batch) headOf(a *es.Append, careful bool) (es.Version, error) {
	if head, found := b.heads[a.Stream]; found {
		return head, nil
	}
	if head, found := b.writer.heads.Get(a.Stream); found {
		return head, nil
	}
	if a.Expected == 0 && !careful && len(a.Events) > 0 {
		return 0, nil // if it is not, the unique index says so
	}
	return b.selectHead(a.Stream)
}

func (b *batch) lookUp(c command) (span, bool, error) {
	if s, found := b.commands[c]; found {
		return s, true, nil
	}
	return b.selectCommand(c)
}

func isIO(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.Code == sqlite3.ErrIoErr
}
