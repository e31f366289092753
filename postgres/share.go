package postgres

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
	"weak"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es/internal/engine"
)

// share is what the projections of all stores on a pool may use of it, so that appends, loads, heartbeats and Status always get a
// connection. A handler may keep its connection for long, and may need another one at the same time, for example to load a state.
// Everything else that a run does is a short statement.
type share struct {
	pool     int32
	handlers slots // transactions that call a handler
	chores   slots // statements of the runs themselves
	reads    slots // those of the chores that read the log, so that many of them do not delay heartbeats
}

// slots holds an element for each connection in use.
type slots chan struct{}

func newShare(pool int32) *share {
	chores := max(1, pool/4)
	return &share{pool, make(slots, max(1, pool/2)), make(slots, chores), make(slots, max(1, chores/2))}
}

// shares has the share of each pool that a store was opened on. A pool has no room for it, and may have several stores.
type sharesOf struct {
	mu sync.Mutex
	of map[weak.Pointer[pgxpool.Pool]]*share
}

var shares = sharesOf{of: make(map[weak.Pointer[pgxpool.Pool]]*share)}

// get returns the share of a pool.
func (s *sharesOf) get(pool *pgxpool.Pool) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := weak.Make(pool)
	if s.of[key] == nil {
		s.of[key] = newShare(pool.Config().MaxConns)
		runtime.AddCleanup(pool, s.drop, key)
	}
	return s.of[key]
}

func (s *sharesOf) drop(key weak.Pointer[pgxpool.Pool]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.of, key)
}

type pooled = pgxpool.Conn

// loan is a connection from the pool, with the slots that it takes.
type loan struct {
	*pooled
	slots [2]slots // nil for none
}

// Release returns the connection to the pool.
func (l loan) Release() {
	l.pooled.Release()
	l.free()
}

func (l loan) free() {
	for _, slots := range l.slots {
		if slots != nil {
			<-slots
		}
	}
}

// borrow takes a connection from the pool whose session has the settings that the store's promises rest on. All connections come from
// here, so that a run of a projection has no more of them than its share.
func (s *Store) borrow(ctx context.Context) (loan, error) {
	if engine.IsRun(ctx) {
		return s.borrowIn(ctx, s.share.chores)
	}
	return s.borrowIn(ctx)
}

// borrowRead is borrow for a page of the log.
func (s *Store) borrowRead(ctx context.Context) (loan, error) {
	if engine.IsRun(ctx) {
		return s.borrowIn(ctx, s.share.reads, s.share.chores)
	}
	return s.borrowIn(ctx)
}

// waitLimit is how long a transaction that calls a handler waits for a connection before it says so.
const waitLimit = time.Second

// borrowFor is borrow for a transaction that calls a handler, unless that is nil. It reports a wait that takes long, once.
func (s *Store) borrowFor(ctx context.Context, h *engine.Handler) (loan, error) {
	if h == nil || !engine.IsRun(ctx) {
		return s.borrow(ctx)
	}
	if h.Report == nil {
		return s.borrowIn(ctx, s.share.handlers)
	}
	brief, cancel := context.WithTimeout(ctx, waitLimit)
	l, err := s.borrowIn(brief, s.share.handlers)
	cancel()
	var slow *slotError
	switch {
	case err == nil || brief.Err() == nil || ctx.Err() != nil:
		return l, err
	case errors.As(err, &slow):
		err = fmt.Errorf("postgres: waiting for a connection: all projections share %d of the pool's %d: raise pool_max_conns", cap(s.share.handlers), s.share.pool)
	default:
		err = fmt.Errorf("postgres: waiting for a connection: the pool's %d are in use, or the server does not answer", s.share.pool)
	}
	h.Report(err)
	return s.borrowIn(ctx, s.share.handlers)
}

// slotError is the end of a context while a run waited for its share.
type slotError struct{ error }

func (e *slotError) Unwrap() error { return e.error }

// borrowIn takes slots, in this order, and a connection.
func (s *Store) borrowIn(ctx context.Context, in ...slots) (l loan, err error) {
	for i, slots := range in {
		select {
		case slots <- struct{}{}:
			l.slots[i] = slots
		case <-ctx.Done():
			l.free()
			return loan{}, &slotError{ctx.Err()}
		case <-s.closing:
			l.free()
			return loan{}, errClosed
		}
	}
	if l.pooled, err = s.connect(ctx); err != nil {
		l.free()
		return loan{}, err
	}
	return l, nil
}
