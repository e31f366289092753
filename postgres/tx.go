package postgres

import (
	"context"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
)

// In returns a store whose appends and reads are part of the caller's transaction. They take effect when the transaction commits, together
// with its other statements. The transaction must have isolation level read committed.
//
// From the first append until its end, the transaction holds the lock that all appends need. Do the slow work first, then append and
// commit. Other appends wait until then; readers do not.
//
// The commit sends no notification, so followers see the records at their next poll; see [Store.Changed]. Like the transaction, the
// returned store must not be used by several goroutines at the same time.
func (s *Store) In(t pgx.Tx) es.Store { return &inTx{s, t} }

type inTx struct {
	store *Store
	tx    pgx.Tx
}

// Append implements [es.Store] in the transaction. A server error aborts the transaction; a conflict or a duplicate does not.
func (t *inTx) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	if err := es.CheckAppends(appends...); err != nil {
		return 0, err
	}
	r := &commit.Request{Appends: appends}
	for i := range appends {
		r.Events += len(appends[i].Events)
	}
	if err := t.store.refuseInHandler(ctx); err != nil {
		return 0, fmt.Errorf("postgres: append: %w", err)
	}
	if err := checkUTF8(t.tx.Conn()); err != nil {
		return 0, err
	}
	if t.store.inline != nil && r.Events > 0 {
		return t.appendInline(ctx, r)
	}
	a, err := t.append(ctx, t.tx.Conn(), r, t.store.newBatch())
	if err != nil {
		return 0, err
	}
	if r.Events == 0 {
		return 0, nil
	}
	return a.before + es.Position(r.Events), nil
}

// append writes a request in the transaction, which needs neither the cached heads nor the fast path.
func (t *inTx) append(ctx context.Context, conn *pgx.Conn, r *commit.Request, b *batch) (answer, error) {
	var none heads // the transaction may be rolled back, so nothing is learned from it
	none.init()
	b.fill([]*commit.Request{r}, &none, true)
	epoch := t.store.heads.seen.Epoch()
	if err := t.store.startKinds(ctx, t.store.each, conn, b, false); err != nil {
		return answer{}, within(ctx, "append", err)
	}
	a, err := t.store.send(ctx, t.store.each, conn, b, 0, 0)
	if err != nil {
		if classify(err).has(datum) {
			err = fmt.Errorf("%w: %w", es.ErrInvalid, err)
		}
		return a, within(ctx, "append", err)
	}
	if err := verdict(r, b, a, 0); err != nil {
		return a, fmt.Errorf("postgres: %w", err)
	}
	t.store.heads.note(epoch, r.Appends, a.before+es.Position(r.Events))
	return a, nil
}

// Read implements [es.Store] in the transaction. It sees the records that the transaction has appended.
func (t *inTx) Read(ctx context.Context, stream es.Stream, after es.Version) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		if err := stream.Check(); err != nil {
			yield(es.Record{}, err)
			return
		}
		if err := checkUTF8(t.tx.Conn()); err != nil {
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
