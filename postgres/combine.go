package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/thalo-go/es"
)

// A store whose batches wait for those of other processes combines: it leaves the batch as a request in a table, and then waits for the lock.
// The process that gets the lock writes all requests that lie there, in one transaction. So the processes share a flush as the goroutines of
// one process do. This is flat combining (Hendler, Incze, Shavit, Tzafrir, SPAA 2010), with the advisory lock as its queue.
// migrations/007.sql has the functions; company decides when.
//
// Once the request was sent, another process may write the batch at any time. So every error leaves the outcome unknown, and the store
// resolves it by token before it reports it or tries again. It tries again directly, under a new token.

// A leftError is that of an attempt that may have left its batch for other processes.
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

// Detached implements commit.Detached.
func (t *groupTx) Detached() bool { return t.combines }

// attemptTogether leaves a batch for the process that has the lock, or writes it with those of others.
func (s *Store) attemptTogether(ctx context.Context, conn *pgx.Conn, b *batch, known es.Position, token int64) (a answer, err error) {
	if b.tags.used || b.size() > combinedBytes {
		s.company.count(func(c *Sharing) { c.Direct++ })
		return s.attempt(ctx, conn, b, known, token)
	}
	ctx, cancel := outlast(ctx, s.drainLimit, s.drains)
	defer cancel()
	var c call
	began := time.Now()
	left, err := s.leaveAndServe(ctx, conn, b.request(known, token), int8Param(b.tokens), func(row [][]byte) error {
		c.waited, c.held, c.served = getInt8(row[4]), getInt8(row[5]), getInt4(row[6])
		return a.read(row, b.look && getInt8(row[0]) >= 0)
	})
	if err == nil && a.before == answerGone {
		err = errGone
	}
	switch {
	case err != nil && !left:
		return answer{}, err
	case err != nil:
		s.watcher.announce()                                 // it may have written the batches of others
		if !s.giveUpPrepared(err) && !s.setsIsolation(err) { // which happens once
			s.company.lost(err)
		}
		return answer{}, &leftError{err}
	}
	c.took = time.Since(began)
	s.company.called(c)
	if c.served > 0 && a.before < 0 { // settle does not see this answer
		s.watcher.announce()
	}
	a.served, a.serves = c.served < 0, c.served > 0
	return a, nil
}

// leaveAndServe leaves a request and serves it, in two transactions and one round trip. read is called with the answer. If left is false,
// nothing was sent.
func (s *Store) leaveAndServe(ctx context.Context, conn *pgx.Conn, request [][]byte, ticket []byte, read func(row [][]byte) error) (left bool, err error) {
	var names [2]string
	for i, stmt := range []*statement{s.statements.leave, s.statements.serve} {
		if names[i], err = s.prepareOn(ctx, conn, stmt); err != nil {
			return false, err
		}
	}
	pipeline := conn.PgConn().StartPipeline(ctx)
	send := func(name string, stmt *statement, params [][]byte) {
		if name != "" {
			pipeline.SendQueryPrepared(name, params, binaryFormat, binaryFormat)
			return
		}
		pipeline.SendQueryParams(stmt.sql, params, nil, binaryFormat, binaryFormat)
	}
	control := func(sql string) { pipeline.SendQueryParams(sql, nil, nil, nil, nil) }
	send(names[0], s.statements.leave, request)
	pipeline.SendPipelineSync()
	wrapped := s.wrapped.Load()
	if wrapped {
		control("begin isolation level read committed")
	}
	send(names[1], s.statements.serve, [][]byte{ticket})
	if wrapped {
		control("commit")
	}
	pipeline.SendPipelineSync()
	if err := pipeline.Flush(); err != nil {
		return !pgconn.SafeToRetry(err), err
	}
	err = results(conn, pipeline, func(row [][]byte) error {
		if len(row) == 1 { // of leave
			return nil
		}
		return read(row)
	})
	if wrapped && err != nil && !conn.IsClosed() {
		_, _ = conn.Exec(ctx, "rollback") // if it fails, the pool closes the connection; the first error is the cause
	}
	return true, err
}

// results calls read with every row of a pipeline, closes it, and returns the first error.
func results(conn *pgx.Conn, pipeline *pgconn.Pipeline, read func(row [][]byte) error) error {
	var first error
	note := func(err error) {
		if first == nil {
			first = err
		}
	}
	for !conn.IsClosed() {
		result, err := pipeline.GetResults()
		if err == nil && result == nil {
			break
		}
		note(err)
		if reader, ok := result.(*pgconn.ResultReader); ok {
			for reader.NextRow() {
				note(read(reader.Values()))
			}
			_, err := reader.Close()
			note(err)
		}
	}
	note(pipeline.Close())
	return first
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

// request returns the parameters of the function leave.
func (b *batch) request(known es.Position, token int64) [][]byte {
	p := &b.params
	p.reset()
	p.int8(b.tokens)
	p.int8(int64(known))
	p.int8(token)
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

// outlast returns a context that ends some time after its parent. during is called if the parent ends before cancel is called, and what it
// returns when cancel is called or the time is over.
func outlast(parent context.Context, by time.Duration, during func() (end func())) (ctx context.Context, cancel func()) {
	ctx, end := context.WithCancel(context.WithoutCancel(parent))
	over := make(chan struct{})
	stop := context.AfterFunc(parent, func() {
		defer close(over)
		defer during()()
		timer := time.NewTimer(by)
		defer timer.Stop()
		select {
		case <-timer.C:
			end()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		end()
		if !stop() {
			<-over
		}
	}
}

// drains notes that a call goes on whose callers have left, until end is called.
func (s *Store) drains() (end func()) {
	s.company.count(func(c *Sharing) { c.Draining = true })
	waits := s.wait("end of a batch whose callers have left")
	return func() {
		waits.done()
		s.company.count(func(c *Sharing) { c.Draining = false })
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
