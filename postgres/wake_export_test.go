package postgres

import "time"

// Linger sets how long the connection that listens is kept when nobody waits. It is to be called before anybody does.
func (s *Store) Linger(d time.Duration) { s.watcher.lingers = d }
