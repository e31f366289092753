package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// A session is a worker at one shard.
type session[Tx any] struct {
	*task[Tx]
	shard string
	row   row          // as the session has left it
	claim atomic.Int64 // that of the row, for the supervisor
	err   error        // what it ended with: nil if it left, or lost the shard

	mu     sync.Mutex
	orders order
	heard  chan struct{} // the orders have changed

	// What follows is of the goroutine that runs it.
	parked  map[es.Stream]bool // streams of which records are parked, so that the later ones must wait behind them
	pending projection.Batch   // read, and not applied yet
	limit   int                // records in the next transaction
	suspect projection.Cursor  // up to here stands what was read together with a record that failed: divided at the first failure
	pause   pause
}

// An order is what the supervisor wants of a session.
type order struct {
	leave   bool
	barrier projection.Cursor // not to be passed; -1 if there is none
	wishes  []wish
}

func newSession[Tx any](t *task[Tx], r row, barrier projection.Cursor) *session[Tx] {
	s := &session[Tx]{task: t, shard: r.shard, row: r, heard: make(chan struct{}, 1), limit: t.batch, orders: order{barrier: barrier}}
	s.claim.Store(r.claim)
	return s
}

// order tells the session. To leave is not taken back.
func (s *session[Tx]) order(o order) {
	s.mu.Lock()
	o.leave = o.leave || s.orders.leave
	s.orders = o
	s.mu.Unlock()
	select {
	case s.heard <- struct{}{}:
	default:
	}
}

func (s *session[Tx]) ordered() order {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.orders
}

// run works until it is told to leave, loses the shard, or fails for a reason that time does not mend.
func (s *session[Tx]) run(ctx context.Context) error {
	for {
		err := s.work(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, errLost):
			return nil //nolint:nilerr // what ends its context is the run's affair, and to lose a shard is no error
		case err == nil:
			_, err = s.alone(ctx, Options{Quiet: true}, s.say.release, s.with(s.shard, s.row.claim)...)
			s.news.ring()
			return s.unlessPassing(err)
		case !s.passing(err) && !isSource(err):
			if !errors.Is(err, es.ErrClosed) {
				s.tell(ctx, err)
			}
			return err
		}
		// It goes on from what the database says: the transaction that broke may have been committed. The claim is renewed, so that it cannot be any more.
		s.note(ctx, err)
		if s.pause.wait(ctx) != nil {
			return nil //nolint:nilerr // what ends its context is the run's affair
		}
		taken := false
		err = s.persist(ctx, "take the shard again", func(ctx context.Context) (err error) {
			var r row
			if r, taken, err = s.take(ctx, s.key, s.row, s.worker); taken {
				s.row = r
				s.claim.Store(r.claim)
			}
			return err
		})
		if err != nil || !taken {
			return s.unlessPassing(err)
		}
	}
}

func (s *session[Tx]) unlessPassing(err error) error {
	if err == nil || s.db.Passing(err) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// A sourceError is that of a source which may be there again soon.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

func isSource(err error) bool {
	var source *sourceError
	return errors.As(err, &source)
}

// ofSource sorts the errors of a source into those that time mends and those that it does not.
func ofSource(err error) error {
	var ahead *es.AheadError
	switch {
	case errors.As(err, &ahead):
		return fmt.Errorf("nothing was applied: %w; a read model of records that the source does not have begins anew with Rebuild", err)
	case errors.Is(err, es.ErrInvalid), errors.Is(err, es.ErrClosed), errors.Is(err, context.Canceled):
		return err
	}
	return &sourceError{fmt.Errorf("source: %w", err)}
}

// note tells of an error after which there is another try.
func (s *session[Tx]) note(ctx context.Context, err error) {
	s.log.Warn("again in a moment", "shard", s.shard, "cursor", int64(s.row.cursor), "error", err)
	s.tell(ctx, err)
}

// tell keeps an error in the row, for whoever asks how the projection stands.
func (s *session[Tx]) tell(ctx context.Context, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if _, err := s.alone(ctx, Options{Quiet: true}, s.say.fail, s.with(s.shard, s.row.claim, messageOf(err))...); err != nil {
		s.log.Warn("its status does not tell", "shard", s.shard, "error", err)
	}
}

// work reads the shard and applies what it reads. It returns nil when it is to leave.
func (s *session[Tx]) work(ctx context.Context) error {
	streams, err := s.streams(ctx, s.say.waiting, s.with(s.shard)...)
	if err != nil {
		return err
	}
	s.parked, s.pending = make(map[es.Stream]bool), projection.Batch{Next: s.row.cursor, End: math.MaxInt64}
	for _, stream := range streams {
		s.parked[stream] = true
	}
	feed, err := s.source.Feed(ctx, s.shard, s.row.cursor, s.filter)
	if err != nil {
		return ofSource(fmt.Errorf("shard %s: %w", s.shard, err))
	}
	reading, cancel := context.WithCancel(ctx)
	batches, failed := make(chan projection.Batch), make(chan error, 1)
	var reader sync.WaitGroup
	reader.Go(func() { failed <- s.read(reading, feed, batches) })
	defer func() {
		cancel()
		reader.Wait()
		if err := feed.Close(); err != nil {
			s.log.Warn("close the source", "shard", s.shard, "error", err)
		}
	}()
	return s.loop(ctx, feed, batches, failed)
}

// read reads one batch ahead of the one that is being applied.
func (s *session[Tx]) read(ctx context.Context, feed projection.Feed, batches chan<- projection.Batch) error {
	for {
		b, err := feed.Next(ctx, s.batch)
		if err != nil {
			return ofSource(fmt.Errorf("shard %s: %w", s.shard, err))
		}
		select {
		case batches <- b:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// idle is how long a checkpoint waits that moves without a record: with the next record it costs nothing.
const idle = 25 * time.Millisecond

func (s *session[Tx]) loop(ctx context.Context, feed projection.Feed, batches <-chan projection.Batch, failed <-chan error) error {
	timer := time.NewTimer(idle)
	defer timer.Stop()
	due := false // an empty move has waited long enough
	for {
		o := s.ordered()
		if o.leave {
			return nil
		}
		if err := s.grant(ctx, o.wishes); err != nil {
			return err
		}
		p := s.piece(o.barrier)
		first := !s.row.atEnd && p.end()
		if len(p.records) > 0 || first || due && p.to > s.row.cursor {
			if err := s.apply(ctx, p); err != nil {
				return err
			}
			feed.Applied(s.row.cursor)
			if first {
				select {
				case s.reached <- struct{}{}:
				default:
				}
			}
			due = false
			continue
		}
		var next <-chan projection.Batch
		if len(s.pending.Records) == 0 {
			next = batches
		}
		due = false
		var quiet <-chan time.Time
		var asked <-chan struct{}
		if p.to > s.row.cursor {
			timer.Reset(idle)
			quiet, asked = timer.C, s.asked.hear()
		}
		select {
		case b := <-next:
			s.pending = b
		case err := <-failed:
			return err
		case <-s.heard:
		case <-quiet:
			due = true
		case <-asked:
			due = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A piece is what one transaction applies.
type piece struct {
	records []es.Record
	cursors []projection.Cursor // nil if they are the records' positions
	to      projection.Cursor
	last    projection.Cursor // the end of the shard
}

func (p piece) end() bool { return p.to >= p.last }

func (p piece) cursor(i int) projection.Cursor {
	if p.cursors == nil {
		return projection.Cursor(p.records[i].Position)
	}
	return p.cursors[i]
}

// part returns the records from i up to j, and moves to the end of them.
func (p piece) part(i, j int) piece {
	q := piece{records: p.records[i:j], to: p.to, last: p.last}
	if p.cursors != nil {
		q.cursors = p.cursors[i:j]
	}
	if j < len(p.records) {
		q.to = p.cursor(j - 1)
	}
	return q
}

// piece returns what is to be applied next of what was read, up to a barrier.
func (s *session[Tx]) piece(barrier projection.Cursor) piece {
	all := piece{s.pending.Records, s.pending.Cursors, s.pending.Next, s.pending.End}
	if barrier >= 0 && barrier < all.to {
		n := 0
		for n < len(all.records) && all.cursor(n) <= barrier {
			n++
		}
		all.records, all.to = all.records[:n], max(barrier, s.row.cursor)
	}
	if len(all.records) > s.limit {
		return all.part(0, s.limit)
	}
	return all
}

// applied notes that a piece is in the read model. The error is a panic of whoever is told of it.
func (s *session[Tx]) applied(p piece) error {
	n := len(p.records)
	s.pending.Records = s.pending.Records[n:]
	if s.pending.Cursors != nil {
		s.pending.Cursors = s.pending.Cursors[n:]
	}
	s.row.cursor, s.row.atEnd = p.to, s.row.atEnd || p.end()
	s.row.caught = s.row.caught || p.end()
	if n > 0 {
		s.row.time = p.records[n-1].Time.UnixMicro()
	}
	s.moved.ring()
	s.pause = pause{}
	if s.onProgress == nil {
		return nil
	}
	progress := projection.Progress{Shard: s.shard, Records: n, Cursor: p.to, End: p.last}
	if n > 0 {
		progress.Position = p.records[n-1].Position
	}
	s.progress.Lock()
	defer s.progress.Unlock()
	return s.tellProgress(progress)
}

// waits tells whether a record must wait behind one of its stream that is parked.
func (s *session[Tx]) waits(r es.Record) bool { return len(s.parked) > 0 && s.parked[r.Stream] }

// good returns the records that the handler is to be given.
func (s *session[Tx]) good(records []es.Record) []es.Record {
	if len(s.parked) == 0 || !slices.ContainsFunc(records, s.waits) {
		return records
	}
	return slices.DeleteFunc(slices.Clone(records), s.waits)
}
