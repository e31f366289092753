package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// shardWorker applies the records of one shard, for one run.
type shardWorker[Tx any] struct {
	engine  *Engine[Tx]
	task    *task[Tx]
	key     Key
	shard   string
	row     Shard        // as last read or written; its cursor is in the past while that is replayed
	present present      // while the past is replayed
	claim   atomic.Int64 // of the row, for the supervisor
	err     error        // nil if it was told to stop or lost the shard

	mu       sync.Mutex
	orders   order
	notified chan struct{} // orders has changed

	// Owned by the goroutine of run.
	parked  map[es.Stream]bool // streams with parked records; their later records must wait
	pending projection.Batch   // read but not yet applied
	limit   int                // records in the next transaction
	suspect projection.Cursor  // batches up to this cursor are divided at once on failure
	retried es.Stream          // the last one whose parked records were retried
	pause   pause

	// Of a reaction with timers.
	firing    piece     // due, read again, and not yet handled
	from      Timer     // no timer of the shard comes before it
	lookAt    time.Time // when to look for timers that are due; zero means now
	lookedAt  time.Time // when the ledger had the time lookedNow
	lookedNow int64
	sawAll    bool // whether that look found all that was due
}

// order is what the supervisor requires of a shard worker.
type order struct {
	leave    bool
	barrier  projection.Cursor // the cursor to stop at; -1 if there is none
	requests []Request
}

func newShardWorker[Tx any](t *task[Tx], r Shard, barrier projection.Cursor) *shardWorker[Tx] {
	s := &shardWorker[Tx]{engine: t.engine, task: t, key: t.key, shard: r.Name, row: r, notified: make(chan struct{}, 1), limit: t.batch, orders: order{barrier: barrier}}
	s.claim.Store(r.Claim)
	return s
}

// order replaces the orders. leave cannot be withdrawn.
func (s *shardWorker[Tx]) order(o order) {
	s.mu.Lock()
	o.leave = o.leave || s.orders.leave
	s.orders = o
	s.mu.Unlock()
	select {
	case s.notified <- struct{}{}:
	default:
	}
}

func (s *shardWorker[Tx]) ordered() order {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.orders
}

// run works until it is ordered to leave, loses the shard, or fails permanently.
func (s *shardWorker[Tx]) run(ctx context.Context) error {
	for {
		err := s.work(ctx)
		var unknown *unknownError
		switch {
		case ctx.Err() != nil || errors.Is(err, errLost):
			return nil //nolint:nilerr // run reports the end of the context, and losing a shard is not an error
		case err == nil:
			err = s.engine.ledger.Release(ctx, s.key, s.row)
			s.engine.changed.notify()
			return s.unlessPassing(err)
		case errors.As(err, &unknown):
			return s.letGo(ctx, unknown)
		case !s.passing(err) && !isSource(err):
			if !errors.Is(err, es.ErrClosed) {
				s.recordError(ctx, err)
			}
			return err
		}
		// The broken transaction may have been committed, so the checkpoint is read again. The new claim prevents it from committing later.
		s.retrying(ctx, err)
		if s.pause.wait(ctx) != nil {
			return nil //nolint:nilerr // run reports the end of the context
		}
		taken := false
		err = s.task.persist(ctx, "take the shard again", func(ctx context.Context) (err error) {
			var r Shard
			if r, taken, err = s.engine.ledger.Take(ctx, s.key, s.row, s.task.worker); taken {
				r.Replaced, r.Identity, r.Delays = s.row.Replaced, s.row.Identity, s.row.Delays
				s.row = r
				s.claim.Store(r.Claim)
			}
			return err
		})
		if err != nil || !taken {
			return s.unlessPassing(err)
		}
	}
}

func (s *shardWorker[Tx]) unlessPassing(err error) error {
	if err == nil || s.engine.passing(err) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// sourceError is a transient error of a source.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// Beginnings of errors in Status, by which Why tells them apart.
const (
	sourcePrefix   = "source: "
	databasePrefix = "database: "
)

func isSource(err error) bool {
	var source *sourceError
	return errors.As(err, &source)
}

// classifySourceError wraps transient errors of a source in a sourceError.
func classifySourceError(err error) error {
	var ahead *es.AheadError
	switch {
	case errors.As(err, &ahead):
		return fmt.Errorf("nothing was applied: %w; use Rebuild if the source has lost records", err)
	case errors.Is(err, es.ErrInvalid), errors.Is(err, es.ErrClosed), errors.Is(err, context.Canceled):
		return err
	}
	return &sourceError{fmt.Errorf(sourcePrefix+"%w", err)}
}

// retrying logs and records an error that is followed by another attempt.
func (s *shardWorker[Tx]) retrying(ctx context.Context, err error) {
	s.task.log.Warn("retrying", "shard", s.shard, "cursor", int64(s.row.Cursor), "err", err)
	s.recordError(ctx, err)
}

// handler returns the handler of a transaction of the shard.
func (s *shardWorker[Tx]) handler(ctx context.Context) *Handler {
	row := s.row // which may change once the transaction has ended
	return s.task.handler(func(err error) {
		s.task.log.Warn("waiting", "shard", s.shard, "cursor", int64(row.Cursor), "err", err)
		s.fail(ctx, row, err)
	})
}

// recordError stores an error in the row, for Status.
func (s *shardWorker[Tx]) recordError(ctx context.Context, err error) { s.fail(ctx, s.row, err) }

func (s *shardWorker[Tx]) fail(ctx context.Context, row Shard, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	text := errorText(err)
	if s.engine.ledger.Passing(err) && !isSource(err) && !strings.Contains(text, inHandle) {
		text = databasePrefix + text
	}
	if err := s.engine.ledger.Fail(ctx, s.key, row, text); err != nil {
		s.task.log.Warn("cannot record the error", "shard", s.shard, "err", err)
	}
}

// work replays the past if it must, then reads the shard and applies what it reads. It returns nil when it is ordered to leave.
func (s *shardWorker[Tx]) work(ctx context.Context) error {
	if s.row.PastEnd == 0 {
		return s.follow(ctx)
	}
	s.enterPast()
	if err := s.follow(ctx); err != nil || s.row.PastEnd > 0 {
		return err
	}
	return s.follow(ctx)
}

// follow reads from the cursor of the row and applies what it reads, until it is ordered to leave or has reached the end of the past.
func (s *shardWorker[Tx]) follow(ctx context.Context) error {
	streams, err := s.engine.ledger.Blocked(ctx, s.key, s.shard)
	if err != nil {
		return err
	}
	s.parked, s.pending = make(map[es.Stream]bool), projection.Batch{Next: s.row.Cursor, End: maxCursor}
	s.firing, s.from, s.lookAt, s.sawAll = piece{}, Timer{}, time.Time{}, false
	for _, stream := range streams {
		s.parked[stream] = true
	}
	feed, err := s.feed(ctx)
	if err != nil {
		return classifySourceError(fmt.Errorf("shard %s: %w", s.shard, err))
	}
	reading, cancel := context.WithCancel(ctx)
	batches, failed := make(chan projection.Batch), make(chan error, 1)
	var reader sync.WaitGroup
	reader.Go(func() { failed <- s.read(reading, feed, batches) })
	defer func() {
		cancel()
		reader.Wait()
		if err := feed.Close(); err != nil {
			s.task.log.Warn("close the source", "shard", s.shard, "err", err)
		}
	}()
	return s.loop(ctx, feed, batches, failed)
}

// read reads one batch ahead of the one that is being applied.
func (s *shardWorker[Tx]) read(ctx context.Context, feed projection.Feed, batches chan<- projection.Batch) error {
	for {
		b, err := feed.Next(ctx, s.task.batch)
		if err != nil {
			return classifySourceError(fmt.Errorf("shard %s: %w", s.shard, err))
		}
		select {
		case batches <- b:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// idle is the delay before a checkpoint moves without a record. Moving it with the next record costs nothing.
const idle = 25 * time.Millisecond

func (s *shardWorker[Tx]) loop(ctx context.Context, feed projection.Feed, batches <-chan projection.Batch, failed <-chan error) error {
	timer := time.NewTimer(idle)
	defer timer.Stop()
	var alarm alarm
	defer alarm.stop()
	due, past := false, s.row.PastEnd > 0 // due: the checkpoint must move even without a record
	idling := false                       // whether the timer runs; other events must not begin it anew
	for {
		o := s.ordered()
		if o.leave || past && s.row.PastEnd == 0 {
			return nil
		}
		if past {
			o.barrier = -1 // it is at the checkpoint or behind it
		}
		more, err := s.serve(ctx, o.requests)
		if err != nil {
			return err
		}
		fired, err := s.fire(ctx)
		if err != nil {
			return err
		}
		more = more || fired
		p := s.piece(o.barrier)
		first := !s.row.AtEnd && p.end()
		if len(p.records) > 0 || first || due && p.to > s.row.Cursor {
			if err := s.apply(ctx, p); err != nil {
				return err
			}
			feed.Applied(s.row.Cursor)
			if first {
				s.task.hasReached()
			}
			due, idling = false, false
			continue
		}
		if more { // parked records or timers, perhaps, but new records do not wait for them
			if err := s.poll(batches, failed); err != nil {
				return err
			}
			due = true
			continue
		}
		var next <-chan projection.Batch
		if len(s.pending.Records) == 0 {
			next = batches
		}
		due = false
		var quiet <-chan time.Time
		var awaited <-chan struct{}
		if p.to > s.row.Cursor {
			if !idling {
				timer.Reset(idle)
				idling = true
			}
			quiet, awaited = timer.C, s.engine.awaited.wait()
		}
		if s.task.once && s.row.AtEnd && p.to <= s.row.Cursor {
			s.task.hasReached() // and nothing is due, perhaps
		}
		var early <-chan time.Time // when the next timer is due, or before
		if s.row.Delays {
			early = alarm.at(s.lookAt)
		}
		select {
		case b := <-next:
			s.pending = b
		case err := <-failed:
			return err
		case <-s.notified:
		case <-early:
		case <-quiet:
			due, idling = true, false
		case <-awaited:
			due = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// poll takes the next batch if it is there and needed.
func (s *shardWorker[Tx]) poll(batches <-chan projection.Batch, failed <-chan error) error {
	if len(s.pending.Records) > 0 {
		return nil
	}
	select {
	case b := <-batches:
		s.pending = b
	case err := <-failed:
		return err
	default:
	}
	return nil
}

// piece is what one transaction applies.
type piece struct {
	records []es.Record
	cursors []projection.Cursor // nil means the positions of the records
	to      projection.Cursor
	last    projection.Cursor // the end of the shard as far as known
	due     []Timer           // of the records, if they have been due; nil if they are read for the first time
	later   []Timer           // of those records that are handled later
}

// maxCursor is behind every record.
const maxCursor = projection.Cursor(math.MaxInt64)

func (p piece) end() bool { return p.to >= p.last }

func (p piece) cursor(i int) projection.Cursor {
	if p.cursors == nil {
		return projection.Cursor(p.records[i].Position)
	}
	return p.cursors[i]
}

// part returns the records from i up to j. Its cursor is after the last of them.
func (p piece) part(i, j int) piece {
	q := piece{records: p.records[i:j], to: p.to, last: p.last}
	if p.cursors != nil {
		q.cursors = p.cursors[i:j]
	}
	if p.due != nil {
		q.due = p.due[i:j]
		return q
	}
	if j < len(p.records) {
		q.to = p.cursor(j - 1)
	}
	return q
}

// piece returns the next records to apply of what was read, up to a barrier.
func (s *shardWorker[Tx]) piece(barrier projection.Cursor) piece {
	all := piece{records: s.pending.Records, cursors: s.pending.Cursors, to: s.pending.Next, last: s.pending.End}
	if barrier >= 0 && barrier < all.to {
		n := 0
		for n < len(all.records) && all.cursor(n) <= barrier {
			n++
		}
		all.records, all.to = all.records[:n], max(barrier, s.row.Cursor)
	}
	if len(all.records) > s.limit {
		return all.part(0, s.limit)
	}
	return all
}

// applied notes that a piece is in the read model. It returns a panic of OnProgress as an error.
func (s *shardWorker[Tx]) applied(p piece) error {
	n := len(p.records)
	if p.due != nil {
		s.from = p.due[n-1]
		s.firing, s.pause = s.firing.part(n, len(s.firing.records)), pause{}
		return nil
	}
	s.enrolled(p.later)
	s.pending.Records = s.pending.Records[n:]
	if s.pending.Cursors != nil {
		s.pending.Cursors = s.pending.Cursors[n:]
	}
	s.row.Cursor, s.row.AtEnd = p.to, s.row.AtEnd || p.end()
	s.row.CaughtUp = s.row.CaughtUp || p.end()
	if n > 0 {
		s.row.Time = p.records[n-1].Time.UnixMicro()
	}
	s.leavePast()
	s.engine.moved.notify()
	s.pause = pause{}
	if s.task.onProgress == nil {
		return nil
	}
	progress := projection.Progress{Shard: s.shard, Records: n, Cursor: p.to, End: p.last}
	if n > 0 {
		progress.Position = p.records[n-1].Position
	}
	s.task.progress.Lock()
	defer s.task.progress.Unlock()
	return s.task.callOnProgress(progress)
}

// isBlocked reports whether a record must wait for a parked one of its stream.
func (s *shardWorker[Tx]) isBlocked(r es.Record) bool { return len(s.parked) > 0 && s.parked[r.Stream] }

// unblocked returns the records that the handler gets.
func (s *shardWorker[Tx]) unblocked(records []es.Record) []es.Record {
	if len(s.parked) == 0 || !slices.ContainsFunc(records, s.isBlocked) {
		return records
	}
	return slices.DeleteFunc(slices.Clone(records), s.isBlocked)
}
