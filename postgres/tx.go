package postgres

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/engine"
)

// In returns a store whose appends and reads are part of a transaction of the application's: they take effect when it commits,
// together with whatever else it does. The transaction must have isolation level read committed.
//
// From the first append on, the transaction holds the lock under which everybody appends, to its end. So make it the last thing: do the
// slow work before, append, commit. While it is open, all other appends wait; readers do not.
//
// Nobody is told of the records when the transaction commits, so followers in other processes see them at their next look
// (see [Store.Changed]). The store must not be used by several goroutines at once, as the transaction must not.
func (s *Store) In(t pgx.Tx) es.Store { return &inTx{s, t} }

type inTx struct {
	store *Store
	tx    pgx.Tx
}

// Append implements [es.Store] within the transaction. An error of the server's leaves the transaction aborted; a conflict or a duplicate does not.
func (t *inTx) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	if err := es.CheckAppends(appends...); err != nil {
		return 0, err
	}
	r := &commit.Request{Appends: appends}
	for i := range appends {
		r.Events += len(appends[i].Events)
	}
	if err := t.store.outside(ctx); err != nil {
		return 0, fmt.Errorf("postgres: append: %w", err)
	}
	if t.store.inline != nil && r.Events > 0 {
		return t.appendInline(ctx, r)
	}
	a, err := t.append(ctx, t.tx.Conn(), r, new(batch))
	if err != nil {
		return 0, err
	}
	if r.Events == 0 {
		return 0, nil
	}
	return a.before + es.Position(r.Events), nil
}

func (t *inTx) append(ctx context.Context, conn *pgx.Conn, r *commit.Request, b *batch) (answer, error) {
	var none heads // what the transaction has written may be rolled back, so nothing is learnt from it
	none.init()
	b.fill([]*commit.Request{r}, &none, true)
	a, err := t.store.call(ctx, t.store.each, conn, b, 0, 0)
	if err != nil {
		return a, within(ctx, "append", err)
	}
	if err := verdict(r, b, a, 0); err != nil {
		return a, fmt.Errorf("postgres: %w", err)
	}
	return a, nil
}

// appendInline appends and lets the inline projections handle it, both or neither: the transaction can go on in either case.
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
		_ = part.Rollback(brief) // the first error says what is wrong
		return 0, err
	}
	return last, nil
}

func (t *inTx) appendPart(ctx context.Context, part pgx.Tx, r *commit.Request) (es.Position, error) {
	s, b, conn := t.store, new(batch), part.Conn()
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
			return scan(&state.Cursor, &state.Rebuild)
		}, q.SQL, q.Args...)
		if err != nil {
			return 0, within(ctx, "append", err)
		}
		states = append(states, state)
	}
	records := b.records(a, at)
	err = s.inline.ApplyAll(context.WithValue(ctx, inside{}, s), handed{part}, states, a.before, records)
	if err == nil {
		err = stillIn(conn)
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

// Read implements [es.Store] within the transaction: it sees what the transaction has appended.
func (t *inTx) Read(ctx context.Context, stream es.Stream, after es.Version) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		if err := stream.Check(); err != nil {
			yield(es.Record{}, err)
			return
		}
		after := max(after, 0)
		for limit := firstPage; ; {
			p := t.store.streamOn(ctx, t.tx.Conn(), mark{}, stream, after, limit)
			if !handOut(ctx, p, "read "+stream.String(), yield) {
				return
			}
			after = p.records[len(p.records)-1].Version
			limit = nextLimit(p, limit, lastPage)
		}
	}
}
