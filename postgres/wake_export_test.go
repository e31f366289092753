package postgres

import (
	"context"
	"time"
)

// Linger sets how long the listening connection is kept without waiters. It must be called before Changed.
func (s *Store) Linger(d time.Duration) { s.watcher.lingers = d }

// Notify sends a notification, and reports whether there are listeners.
func (s *Store) Notify(ctx context.Context) (listeners bool, err error) { return s.notify(ctx) }

// AwaitNotify waits until the store has sent what it has to.
func (s *Store) AwaitNotify() { s.watcher.work.Wait() }
