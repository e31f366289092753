package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/engine"
)

// Append implements [es.Store]. It waits for the transaction that it shares with whoever else appends at the time.
//
// If the connection breaks before the answer, the store finds out whether the records were written, and writes them if they were not,
// until the context ends. If the server cannot be reached at all for [Config.ConnectTimeout], nothing was written and the error says so.
func (s *Store) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	if err := es.CheckAppends(appends...); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if s.config.ReadOnly {
		return 0, fmt.Errorf("postgres: append: %w", errReadOnly)
	}
	if err := s.outside(ctx); err != nil {
		return 0, fmt.Errorf("postgres: append: %w", err)
	}
	position, err := s.queue.Append(ctx, appends)
	if err != nil {
		var conflict *es.ConflictError
		var duplicate *es.DuplicateError
		var refusal *engine.RefusedError
		switch {
		case errors.As(err, &refusal): // first, for its error may be any
			return 0, fmt.Errorf("postgres: append: %w", err)
		case errors.As(err, &conflict), errors.As(err, &duplicate):
			return 0, fmt.Errorf("postgres: %w", err)
		}
		return 0, within(ctx, "append", err)
	}
	return position, nil
}

var errReadOnly = fmt.Errorf("%w: the store was opened to read: open it without Config.ReadOnly to write", es.ErrInvalid)

// begin takes a connection for the next batch.
func (s *Store) begin(ctx context.Context) (commit.Tx, error) {
	t := &tx{store: s}
	return t, t.begin(ctx)
}

// connect takes a connection, trying again until the context ends.
func (s *Store) connect(ctx context.Context) (*pgxpool.Conn, error) {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		conn, err := s.pool.Acquire(ctx)
		if err == nil || !isConnecting(err) && ctx.Err() == nil {
			return conn, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, fmt.Errorf("no connection to the server: %w", err)
		case <-s.closing:
			return nil, errClosed
		}
	}
}

// A tx is a transaction of the group commit.
type tx struct {
	store *Store
	conn  *pgxpool.Conn // nil after it broke
	most  int           // requests in a batch, since an inline projection refused one; 0 means any number
	tries int           // that came to nothing through the database's fault
}

// begin takes a connection to write on, and waits for the server as long as Config.ConnectTimeout.
func (t *tx) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.store.config.ConnectTimeout)
	defer cancel()
	conn, err := t.store.connect(ctx)
	if err != nil {
		return fmt.Errorf("nothing was written: %w", err)
	}
	t.conn = conn
	return nil
}

// Write implements commit.Tx.
func (t *tx) Write(ctx context.Context, requests []*commit.Request) {
	defer t.release()
	defer t.store.heads.tell(requests)
	defer t.store.batch.reset() // it must not keep the callers' events until others come
	for rest := requests; len(rest) > 0; {
		if t.conn == nil { // the batch before lost it, and gave up
			if err := t.begin(ctx); err != nil {
				fail(rest, err)
				return
			}
		}
		rest = t.write(ctx, rest)
	}
}

func (t *tx) release() {
	if t.conn != nil {
		t.conn.Release()
		t.conn = nil
	}
}

// write brings one batch to its verdicts, and returns the requests that need another one.
func (t *tx) write(ctx context.Context, requests []*commit.Request) []*commit.Request {
	s := t.store
	b := &s.batch
	look := s.cautious > 0
	if look {
		s.cautious--
	}
	for {
		part, apart := t.split(requests)
		rest := b.fill(part, &s.heads, look)
		if len(apart) > 0 {
			rest = slices.Concat(rest, apart)
		}
		if len(b.requests) == 0 {
			return rest
		}
		known, token := s.heads.fingerprint()
		answer, err := t.call(ctx, b, known, token)
		switch {
		case err == nil && answer.before == rewound:
			if err := t.rewind(ctx); err != nil {
				fail(b.requests, err)
				return rest
			}
		case err == nil && answer.before == mustLook:
			look = true
			s.cautious = cautiousBatches
		case err == nil:
			s.settle(b, answer)
			t.most *= 2
			return rest
		case s.remedied(err):
		case isUncommitted(err):
			if err := t.mend(ctx, err); err != nil {
				return t.give(b, rest, err)
			}
		case pgconn.SafeToRetry(err): // nothing was sent
			t.broken()
			if err := t.begin(ctx); err != nil {
				fail(b.requests, err)
				return rest
			}
		case isUnknown(err):
			again, err := t.resolve(ctx, b, known, err)
			if err != nil {
				fail(b.requests, err)
				return rest
			}
			if len(again) == 0 {
				return rest
			}
			requests = slices.Concat(again, rest)
			look = len(again) < len(b.requests)
		default:
			fail(b.requests, err)
			return rest
		}
	}
}

// cautiousBatches is how many batches look up heads first after one that met a conflict: where there is one, there are more.
const cautiousBatches = 8

// remedied tells whether the store has mended what a call failed of, so that it can be made again.
func (s *Store) remedied(err error) bool {
	return sqlState(err) == wrongIsolation && !s.wrapped.Swap(true)
}

// isUnknown tells whether a call may have been carried out although it failed: anything but the server's word that it was not.
func isUnknown(err error) bool { return !isRefused(err) }

func fail(requests []*commit.Request, err error) {
	for _, r := range requests {
		r.Err = err
	}
}

// An answer is what the functions that append return.
type answer struct {
	before                  es.Position // the one before the first event, or rewound, or mustLook
	verdicts, firsts, lasts []int64     // for each append, if they were judged
}

const (
	rewound  = -1
	mustLook = -2
)

const (
	good      = 0
	conflict  = 1
	duplicate = 2
)

// attempt writes a batch, by the short way if there is one.
func (s *Store) attempt(ctx context.Context, conn *pgx.Conn, b *batch, known es.Position, token int64) (a answer, err error) {
	if s.strides(b, known) {
		if written, err := s.step(ctx, conn, b, known, token); written || err != nil {
			return answer{before: known}, err
		}
	}
	if a, err = s.call(ctx, s.alone(), conn, b, known, token); err == nil {
		s.stride.note(a.before == known)
	}
	return a, err
}

// call writes a batch, in one round trip.
func (s *Store) call(ctx context.Context, run runner, conn *pgx.Conn, b *batch, known es.Position, token int64) (a answer, err error) {
	stmt, params := b.call(&s.statements, known, token)
	err = run(ctx, conn, stmt, params, func(row [][]byte) error { return a.read(row, b.look) })
	return a, err
}

// read reads the row that a function returned.
func (a *answer) read(row [][]byte, judged bool) error {
	a.before = es.Position(getInt8(row[0]))
	if !judged {
		return nil
	}
	var errs [3]error
	a.verdicts, errs[0] = getInts(row[1])
	a.firsts, errs[1] = getInts(row[2])
	a.lasts, errs[2] = getInts(row[3])
	return errors.Join(errs[:]...)
}

// A runner runs a statement and calls read with every row.
type runner func(ctx context.Context, conn *pgx.Conn, stmt *statement, params [][]byte, read func(row [][]byte) error) error

// alone returns what runs a statement in a transaction of its own at isolation level read committed.
func (s *Store) alone() runner {
	if s.config.ReadOnly {
		return func(context.Context, *pgx.Conn, *statement, [][]byte, func([][]byte) error) error { return errReadOnly }
	}
	if s.wrapped.Load() {
		return s.wrap
	}
	return s.each
}

// wrap runs a statement in a transaction of its own at isolation level read committed, for servers whose default is another; still one round trip.
func (s *Store) wrap(ctx context.Context, conn *pgx.Conn, stmt *statement, params [][]byte, read func(row [][]byte) error) error {
	var batch pgconn.Batch
	batch.ExecParams("begin isolation level read committed", nil, nil, nil, nil)
	batch.ExecParams(stmt.sql, params, nil, binaryFormat, binaryFormat)
	batch.ExecParams("commit", nil, nil, nil, nil)
	unsent := conn.IsClosed() || ctx.Err() != nil
	results := conn.PgConn().ExecBatch(ctx, &batch)
	var failed error
	for results.NextResult() {
		reader := results.ResultReader()
		for reader.NextRow() {
			failed = errors.Join(failed, read(reader.Values()))
		}
	}
	err := results.Close()
	if err != nil && !conn.IsClosed() {
		_, _ = conn.Exec(ctx, "rollback") // the first error says what is wrong; a connection that stays in the transaction is not used again
	}
	switch {
	case err == nil:
		return failed
	case unsent:
		return err
	}
	return &sentError{err}
}

// A sentError is that of a request that was sent, and so may have been carried out. Of a batch whose connection breaks before its
// answer pgconn says that it is safe to retry: it reports what it meets when it reads once more, from the connection that it has closed.
type sentError struct{ error }

func (e *sentError) Unwrap() error { return e.error }

// SafeToRetry is what pgconn.SafeToRetry asks.
func (e *sentError) SafeToRetry() bool { return false }

// settle gives the requests of a batch their verdicts.
func (s *Store) settle(b *batch, a answer) {
	s.heads.mu.Lock()
	defer s.heads.mu.Unlock()
	position := a.before
	i := 0 // of the append in the batch
	last := 0
	for n, r := range b.requests {
		r.Err = verdict(r, b, a, i)
		r.Position = 0
		if r.Err == nil {
			position += es.Position(r.Events)
			if r.Events > 0 {
				r.Position = position
				last = b.last[n]
			}
			for j := range r.Appends {
				if r.Events == 0 {
					break // others may have written it, behind the fingerprint
				}
				s.note(b, &r.Appends[j], a, i+j)
			}
		}
		i += len(r.Appends)
	}
	if last > 0 && position > s.heads.position {
		s.heads.position, s.heads.token = position, b.tokens+int64(last)
	}
	s.grown(position)
	if last > 0 {
		s.watcher.wrote(position)
	}
}

// note remembers the head that a stream has after an append of a batch.
func (s *Store) note(b *batch, a *es.Append, answer answer, i int) {
	switch {
	case answer.lasts != nil:
		s.heads.learn(a.Stream, es.Version(answer.lasts[i]))
	default:
		s.heads.learn(a.Stream, b.heads[a.Stream])
	}
}

func verdict(r *commit.Request, b *batch, a answer, i int) error {
	for j := range r.Appends {
		if a.verdicts == nil {
			return nil
		}
		x := &r.Appends[j]
		switch a.verdicts[i+j] {
		case conflict:
			return conflictOf(x, b.lost[i+j])
		case duplicate:
			return &es.DuplicateError{Stream: x.Stream, Command: x.Command, First: es.Version(a.firsts[i+j]), Last: es.Version(a.lasts[i+j])}
		}
	}
	return nil
}

// rewind drops what the store knew, because the database has lost its end, and takes a new fingerprint.
func (t *tx) rewind(ctx context.Context) error {
	s := t.store
	position, token, err := s.top(ctx, t.conn.Conn())
	if err == nil {
		s.heads.forget(position, token)
	}
	return err
}

// top returns the last position and the token that stands there.
func (s *Store) top(ctx context.Context, conn *pgx.Conn) (position es.Position, token int64, err error) {
	err = s.each(ctx, conn, s.statements.head, nil, func(row [][]byte) error {
		position, token = es.Position(getInt8(row[0])), getInt8(row[1])
		return nil
	})
	s.grown(position)
	return position, token, err
}

// broken gives up a connection that broke.
func (t *tx) broken() {
	t.release()
	if t.store.ownPool {
		t.store.pool.Reset() // where one connection broke, others are likely to be broken
	}
}

// resolve finds out about a batch whose connection broke before the answer, on a new connection: it returns the requests
// that were not written, and gives the others their verdicts. It tries until the context ends, or the store is closed.
func (t *tx) resolve(ctx context.Context, b *batch, known es.Position, cause error) ([]*commit.Request, error) {
	t.broken()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		again, err := t.ask(ctx, b, known)
		switch {
		case err == nil:
			return again, nil
		case t.store.remedied(err):
			continue
		case isRefused(err) && !isPassing(err):
			return nil, fmt.Errorf("%w: %w; and then: %w", es.ErrUnknownOutcome, cause, err)
		}
		t.release()
		select {
		case <-time.After(wait):
			continue
		case <-ctx.Done():
			err = ctx.Err()
		case <-t.store.closing:
			err = errClosed
		}
		return nil, fmt.Errorf("%w: %w: %w", es.ErrUnknownOutcome, cause, err)
	}
}

func (t *tx) ask(ctx context.Context, b *batch, known es.Position) (again []*commit.Request, err error) {
	s := t.store
	if t.conn == nil {
		if t.conn, err = s.connect(ctx); err != nil {
			return nil, err
		}
	}
	landed := make(map[int64]es.Position) // by the number of the event in the batch
	params := [][]byte{int8Param(int64(known)), int8Param(b.tokens + 1), int8Param(b.tokens + int64(b.events))}
	read := func(row [][]byte) error {
		landed[getInt8(row[1])-b.tokens] = es.Position(getInt8(row[0]))
		return nil
	}
	if err = s.alone()(ctx, t.conn.Conn(), s.statements.resolve, params, read); err != nil {
		return nil, err
	}
	for i, r := range b.requests {
		position, found := landed[int64(b.last[i])]
		if r.Events == 0 || !found {
			again = append(again, r)
			continue
		}
		r.Position, r.Err = position, nil
		s.watcher.wrote(position)
	}
	return again, nil
}

// isNetwork tells whether an error is one of the network rather than of the request.
func isNetwork(err error) bool {
	var network net.Error
	var connect *pgconn.ConnectError
	return errors.As(err, &network) || errors.As(err, &connect) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}
