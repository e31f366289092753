package postgres

import (
	"context"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
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
	var none heads // what the transaction has written may be rolled back, so nothing is learnt from it
	none.init()
	var b batch
	b.fill([]*commit.Request{r}, &none, true)
	a, err := t.store.call(ctx, t.store.each, t.tx.Conn(), &b, 0, 0)
	if err != nil {
		return 0, within(ctx, "append", err)
	}
	if err := verdict(r, &b, a, 0); err != nil {
		return 0, fmt.Errorf("postgres: %w", err)
	}
	if r.Events == 0 {
		return 0, nil
	}
	return a.before + es.Position(r.Events), nil
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
			limit = nextLimit(p, limit)
		}
	}
}
