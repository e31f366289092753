package postgres

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/bits"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/engine"
)

// A statement is one that the store runs often, in the binary format.
//
// A session keeps the plan of a prepared statement. A plan made while the table is almost empty scans the whole table, and would do so
// after the table has grown, until it is analyzed. So a statement has several names, and takes the next one whenever the log has grown
// fourfold. Under the new name it is prepared and planned again.
type statement struct {
	names [maxGrowth + 1]string
	sql   string
}

const maxGrowth = 64 / 2

// newStatement returns the statement for a text with placeholders; see sql.
func (s *Store) newStatement(sql string) *statement {
	stmt := &statement{sql: s.text(sql)}
	h := fnv.New64a()
	h.Write([]byte(stmt.sql))
	for growth := range stmt.names {
		stmt.names[growth] = fmt.Sprintf("es_%x_%d", h.Sum64(), growth)
	}
	return stmt
}

// grown notes that the log has reached a position.
func (s *Store) grown(position es.Position) {
	growth := int32(bits.Len64(uint64(position)) / 2)
	for old := s.growth.Load(); growth > old; old = s.growth.Load() {
		s.growth.CompareAndSwap(old, growth)
	}
}

// acquire takes a connection from the pool. It retries until the context ends.
func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	ctx = engine.AsProgram(ctx)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		l, err := s.borrow(ctx)
		if err == nil || !classify(err).unreachable() && ctx.Err() == nil {
			return l.pooled, err
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

var binaryFormat = []int16{1} // for all parameters or columns

// query runs a statement in one round trip. It prepares the statement once on each connection. Behind a pooler that lends connections
// by transaction and does not support prepared statements, the statement is parsed each time.
func (s *Store) query(ctx context.Context, conn *pgx.Conn, stmt *statement, params [][]byte) (*pgconn.ResultReader, error) {
	name, err := s.prepareOn(ctx, conn, stmt)
	if err != nil {
		return nil, err
	}
	if name != "" {
		return conn.PgConn().ExecPrepared(ctx, name, params, binaryFormat, binaryFormat), nil
	}
	return conn.PgConn().ExecParams(ctx, stmt.sql, params, nil, binaryFormat, binaryFormat), nil
}

// prepareOn prepares a statement and returns its name, or "" if it has to run without. It returns an error only if the connection broke,
// because later errors would not say why. With any other error the statement fails in the same way without being prepared.
func (s *Store) prepareOn(ctx context.Context, conn *pgx.Conn, stmt *statement) (name string, err error) {
	if s.unprepared.Load() {
		return "", nil
	}
	name = stmt.names[s.growth.Load()]
	usable := !conn.IsClosed()
	if _, err = conn.Prepare(ctx, name, stmt.sql); err == nil {
		return name, nil
	}
	if usable && conn.IsClosed() {
		return "", &unpreparedError{err}
	}
	s.giveUpPrepared(err)
	return "", nil
}

// enqueue adds a statement to a batch, prepared if the store does that.
func (s *Store) enqueue(ctx context.Context, conn *pgx.Conn, batch *pgconn.Batch, stmt *statement, params [][]byte) error {
	name, err := s.prepareOn(ctx, conn, stmt)
	if err != nil {
		return err
	}
	if name != "" {
		batch.ExecPrepared(name, params, binaryFormat, binaryFormat)
		return nil
	}
	batch.ExecParams(stmt.sql, params, nil, binaryFormat, binaryFormat)
	return nil
}

// giveUpPrepared reports whether a pooler lost or mixed up a prepared statement. If so, the store does not prepare statements any more.
func (s *Store) giveUpPrepared(err error) bool {
	if !classify(err).has(lostStatement) {
		return false
	}
	s.unprepared.Store(true)
	return true
}

// each runs a statement and calls f with every row. The values are valid only during the call.
func (s *Store) each(ctx context.Context, conn *pgx.Conn, stmt *statement, params [][]byte, f func(row [][]byte) error) error {
	_, err := s.exec(ctx, conn, stmt, params, f)
	return err
}

// exec is like each, and returns the command tag.
func (s *Store) exec(ctx context.Context, conn *pgx.Conn, stmt *statement, params [][]byte, f func(row [][]byte) error) (pgconn.CommandTag, error) {
	for {
		prepared := !s.unprepared.Load()
		result, err := s.query(ctx, conn, stmt, params)
		if err != nil {
			return pgconn.CommandTag{}, err
		}
		var failed error
		for result.NextRow() {
			if failed == nil {
				failed = f(result.Values())
			}
		}
		tag, err := result.Close()
		// In a transaction of the application, which is aborted now, it is too late to try again.
		if prepared && s.giveUpPrepared(err) && conn.PgConn().TxStatus() == idle {
			continue
		}
		if err != nil {
			return tag, err
		}
		return tag, failed
	}
}

// The status of a connection, as in the protocol's message ReadyForQuery.
const (
	idle    = 'I' // in no transaction
	aborted = 'E' // in a transaction that can only be rolled back
)

// A runner runs a statement and calls read with every row.
type runner func(ctx context.Context, conn *pgx.Conn, stmt *statement, params [][]byte, read func(row [][]byte) error) error

// runner returns the function that runs a statement in a transaction of its own at isolation level read committed.
func (s *Store) runner() runner {
	switch {
	case s.config.ReadOnly:
		return func(context.Context, *pgx.Conn, *statement, [][]byte, func([][]byte) error) error { return errReadOnly }
	case s.wrapped.Load():
		return s.wrap
	}
	return s.each
}

// setsIsolation reports whether a statement failed because the server's default isolation level is not read committed. If so, the store
// wraps such statements from now on, and the caller can repeat the statement.
func (s *Store) setsIsolation(err error) bool {
	return classify(err).has(isolation) && !s.wrapped.Swap(true)
}

// wrap runs a statement in a transaction at isolation level read committed, for servers with another default. It is one round trip.
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
		_, _ = conn.Exec(ctx, "rollback") // if it fails, the pool closes the connection; the first error is the cause
	}
	switch {
	case err == nil:
		return failed
	case unsent:
		return err
	}
	return &sentError{err}
}

// exchange sends several statements in one round trip, and calls read with every row and the number of its statement.
func exchange(ctx context.Context, conn *pgx.Conn, batch *pgconn.Batch, read func(i int, row [][]byte) error) error {
	results := conn.PgConn().ExecBatch(ctx, batch)
	var failed error
	for i := 0; results.NextResult(); i++ {
		reader := results.ResultReader()
		for reader.NextRow() {
			if failed == nil {
				failed = read(i, reader.Values())
			}
		}
	}
	if err := results.Close(); err != nil {
		return err
	}
	return failed
}

// once runs a statement on a connection from the pool.
func (s *Store) once(ctx context.Context, run runner, stmt *statement, params [][]byte, f func(row [][]byte) error) error {
	if s.closed() {
		return fmt.Errorf("store is %w", es.ErrClosed)
	}
	conn, err := s.borrow(ctx)
	if err != nil {
		return s.orClosed(err)
	}
	defer conn.Release()
	return s.orClosed(run(ctx, conn.Conn(), stmt, params, f))
}

// orClosed adds es.ErrClosed to an error if the store, and so its connections, were closed since the call began.
func (s *Store) orClosed(err error) error {
	if err == nil || !s.closed() || errors.Is(err, es.ErrClosed) {
		return err
	}
	return fmt.Errorf("store is %w: %w", es.ErrClosed, err)
}

// top returns the last position of the log and its token.
func (s *Store) top(ctx context.Context, conn *pgx.Conn) (position es.Position, token int64, err error) {
	err = s.each(ctx, conn, s.statements.head, nil, func(row [][]byte) error {
		position, token = es.Position(getInt8(row[0])), getInt8(row[1])
		return nil
	})
	s.grown(position)
	return position, token, err
}
