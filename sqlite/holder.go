package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es/internal/engine"
)

// holder is the handler that has the writing connection. A call that needs the connection waits for it no longer than
// Config.BusyTimeout, because the handler may wait for that very call.
type holder struct {
	known atomic.Bool // whether the store has ever had a handler
	hold  atomic.Pointer[engine.Hold]

	hooked *sqlite3.SQLiteConn // the connection that refuses to commit while works is set
	works  bool                // a handler has the transaction
	tried  bool                // it has tried to commit
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

// whole calls handlers in a transaction. It returns [engine.ErrEndsTransaction] if a handler has ended the transaction, and lets none commit
// it, because the checkpoint and what other handlers write belong to it.
func (s *Store) whole(conn *sql.Conn, tx *sql.Tx, call func() error) error {
	h := &s.holder
	err := conn.Raw(func(driver any) error {
		if c := driver.(*sqlite3.SQLiteConn); c != h.hooked {
			h.hooked = c
			c.RegisterCommitHook(func() int {
				if h.works {
					h.tried = true
					return 1 // rolls it back
				}
				return 0
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	h.works, h.tried = true, false
	defer func() { h.works = false }() // also if a handler panics
	err = call()
	if h.tried || ended(tx) {
		return engine.ErrEndsTransaction
	}
	return err
}

// ended reports whether Commit or Rollback was called.
func ended(tx *sql.Tx) bool {
	_, err := tx.ExecContext(background, "select 1")
	return errors.Is(err, sql.ErrTxDone)
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
