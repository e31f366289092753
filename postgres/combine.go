package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
)

// A store whose batches wait for those of other processes combines: one call leaves the batch as a request in a table and then waits for the
// lock, and the process that gets it writes all requests that lie there, in one transaction. So the processes share a flush as the
// goroutines of one process do. This is flat combining (Hendler, Incze, Shavit, Tzafrir, SPAA 2010), with the advisory lock as its
// queue. migrations/007.sql has the functions; company decides when.
//
// Once the call was sent, another process may write the batch at any time. So every error of the call leaves the outcome unknown, and the
// store resolves it by token before it reports it or tries again. It tries again directly, under a new token.

// A leftError is that of a call that may have left its batch for other processes.
type leftError struct{ error }

func (e *leftError) Unwrap() error { return e.error }

// SafeToRetry is the method that pgconn.SafeToRetry looks for.
func (e *leftError) SafeToRetry() bool { return false }

var errGone = errors.New("the request was removed and has no answer")

const (
	// combinedBytes is the size of a batch up to which it is left. The server would compress a larger one and move it out of line, and a flush is
	// well shared by so many events already.
	combinedBytes = 6 << 10

	// drainLimit is how long a call goes on after its last caller has left. Ending it earlier would cancel a transaction at the server that
	// others may share, or its wait for a synchronous standby.
	drainLimit = 15 * time.Second
)

// batches has the memory of the batches in flight.
var batches = sync.Pool{New: func() any { return new(batch) }}

// Fly implements commit.Flyer.
func (t *groupTx) Fly(ctx context.Context, requests []*commit.Request) {
	t.batch = batches.Get().(*batch)
	t.batch.together = true
	defer func(b *batch) {
		b.together = false
		batches.Put(b)
	}(t.batch)
	defer t.end(requests)
	for len(requests) > 0 && t.ready(ctx, requests) {
		part, others := t.part(requests)
		rest, _ := t.write(ctx, part, t.store.attemptTogether) // the error is that of an inline transaction
		requests = slices.Concat(rest, others)
	}
}

// attemptTogether leaves a batch for the process that has the lock, or writes it with those of others.
func (s *Store) attemptTogether(ctx context.Context, conn *pgx.Conn, b *batch, known es.Position, token int64) (answer, error) {
	if b.size() > combinedBytes {
		return s.attemptAlone(ctx, conn, b, known, token)
	}
	ctx, cancel := outlast(ctx, s.drainLimit)
	defer cancel()
	var a answer
	var c call
	began := time.Now()
	err := s.each(ctx, conn, s.statements.together, b.request(known, token), func(row [][]byte) error {
		c.waited, c.held, c.served = getInt8(row[4]), getInt8(row[5]), getInt4(row[6])
		return a.read(row, b.look && getInt8(row[0]) >= 0)
	})
	if err == nil && a.before == answerGone {
		err = errGone
	}
	if err != nil {
		s.company.lost(err)
		return answer{}, &leftError{err}
	}
	c.took = time.Since(began)
	s.company.called(c)
	return a, nil
}

// attemptAlone writes a batch by itself while others are in flight, or while there are sides.
func (s *Store) attemptAlone(ctx context.Context, conn *pgx.Conn, b *batch, known es.Position, token int64) (answer, error) {
	if len(b.also) > 0 {
		if there, err := s.covers(ctx, conn, b); err != nil || !there {
			return answer{before: answerRewound}, err
		}
	}
	return s.send(ctx, s.runner(), conn, b, known, token)
}

// covers reports whether the log has the fingerprint and the sides of a batch.
func (s *Store) covers(ctx context.Context, conn *pgx.Conn, b *batch) (there bool, err error) {
	positions, tokens := b.sides(side{b.known, b.token})
	err = s.each(ctx, conn, s.statements.covers, [][]byte{positions.param(), tokens.param()}, func(row [][]byte) error {
		there = getInt8(row[0]) == int64(len(b.also)+1)
		return nil
	})
	if there {
		s.heads.covered(b)
	}
	return there, err
}

// sides returns the sides of the batch and more, as parameters.
func (b *batch) sides(more ...side) (positions, tokens array) {
	positions.reset(oidInt8)
	tokens.reset(oidInt8)
	for _, sides := range [][]side{b.also, more} {
		for _, s := range sides {
			positions.int8(int64(s.position))
			tokens.int8(s.token)
		}
	}
	return positions, tokens
}

// size returns the approximate size of the request that the batch would leave.
func (b *batch) size() int {
	n := 0
	for _, a := range b.event() {
		n += len(a.buf)
	}
	for _, a := range []*array{&b.cKind, &b.cID, &b.cCommand} {
		n += len(a.buf)
	}
	return n
}

// request returns the parameters of the procedure together.
func (b *batch) request(known es.Position, token int64) [][]byte {
	p := &b.params
	p.reset()
	p.int8(b.tokens)
	p.int8(int64(known))
	p.int8(token)
	positions, tokens := b.sides()
	p.add(positions.param(), tokens.param())
	for _, a := range b.event() {
		p.add(a.param())
	}
	for i, a := range []*array{&b.cKind, &b.cID, &b.cCommand, &b.cFirst, &b.cLast} {
		if b.cKind.n == 0 || b.look && i > 2 {
			p.add(nil)
		} else {
			p.add(a.param())
		}
	}
	for _, a := range []*array{&b.sKind, &b.sID, &b.aCall, &b.aStream, &b.aExpected, &b.aCount, &b.aCommand} {
		if b.look {
			p.add(a.param())
		} else {
			p.add(nil)
		}
	}
	return p.values
}

// givesUp reports whether the callers of a batch get the error of its call, now that nothing of it was written or will be. Otherwise the batch
// is sent directly: with an error of the request, the callers get that of the direct way.
func (s *Store) givesUp(cause error) bool {
	f := classify(cause)
	return f.has(refused) && f.has(blocked)
}

// withdraw removes a request that is fenced off. If it fails, the next process that serves the request removes it.
func (t *groupTx) withdraw(ctx context.Context, b *batch) {
	_ = t.store.runner()(ctx, t.conn.Conn(), t.store.statements.withdraw, [][]byte{int8Param(b.tokens)}, func([][]byte) error { return nil })
}

// outlast returns a context that ends some time after its parent.
func outlast(parent context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() {
		timer := time.NewTimer(by)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		stop()
		cancel()
	}
}

// sweep removes requests and answers that ended processes have left. A role without the right leaves that to others.
func (s *Store) sweep(ctx context.Context, conn *pgx.Conn) error {
	if !s.company.able() {
		return nil
	}
	err := s.each(ctx, conn, s.statements.sweep, nil, func([][]byte) error { return nil })
	if err != nil && !classify(err).has(refused) {
		return fmt.Errorf("remove old requests: %w", err)
	}
	return nil
}
