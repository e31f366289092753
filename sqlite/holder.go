package sqlite

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es/internal/engine"
)

// holder is the handler that has the writing connection. A call that needs the connection waits for it no longer than
// Config.BusyTimeout, because the handler may wait for that very call.
type holder struct {
	known atomic.Bool // whether the store has ever had a handler
	hold  atomic.Pointer[engine.Hold]
}

// held notes that a handler has the writing connection, until the returned function is called. After Config.BusyTimeout it lets the appends
// fail that wait for the handler in the queue.
func (s *Store) held(by *engine.Handler) (returned func()) {
	var mu sync.Mutex
	ended, blocked := false, false
	hold := by.Hold(s.busy)
	s.holder.hold.Store(hold)
	timer := time.AfterFunc(s.busy, func() {
		err := hold.Overdue()
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			blocked = true
			s.queue.Block(err)
		}
	})
	return func() {
		timer.Stop()
		s.holder.hold.Store(nil)
		mu.Lock()
		defer mu.Unlock()
		if ended = true; blocked {
			s.queue.Unblock()
		}
	}
}

// writerConn takes the writing connection.
func (s *Store) writerConn(ctx context.Context) (*sql.Conn, error) {
	if !s.holder.known.Load() {
		return s.write.Conn(ctx)
	}
	for wait := s.busy; ; {
		brief, cancel := context.WithTimeout(ctx, wait)
		conn, err := s.write.Conn(brief)
		expired := brief.Err() != nil
		cancel()
		if err == nil || ctx.Err() != nil || !expired {
			return conn, err
		}
		wait = s.busy
		if hold := s.holder.hold.Load(); hold != nil {
			if wait = hold.Left(); wait <= 0 {
				return nil, hold.Overdue()
			}
		}
	}
}

// readerConn takes a connection for reading. For a database in memory that is the one that writes.
func (s *Store) readerConn(ctx context.Context) (*sql.Conn, error) {
	if s.read != s.write || s.readOnly {
		return s.read.Conn(ctx)
	}
	if err := s.outside(ctx); err != nil {
		return nil, err
	}
	return s.writerConn(ctx)
}
