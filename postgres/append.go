package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/engine"
)

// Append implements [es.Store]. It waits for its transaction, which it shares with other appends made at the same time.
//
// If the connection breaks before the answer, the store finds out whether the records were written, and writes them if they were not.
// It tries until the context ends. If the server cannot be reached within [Config.ConnectTimeout], nothing was written and the error
// says so.
func (s *Store) Append(ctx context.Context, appends ...es.Append) (_ es.Position, err error) {
	began := s.queue.Clock()
	defer func() { s.queue.Count(began, appends, err) }()
	defer cause.Set(ctx, &err)
	if err := es.CheckAppends(appends...); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if s.config.ReadOnly {
		return 0, fmt.Errorf("postgres: append: %w", errReadOnly)
	}
	if err := s.refuseInHandler(ctx); err != nil {
		return 0, fmt.Errorf("postgres: append: %w", err)
	}
	position, err := s.queue.Append(ctx, appends)
	if err != nil {
		var conflict *es.ConflictError
		var duplicate *es.DuplicateError
		var refusal *engine.RefusedError
		switch {
		case errors.As(err, &refusal): // first, because it may wrap any error
			return 0, fmt.Errorf("postgres: append: %w", err)
		case errors.As(err, &conflict), errors.As(err, &duplicate):
			return 0, fmt.Errorf("postgres: %w", err)
		}
		return 0, within(ctx, "append", err)
	}
	return position, nil
}

var errReadOnly = fmt.Errorf("%w: the store is read-only: open it without Config.ReadOnly to write", es.ErrInvalid)

// begin takes a connection for the next transaction of the group commit.
func (s *Store) begin(ctx context.Context) (commit.Tx, error) {
	t := &groupTx{store: s, batch: &s.batch, combines: s.company.combines()}
	err := t.connect(ctx)
	if s.inline != nil {
		return &inlineTx{groupTx: t}, err
	}
	return t, err
}

// A groupTx writes the requests of a transaction of the group commit.
type groupTx struct {
	store    *Store
	batch    *batch
	conn     *pgxpool.Conn // nil after it broke
	combines bool          // batches are left for the process that has the lock; see combine.go
	most     int           // requests in a batch, since one failed its batch; 0 means any number
}

// connect takes a connection to write on. It waits up to Config.ConnectTimeout for the server.
func (t *groupTx) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.store.config.ConnectTimeout)
	defer cancel()
	conn, err := t.store.acquire(ctx)
	if err != nil {
		return fmt.Errorf("nothing was written: %w", err)
	}
	t.conn = conn
	return nil
}

// Write implements commit.Tx.
func (t *groupTx) Write(ctx context.Context, requests []*commit.Request) {
	defer t.end(requests)
	attempt := t.store.attempt
	if t.combines {
		attempt = t.store.attemptTogether
	}
	for len(requests) > 0 && t.ready(ctx, requests) {
		part, others := t.part(requests)
		rest, _ := t.write(ctx, part, attempt) // only an inline transaction is rolled back
		requests = slices.Concat(rest, others)
	}
}

// part returns the requests to write next and those after them. After a request has failed its batch, the next one is half as large, and
// so on until that request is alone.
func (t *groupTx) part(requests []*commit.Request) (part, others []*commit.Request) {
	if t.most == 0 || t.most >= len(requests) {
		return requests, nil
	}
	return requests[:t.most], requests[t.most:]
}

// ready connects again if the batch before has lost the connection. If that fails, so do the requests.
func (t *groupTx) ready(ctx context.Context, requests []*commit.Request) bool {
	if t.conn != nil {
		return true
	}
	err := t.connect(ctx)
	if err != nil {
		fail(requests, err)
	}
	return err == nil
}

// end runs after the last batch of a transaction.
func (t *groupTx) end(requests []*commit.Request) {
	t.batch.reset() // so that it does not keep the callers' events
	t.store.heads.report(requests)
	t.release()
}

func (t *groupTx) release() {
	if t.conn != nil {
		t.conn.Release()
		t.conn = nil
	}
}

// An attempt writes a batch once. known and token are the fingerprint that the server compares with the log.
type attempt func(ctx context.Context, conn *pgx.Conn, b *batch, known es.Position, token int64) (answer, error)

// write writes one batch, and returns the requests that need another one. The error is that of an attempt that was rolled back: then none
// of the requests returned was written.
func (t *groupTx) write(ctx context.Context, requests []*commit.Request, attempt attempt) ([]*commit.Request, error) {
	s, b := t.store, t.batch
	look := s.cautious > 0
	if look {
		s.cautious--
	}
	for {
		b.fill(requests, &s.heads, look)
		if len(b.requests) == 0 {
			return b.rest, nil
		}
		if len(b.tags.kinds) > 0 {
			if err := s.startKinds(ctx, s.runner(), t.conn.Conn(), b, true); err != nil {
				if t.conn.Conn().IsClosed() {
					t.dropConn()
				}
				fail(b.requests, fmt.Errorf("nothing was written: %w", err))
				return b.unwritten(), nil
			}
		}
		a, err := attempt(ctx, t.conn.Conn(), b, b.known, b.token)
		if err == nil {
			err = replicated(t.conn.Conn())
		}
		switch s.outcome(a, err) {
		case written:
			t.most *= 2
			s.settle(b, a)
			b.refuse(a.before)
			return b.rest, nil
		case rewound:
			for _, r := range requests {
				r.Broken = false // by a record that may be lost
			}
			err = t.rewind(ctx)
		case collided:
			s.cautious = cautiousBatches
			look, err = true, nil
		case isolated:
			err = nil
		case declined:
			s.company.count(func(c *Sharing) { c.Direct++ })
			attempt, err = s.attempt, nil
		case rolledBack:
			return requests, err
		case unsent:
			t.dropConn()
			err = t.connect(ctx)
		case unknown:
			var again []*commit.Request
			cause := err
			if again, err = t.resolve(ctx, b, b.known, cause); err != nil {
				break
			}
			if len(again) == 0 {
				return b.rest, nil
			}
			if _, left := errors.AsType[*leftError](cause); left {
				t.withdraw(ctx, b)
				if s.givesUp(cause) {
					fail(again, cause)
					return b.unwritten(), nil
				}
				attempt = s.attempt
			}
			look = len(again) < len(b.requests) // versions that the store knows of may have grown
			requests = slices.Concat(again, b.unwritten())
		}
		if f := classify(err); f.has(datum) {
			if len(b.requests) > 1 { // one of them has it, and the others can be written
				t.most = len(b.requests) / 2
				return slices.Concat(b.requests, b.unwritten()), nil
			}
			err = fmt.Errorf("%w: %w", es.ErrInvalid, err)
		}
		if err != nil {
			fail(b.requests, err)
			return b.unwritten(), nil
		}
	}
}

// cautiousBatches is how many batches look up heads before they write, after one that met a conflict. Conflicts come in groups.
const cautiousBatches = 8

func fail(requests []*commit.Request, err error) {
	for _, r := range requests {
		r.Err = err
	}
}

// An outcome is what became of an attempt, and decides what happens next.
type outcome int

const (
	written    outcome = iota // or given a verdict
	rewound                   // nothing was written: the log is not the one that the store knows
	collided                  // nothing was written: a stream or a command was there already
	isolated                  // nothing was written: the transaction had another isolation level than read committed; now the store sets it
	declined                  // nothing was written: another process could not write it, and why is known only after sending it directly
	rolledBack                // nothing was written: an inline projection, or the commit, failed
	unsent                    // nothing was written: the connection broke before anything was sent
	failed                    // nothing was written: the server refused it
	unknown                   // the connection broke before the answer
)

// outcome classifies the answer to an attempt.
func (s *Store) outcome(a answer, err error) outcome {
	if err == nil {
		switch a.before {
		case answerRewound:
			return rewound
		case answerCollided:
			return collided
		case answerDeclined:
			return declined
		}
		return written
	}
	if _, ok := errors.AsType[*leftError](err); ok {
		return unknown
	}
	if s.setsIsolation(err) {
		return isolated
	}
	if _, ok := errors.AsType[*uncommittedError](err); ok {
		return rolledBack
	}
	switch {
	case pgconn.SafeToRetry(err):
		return unsent
	case classify(err).has(refused):
		return failed
	}
	return unknown
}

// attempt writes a batch in one round trip, by the fast path if it is open.
func (s *Store) attempt(ctx context.Context, conn *pgx.Conn, b *batch, known es.Position, token int64) (answer, error) {
	if s.takesFastPath(b, known) {
		if done, err := s.appendNext(ctx, conn, b, known, token); done || err != nil {
			return answer{before: known}, err
		}
	}
	began := time.Now()
	a, err := s.send(ctx, s.runner(), conn, b, known, token)
	if err == nil {
		s.solo.observe(a.before == known)
		s.company.met(a.before > known, time.Since(began))
	}
	return a, err
}

// send calls the function that writes a batch, in one round trip.
func (s *Store) send(ctx context.Context, run runner, conn *pgx.Conn, b *batch, known es.Position, token int64) (a answer, err error) {
	stmt, params := b.call(&s.statements, known, token)
	err = run(ctx, conn, stmt, params, func(row [][]byte) error { return b.read(&a, row) })
	return a, err
}

// read reads the row that the function of a batch returned.
func (b *batch) read(a *answer, row [][]byte) error {
	err := a.read(row, b.look)
	if err == nil && b.tags.used && a.before >= 0 {
		err = b.tags.read(row[4:])
	}
	return err
}

// An answer is what the functions that append return.
type answer struct {
	before                  es.Position // the one before the first event, or answerRewound, or answerCollided
	verdicts, firsts, lasts []int64     // of each append, if the function judged them
	served, serves          bool        // another process has written it; it was written with those of others
}

// Answers and verdicts of the functions in migrations/001.sql.
const (
	answerRewound  = -1
	answerCollided = -2
	answerGone     = -3
	answerDeclined = -4

	verdictConflict  = 1
	verdictDuplicate = 2
)

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

// settle gives the requests of a batch their verdicts, and updates the heads and the fingerprint.
func (s *Store) settle(b *batch, a answer) {
	s.heads.mu.Lock()
	defer s.heads.mu.Unlock()
	position := a.before
	i := 0 // of the append in the batch
	last := 0
	for n, r := range b.requests {
		r.Err = verdict(r, b, a, i)
		r.Position = 0
		if r.Err == nil && r.Events > 0 { // without events, the head may include writes newer than the fingerprint
			position += es.Position(r.Events)
			s.heads.note(b.epoch, r.Appends, position)
			r.Position = position
			last = b.last[n]
			for j := range r.Appends {
				s.learnHead(b, &r.Appends[j], a, i+j)
			}
		}
		i += len(r.Appends)
	}
	if last > 0 && position > s.heads.position {
		s.heads.setTop(position, b.tokens+int64(last))
	}
	s.grown(position)
	switch {
	case last > 0 && a.served:
		s.watcher.served(position)
	case last > 0:
		s.watcher.wrote(position)
	case a.serves:
		s.watcher.announce()
	}
}

// learnHead remembers the head of a stream after an append of a batch.
func (s *Store) learnHead(b *batch, a *es.Append, answer answer, i int) {
	if answer.lasts != nil {
		s.heads.learn(a.Stream, es.Version(answer.lasts[i]))
		return
	}
	s.heads.learn(a.Stream, b.heads[a.Stream])
}

// verdict returns the error for a request whose first append is number i of the batch.
func verdict(r *commit.Request, b *batch, a answer, i int) error {
	if a.verdicts == nil {
		return nil
	}
	for j := range r.Appends {
		x := &r.Appends[j]
		switch a.verdicts[i+j] {
		case verdictConflict:
			if b.tags.used {
				if err := b.tags.verdict(x, i+j, a.before); err != nil {
					return err
				}
			}
			return conflictOf(x, b.lost[i+j])
		case verdictDuplicate:
			return &es.DuplicateError{Stream: x.Stream, Command: x.Command, First: es.Version(a.firsts[i+j]), Last: es.Version(a.lasts[i+j])}
		}
	}
	return nil
}

// rewind drops what the store knows of the log, because the database has lost its end, and takes a new fingerprint.
func (t *groupTx) rewind(ctx context.Context) error {
	s, conn := t.store, t.conn.Conn()
	common, err := s.common(ctx, conn)
	if err != nil {
		return err
	}
	position, token, err := s.top(ctx, conn)
	if err == nil {
		s.taggedKinds.Clear()
		s.heads.rewind(common, position, token)
	}
	return err
}

// dropConn drops a connection that broke.
func (t *groupTx) dropConn() {
	t.release()
	if t.store.ownPool {
		t.store.pool.Reset() // where one connection broke, others are likely to be broken
	}
}
