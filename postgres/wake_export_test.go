package postgres

import (
	"context"
	"time"
)

// Linger sets how long the connection that listens is kept when nobody waits. It is to be called before anybody does.
func (s *Store) Linger(d time.Duration) { s.watcher.lingers = d }

// Tell announces, and reports whether anybody listens.
func (s *Store) Tell(ctx context.Context) (heard bool, err error) { return s.tell(ctx) }
