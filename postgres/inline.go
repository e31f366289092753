package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/projection"
)

// call writes a batch: in one round trip if there are no inline projections, and otherwise in a transaction of
// one round trip to the handlers, those of the handlers, and one to the commit.
func (t *tx) call(ctx context.Context, b *batch, known es.Position, token int64) (answer, error) {
	s, conn := t.store, t.conn.Conn()
	if s.inline == nil || b.events == 0 {
		return s.attempt(ctx, conn, b, known, token)
	}
	a, states, at, err := s.enter(ctx, conn, b, known, token)
	records := b.records(a, at)
	if err == nil && len(records) > 0 {
		if err = s.apply(ctx, conn, a.before, states, records); err == nil {
			err = s.leave(ctx, conn, states, records)
		}
	}
	if status := conn.PgConn().TxStatus(); status != idle && !conn.IsClosed() {
		brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookLimit)
		defer cancel()
		_, _ = conn.Exec(brief, "rollback") // the first error says what is wrong; a connection that stays in the transaction is not used again
	}
	return a, err
}

// An uncommittedError is that of a transaction of which the commit was not sent, or was refused.
type uncommittedError struct{ error }

func (e *uncommittedError) Unwrap() error { return e.error }

func isUncommitted(err error) bool {
	var u *uncommittedError
	return errors.As(err, &u)
}

// enter begins a transaction, writes a batch in it and asks what the projections need, in one round trip.
// A process that stands still with the lock keeps everybody from appending, so the server is to end the transaction then.
func (s *Store) enter(ctx context.Context, conn *pgx.Conn, b *batch, known es.Position, token int64) (a answer, states []engine.State, at time.Time, err error) {
	stmt, params := b.call(&s.statements, known, token)
	queries := s.inline.States()
	states = make([]engine.State, len(queries))
	var batch pgconn.Batch
	batch.ExecParams("begin isolation level read committed", nil, nil, nil, nil)
	batch.ExecParams("select set_config('idle_in_transaction_session_timeout', $1, true)", [][]byte{[]byte(strconv.FormatInt(s.inline.Idle().Milliseconds(), 10))}, nil, nil, nil)
	s.enqueue(ctx, conn, &batch, stmt, params)
	s.enqueue(ctx, conn, &batch, s.statements.time, nil)
	const first = 4 // of the states
	for _, q := range queries {
		batch.ExecParams(q.SQL, textParams(q.Args), nil, nil, nil)
	}
	err = exchange(ctx, conn, &batch, func(i int, row [][]byte) (err error) {
		switch {
		case i == first-2:
			return a.read(row, b.look)
		case i == first-1:
			at = getTime(row[0])
		case i >= first:
			states[i-first], err = readState(row)
		}
		return err
	})
	if err != nil {
		s.giveUpPrepared(err)
		return answer{}, nil, at, &uncommittedError{err}
	}
	return a, states, at, nil
}

// enqueue puts a statement into a batch: prepared, unless the pooler knows nothing of that.
func (s *Store) enqueue(ctx context.Context, conn *pgx.Conn, batch *pgconn.Batch, stmt *statement, params [][]byte) {
	if !s.unprepared.Load() {
		name := stmt.names[s.growth.Load()]
		_, err := conn.Prepare(ctx, name, stmt.sql)
		if err == nil {
			batch.ExecPrepared(name, params, binaryFormat, binaryFormat)
			return
		}
		s.giveUpPrepared(err)
	}
	batch.ExecParams(stmt.sql, params, nil, binaryFormat, binaryFormat)
}

// textParams are parameters as text.
func textParams(args []any) [][]byte {
	params := make([][]byte, len(args))
	for i, arg := range args {
		params[i] = fmt.Append(nil, arg)
	}
	return params
}

func readState(row [][]byte) (engine.State, error) {
	cursor, err := strconv.ParseInt(string(row[0]), 10, 64)
	return engine.State{Cursor: projection.Cursor(cursor), Rebuild: string(row[1]) != "f", Found: true}, err
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

// records returns what a batch has written, as readers will see it. The handlers may keep it.
func (b *batch) records(a answer, at time.Time) []es.Record {
	if a.before < 0 || b.events == 0 {
		return nil
	}
	versions, _ := getInts(b.eVersion.param()) // what was encoded can be decoded
	records := make([]es.Record, 0, b.events)
	i, n := 0, 0 // of the append and of the event in the batch
	for _, r := range b.requests {
		good := verdict(r, b, a, i) == nil
		for j := range r.Appends {
			x := &r.Appends[j]
			for k := range x.Events {
				if good {
					version := versions[n]
					if a.firsts != nil {
						version = a.firsts[i] + int64(k)
					}
					e := &x.Events[k]
					records = append(records, es.Record{
						Stream: x.Stream, Version: es.Version(version), Position: a.before + es.Position(len(records)+1), Time: at,
						Type: e.Type, Data: bytes.Clone(e.Data), Meta: cloneMeta(e.Meta),
					})
				}
				n++
			}
			i++
		}
	}
	return records
}

func cloneMeta(meta map[string]string) map[string]string {
	if len(meta) == 0 {
		return nil
	}
	return maps.Clone(meta)
}

// apply lets the projections handle what was written.
func (s *Store) apply(ctx context.Context, conn *pgx.Conn, before es.Position, states []engine.State, records []es.Record) error {
	t, err := transactionOn(ctx, conn)
	if err == nil {
		err = s.inline.Apply(context.WithValue(ctx, inside{}, s), handed{t}, states, before, records)
	}
	if err == nil {
		err = stillIn(conn)
	}
	var refusal *engine.RefusedError
	switch {
	case err == nil, errors.Is(err, es.ErrUnknownOutcome):
		return err
	case conn.IsClosed() && errors.As(err, &refusal): // no fault of what was to be written
		err = refusal.Err
	}
	return &uncommittedError{err}
}

// stillIn tells whether handlers have left the transaction as they should.
func stillIn(conn *pgx.Conn) error {
	switch conn.PgConn().TxStatus() {
	case idle:
		return fmt.Errorf("%w: the handler of an inline projection has ended the transaction, which is the store's to end", es.ErrUnknownOutcome)
	case aborted:
		return &engine.RefusedError{Projection: "that is inline", Err: errors.New("a statement of its handler failed, and the handler returned no error: return what Exec and Query return")}
	}
	return nil
}

const aborted = 'E' // the status of a connection whose transaction can only be rolled back

// leave moves the checkpoints and commits, in one round trip.
func (s *Store) leave(ctx context.Context, conn *pgx.Conn, states []engine.State, records []es.Record) error {
	var batch pgconn.Batch
	for _, m := range s.inline.Moves(states, records) {
		batch.ExecParams(m.SQL, textParams(m.Args), nil, nil, nil)
	}
	batch.ExecParams("commit", nil, nil, nil, nil)
	unsent := conn.IsClosed() || ctx.Err() != nil
	err := exchange(ctx, conn, &batch, func(int, [][]byte) error { return nil })
	switch {
	case err == nil:
		s.inline.Moved()
		return nil
	case isRefused(err) && !(backend{s}).Passing(err):
		return &uncommittedError{s.inline.Refuse(err)}
	case isRefused(err), unsent:
		return &uncommittedError{err}
	}
	return &sentError{err}
}

// mend does what there is to be done before a batch that was not committed is written again, or returns why it is not.
func (t *tx) mend(ctx context.Context, err error) error {
	const most = 5
	s := t.store
	passing := t.conn.Conn().IsClosed() || (backend{s}).Passing(err)
	if t.conn.Conn().IsClosed() {
		t.broken()
	}
	var refusal *engine.RefusedError
	switch {
	case errors.As(err, &refusal):
		return err
	case errors.Is(err, engine.ErrBehind):
		t.release() // the pool may have no other
		if err := s.inline.CatchUp(ctx); err != nil {
			return fmt.Errorf("nothing was written: %w", err)
		}
	case passing && t.tries < most && ctx.Err() == nil:
		t.tries++
		select {
		case <-time.After((5*time.Millisecond + rand.N(5*time.Millisecond)) << t.tries):
		case <-ctx.Done():
		case <-s.closing:
		}
	default:
		return fmt.Errorf("nothing was written: %w", err)
	}
	if t.conn == nil {
		return t.begin(ctx)
	}
	return nil
}

// split returns the requests for the next batch, and the others.
func (t *tx) split(requests []*commit.Request) (part, apart []*commit.Request) {
	if t.most == 0 || t.most >= len(requests) {
		return requests, nil
	}
	return requests[:t.most], requests[t.most:]
}

// give gives the requests of a batch that could not be written their verdict, and returns those that need another one. If a projection has
// refused one of several, the next batch is half as large; and so on, until the one that it refuses is alone.
func (t *tx) give(b *batch, rest []*commit.Request, err error) []*commit.Request {
	var refusal *engine.RefusedError
	if errors.As(err, &refusal) {
		err = refusal
		if n := len(b.requests); n > 1 {
			t.most = n / 2
			return slices.Concat(b.requests, rest)
		}
		t.most = 1
	}
	fail(b.requests, err)
	return rest
}

// between reads records after a position up to another, in a transaction.
func (s *Store) between(ctx context.Context, t pgx.Tx, after, upTo es.Position, most int) ([]es.Record, error) {
	limit := min(most, int(upTo-after), lastPage)
	p := s.pageOn(ctx, t.Conn(), page{}, s.statements.all, es.Stream{}, mark{}, limit, nil, int8Param(int64(after)), int8Param(int64(limit)))
	return p.records, p.err
}

// handed is a transaction as handlers are given it: the store ends it.
type handed struct{ pgx.Tx }

var errNotYours = errors.New("postgres: the transaction is the store's to end: return nil to commit it, and an error to roll it back")

// Commit implements pgx.Tx.
func (handed) Commit(context.Context) error { return errNotYours }

// Rollback implements pgx.Tx.
func (handed) Rollback(context.Context) error { return errNotYours }

// transactionOn returns the transaction that a connection is in. pgx makes one only together with a statement that begins it, in a round trip
// of its own; so it is made once for each connection.
func transactionOn(ctx context.Context, conn *pgx.Conn) (pgx.Tx, error) {
	const key = "es: transaction"
	kept := conn.PgConn().CustomData()
	if t, ok := kept[key].(pgx.Tx); ok {
		return t, nil
	}
	t, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: "select"})
	if err == nil {
		kept[key] = t
	}
	return t, err
}

// inside is the key under which the context of a handler has its store.
type inside struct{}

// outside refuses an append by a handler, which would wait for ever for the batch that the handler is part of.
func (s *Store) outside(ctx context.Context) error {
	if s.inline != nil && ctx.Value(inside{}) == s {
		return fmt.Errorf("%w: the handler of an inline projection cannot append: do it in a reaction", es.ErrInvalid)
	}
	return nil
}
