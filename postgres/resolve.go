package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
)

// resolve finds out on a new connection about a batch whose answer was lost. It returns the requests that were not written, and gives
// the others their verdicts. It tries until the context ends or the store is closed.
func (t *groupTx) resolve(ctx context.Context, b *batch, known es.Position, cause error) ([]*commit.Request, error) {
	if _, left := errors.AsType[*leftError](cause); !left || t.conn.Conn().IsClosed() {
		t.dropConn()
	}
	waits := t.store.wait("outcome of an append")
	defer waits.done()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		again, err := t.lookUp(ctx, b, &known)
		if err == nil {
			return again, nil
		}
		waits.failed(err)
		if t.store.setsIsolation(err) {
			continue
		}
		if f := classify(err); f.has(refused) && !f.has(blocked) {
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

// lookUp asks the server which events of a batch it has behind a known position, and fences off the batch if it has none. It moves the
// known position.
func (t *groupTx) lookUp(ctx context.Context, b *batch, known *es.Position) (again []*commit.Request, err error) {
	s := t.store
	if t.conn == nil {
		if t.conn, err = s.acquire(ctx); err != nil {
			return nil, err
		}
	}
	if err := t.pass(ctx, b, known); err != nil {
		return nil, err
	}
	landed := make(map[int64]es.Position) // by the number of the event in the batch
	params := [][]byte{int8Param(int64(*known)), int8Param(b.tokens + 1), int8Param(b.tokens + int64(b.events))}
	read := func(row [][]byte) error {
		landed[getInt8(row[1])-b.tokens] = es.Position(getInt8(row[0]))
		return nil
	}
	if err = s.runner()(ctx, t.conn.Conn(), s.statements.resolve, params, read); err == nil {
		err = replicated(t.conn.Conn())
	}
	if err != nil {
		return nil, err
	}
	for i, r := range b.requests {
		position, found := landed[int64(b.last[i])]
		if r.Events == 0 || !found {
			again = append(again, r)
			continue
		}
		s.heads.note(b.epoch, r.Appends, position)
		r.Position, r.Err = position, nil
		s.watcher.wrote(position)
	}
	return again, nil
}

// pass moves a position, behind which the events of a batch are if they were written, beyond what others have appended. No event is inserted
// before one that can be read. The statement that fences off the batch has the lock of all appends, and so it must not read much.
func (t *groupTx) pass(ctx context.Context, b *batch, known *es.Position) error {
	const most = 10_000 // records that a statement reads
	for {
		var end, read int64
		landed := false
		params := [][]byte{int8Param(int64(*known)), int8Param(b.tokens + 1), int8Param(b.tokens + int64(b.events)), int8Param(most)}
		err := t.store.runner()(ctx, t.conn.Conn(), t.store.statements.pass, params, func(row [][]byte) error {
			end, read, landed = getInt8(row[0]), getInt8(row[1]), row[2][0] != 0
			return nil
		})
		if err != nil || landed || read < most {
			return err
		}
		*known = es.Position(end)
	}
}
