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
	"github.com/thalo-go/es/internal/tag"
	"github.com/thalo-go/es/projection"
)

// An inlineTx is a groupTx whose batches are handled by inline projections before they commit. If a projection refuses a batch, the next
// one is half as large, and so on until the refused request is alone.
type inlineTx struct {
	*groupTx
	tries int // failures that were not due to what is appended
}

// Write implements commit.Tx.
func (t *inlineTx) Write(ctx context.Context, requests []*commit.Request) {
	defer t.end(requests)
	for len(requests) > 0 && t.ready(ctx, requests) {
		part, others := t.part(requests)
		rest, err := t.write(ctx, part, t.store.attemptInline)
		if err != nil {
			rest = t.rolledBack(ctx, rest, err)
		}
		requests = slices.Concat(rest, others)
	}
}

// rolledBack returns the requests that need another batch, after one of them was rolled back with an error.
func (t *inlineTx) rolledBack(ctx context.Context, requests []*commit.Request, err error) []*commit.Request {
	b := t.batch
	broken := t.conn.Conn().IsClosed()
	if broken {
		t.dropConn()
	}
	var refusal *engine.RefusedError
	refused, invalid := errors.As(err, &refusal), classify(err).has(datum)
	switch {
	case refused && errors.Is(err, engine.ErrCallsStore): // it takes long to find out whose event made the handler do that
		err = refusal
	case (refused || invalid) && len(b.requests) > 1:
		t.most = len(b.requests) / 2
		return slices.Concat(b.requests, b.unwritten())
	case refused:
		t.most, err = 1, refusal
	case invalid:
		t.most, err = 1, fmt.Errorf("%w: %w", es.ErrInvalid, err)
	default:
		if err = t.recover(ctx, err, broken || classify(err).has(repeatable)); err == nil {
			return requests
		}
	}
	fail(b.requests, err)
	return b.unwritten()
}

// recover prepares to write a batch again that was rolled back, or returns the error that its requests get.
func (t *inlineTx) recover(ctx context.Context, err error, repeatable bool) error {
	const most = 5
	s := t.store
	switch {
	case errors.Is(err, engine.ErrBehind):
		t.release() // the pool may have no other connection
		if err := s.inline.CatchUp(ctx); err != nil {
			return fmt.Errorf("nothing was written: %w", err)
		}
	case repeatable && t.tries < most && ctx.Err() == nil:
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
		return t.connect(ctx)
	}
	return nil
}

// attemptInline writes a batch and lets the projections handle it, in a transaction of one round trip up to the handlers, those of the
// handlers, and one for the commit. A batch without events is written as without projections.
func (s *Store) attemptInline(ctx context.Context, conn *pgx.Conn, b *batch, known es.Position, token int64) (answer, error) {
	if b.events == 0 {
		return s.attempt(ctx, conn, b, known, token)
	}
	a, states, at, err := s.beginInline(ctx, conn, b, known, token)
	records := b.records(a, at)
	if err == nil && len(records) > 0 {
		if err = s.handleInline(ctx, conn, a.before, states, records); err == nil {
			err = s.commitInline(ctx, conn, states, records)
		}
	}
	if status := conn.PgConn().TxStatus(); status != idle && !conn.IsClosed() {
		brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookLimit)
		defer cancel()
		_, _ = conn.Exec(brief, "rollback") // if it fails, the pool closes the connection; the first error is the cause
	}
	return a, err
}

// beginInline begins a transaction, writes a batch in it and reads the state of the projections, in one round trip. The server ends the
// transaction if this process stops sending while it holds the lock, because no other process can append until then.
func (s *Store) beginInline(ctx context.Context, conn *pgx.Conn, b *batch, known es.Position, token int64) (a answer, states []engine.State, at time.Time, err error) {
	stmt, params := b.call(&s.statements, known, token)
	queries := s.inline.States()
	states = make([]engine.State, len(queries))
	var batch pgconn.Batch
	batch.ExecParams("begin isolation level read committed", nil, nil, nil, nil)
	batch.ExecParams(s.statements.idle.sql, [][]byte{[]byte(strconv.FormatInt(s.inline.Idle().Milliseconds(), 10))}, nil, nil, nil)
	if err := errors.Join(s.enqueue(ctx, conn, &batch, stmt, params), s.enqueue(ctx, conn, &batch, s.statements.time, nil)); err != nil {
		return answer{}, nil, at, &uncommittedError{err}
	}
	const first = 4 // of the states
	for _, q := range queries {
		batch.ExecParams(q.SQL, textParams(q.Args), nil, nil, nil)
	}
	err = exchange(ctx, conn, &batch, func(i int, row [][]byte) (err error) {
		switch {
		case i == first-2:
			return b.read(&a, row)
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

// textParams returns parameters in the text format.
func textParams(args []any) [][]byte {
	params := make([][]byte, len(args))
	for i, arg := range args {
		params[i] = fmt.Append(nil, arg)
	}
	return params
}

func readState(row [][]byte) (engine.State, error) {
	var numbers [3]int64
	for i, column := range []int{0, 2, 3} {
		var err error
		if numbers[i], err = strconv.ParseInt(string(row[column]), 10, 64); err != nil {
			return engine.State{}, err
		}
	}
	return engine.State{
		Cursor: projection.Cursor(numbers[0]), Rebuild: string(row[1]) != "f", Filter: numbers[1], PastEnd: projection.Cursor(numbers[2]), Found: true,
	}, nil
}

// records returns what a batch has written, as readers will see it. The handlers may keep the records.
func (b *batch) records(a answer, at time.Time) []es.Record {
	if a.before < 0 || b.events == 0 {
		return nil
	}
	versions, _ := getInts(b.eVersion.param()) // has no error: it was encoded here
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
						Type: e.Type, Data: bytes.Clone(e.Data), Meta: cloneMeta(e.Meta), Tags: tag.Set(e.Tags),
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

// handleInline lets the projections handle what was written.
func (s *Store) handleInline(ctx context.Context, conn *pgx.Conn, before es.Position, states []engine.State, records []es.Record) error {
	t, err := transactionOn(ctx, conn)
	if err == nil {
		err = s.applyInline(ctx, conn, t, before, states, records)
	}
	if err == nil {
		err = checkTransaction(conn)
	}
	var refusal *engine.RefusedError
	switch {
	case err == nil, errors.Is(err, es.ErrUnknownOutcome):
		return err
	case errors.Is(err, engine.ErrCallsStore):
	case conn.IsClosed() && errors.As(err, &refusal): // the handler failed because the connection broke
		err = refusal.Err
	}
	return &uncommittedError{err}
}

// applyInline calls the handlers. If the server ends their transaction, which no other append can wait for, the appends of this store fail
// until the handlers return, because a handler may wait for one of them.
func (s *Store) applyInline(ctx context.Context, conn *pgx.Conn, t pgx.Tx, before es.Position, states []engine.State, records []es.Record) error {
	return s.whileHeld(ctx, conn, func(ctx context.Context, h *handling, by *engine.Handler) error {
		return s.inline.Apply(ctx, handlerTx{t, h, false}, states, before, records, by)
	})
}

// whileHeld calls the handlers. Their context ends with their transaction.
func (s *Store) whileHeld(ctx context.Context, conn *pgx.Conn, apply func(context.Context, *handling, *engine.Handler) error) error {
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, inHandler{}, s))
	defer cancel(nil)
	by := s.inline.Handler()
	hold := by.Hold(s.inline.Idle())
	h := handle(conn, s.inline.Idle(), func(cause error) {
		cancel(cause)
		s.queue.Block(hold.Overdue())
	})
	h.whenLate(func() { s.queue.Block(hold.Overdue()) })
	defer s.queue.Unblock()
	defer h.stop() // also if a handler panics
	err := apply(ctx, h, by)
	h.stop()
	if errors.Is(err, engine.ErrCallsStore) {
		return err
	}
	verdict := h.verdict(err)
	if h.ended != nil && hold.Left() <= 0 {
		return fmt.Errorf("%w: %w", hold.Overdue(), verdict)
	}
	return verdict
}

// checkTransaction checks that no handler ended or aborted the transaction.
func checkTransaction(conn *pgx.Conn) error {
	switch conn.PgConn().TxStatus() {
	case idle:
		return fmt.Errorf("%w: the handler of an inline projection ended the transaction, which only the store may end", es.ErrUnknownOutcome)
	case aborted:
		return &engine.RefusedError{Projection: "that is inline", Err: errors.New("a statement of its handler failed and the handler returned no error: return the errors of Exec and Query")}
	}
	return nil
}

// commitInline moves the checkpoints and commits, in one round trip.
func (s *Store) commitInline(ctx context.Context, conn *pgx.Conn, states []engine.State, records []es.Record) error {
	var batch pgconn.Batch
	for _, m := range s.inline.Moves(states, records) {
		batch.ExecParams(m.SQL, textParams(m.Args), nil, nil, nil)
	}
	batch.ExecParams("commit", nil, nil, nil, nil)
	unsent := conn.IsClosed() || ctx.Err() != nil
	err := exchange(ctx, conn, &batch, func(int, [][]byte) error { return nil })
	switch f := classify(err); {
	case err == nil:
		s.inline.Moved()
		return nil
	case f.has(refused) && !f.passing():
		return &uncommittedError{s.inline.Refuse(err)}
	case f.has(refused), unsent:
		return &uncommittedError{err}
	}
	return &sentError{err}
}

// readRange reads records after a position up to another, in a transaction.
func (s *Store) readRange(ctx context.Context, t pgx.Tx, after, upTo es.Position, most int) ([]es.Record, error) {
	limit, _ := s.pace.limits(min(most, int(upTo-after), lastPage))
	began := time.Now()
	p := s.pageOn(ctx, t.Conn(), page{}, s.statements.all, es.Stream{}, mark{}, limit, nil, int8Param(int64(after)), int8Param(int64(limit)))
	if classify(p.err).code == queryCanceled { // the transaction is aborted, and the next one reads less
		s.pace.cut(time.Since(began), limit, 0, p.count)
	}
	return p.records, p.err
}

// transactionOn returns the transaction that a connection is in. pgx makes a pgx.Tx only together with a statement that begins the
// transaction, in a round trip of its own. So one is made once for each connection and kept.
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

// inHandler is the key of the store in the context of its handlers.
type inHandler struct{}

// refuseInHandler refuses an append by a handler, which would wait forever for its own batch.
func (s *Store) refuseInHandler(ctx context.Context) error {
	if s.inline != nil && ctx.Value(inHandler{}) == s {
		return fmt.Errorf("%w: the handler of an inline projection cannot append: use a reaction", es.ErrInvalid)
	}
	return nil
}

// appendInline appends in the application's transaction and lets the inline projections handle it. If that fails, the transaction is as it
// was before and can continue.
func (t *inTx) appendInline(ctx context.Context, r *commit.Request) (es.Position, error) {
	part, err := t.tx.Begin(ctx)
	if err != nil {
		return 0, within(ctx, "append", err)
	}
	last, err := t.appendPart(ctx, part, r)
	if err == nil {
		err = within(ctx, "append", part.Commit(ctx))
	}
	if err != nil {
		brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookLimit)
		defer cancel()
		_ = part.Rollback(brief) // the first error is the cause
		return 0, err
	}
	return last, nil
}

func (t *inTx) appendPart(ctx context.Context, part pgx.Tx, r *commit.Request) (es.Position, error) {
	s, b, conn := t.store, t.store.newBatch(), part.Conn()
	a, err := t.append(ctx, conn, r, b)
	if err != nil {
		return 0, err
	}
	var at time.Time
	err = s.each(ctx, conn, s.statements.time, nil, func(row [][]byte) error {
		at = getTime(row[0])
		return nil
	})
	if err != nil {
		return 0, within(ctx, "append", err)
	}
	db, states := backend{s}, []engine.State(nil)
	for _, q := range s.inline.States() {
		var state engine.State
		err := db.Query(ctx, part, func(scan func(...any) error) error {
			state.Found = true
			return scan(&state.Cursor, &state.Rebuild, &state.Filter, &state.PastEnd)
		}, q.SQL, q.Args...)
		if err != nil {
			return 0, within(ctx, "append", err)
		}
		states = append(states, state)
	}
	records := b.records(a, at)
	err = s.whileHeld(ctx, conn, func(ctx context.Context, h *handling, by *engine.Handler) error {
		return s.inline.ApplyAll(ctx, handlerTx{part, h, false}, states, a.before, records, by)
	})
	if err == nil {
		err = checkTransaction(conn)
	}
	if err != nil {
		return 0, fmt.Errorf("postgres: append: %w", err)
	}
	for _, m := range s.inline.Moves(states, records) {
		if _, err := db.Exec(ctx, part, m.SQL, m.Args...); err != nil {
			return 0, within(ctx, "append", err)
		}
	}
	return records[len(records)-1].Position, nil
}
