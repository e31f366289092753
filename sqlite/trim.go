package sqlite

import (
	"context"
	"os"
	"sync"
	"time"
)

// SQLite cannot reset its write-ahead log while readers are active, and never shrinks the file
// (https://www.sqlite.org/wal.html#avoiding_excessively_large_wal_files). With overlapping readers it would grow without limit.
// So when it exceeds largeLog, the next transaction briefly blocks new readers, waits for the active ones and truncates the file.
// Reads of this package are short. If a read of the application takes longer, the next attempt is made after trimPause.
const (
	largeLog  = 64 << 20 // bytes
	trimPause = 10 * time.Second

	trimLog = "pragma busy_timeout = 250; pragma wal_checkpoint(truncate)"
)

// trim truncates the write-ahead log if appends have made it large.
func (s *Store) trim(ctx context.Context) {
	if s.log.written < s.log.large/16 {
		return // cannot be large yet
	}
	s.log.written = 0
	s.trimLarge(ctx)
}

// trimLarge truncates the write-ahead log if it is large, unless another goroutine is doing so.
func (s *Store) trimLarge(ctx context.Context) {
	if !s.log.trimming.TryLock() {
		return
	}
	defer s.log.trimming.Unlock()
	if s.log.size() < s.log.large || time.Now().Before(s.log.next) {
		return
	}
	conn, err := s.writerConn(ctx)
	if err != nil {
		return // the next user of the connection gets the error
	}
	defer conn.Close()
	s.log.reading.Lock()                         // without this lock, overlapping readers would never let SQLite truncate the file
	_, _ = conn.ExecContext(background, trimLog) // an error does not affect the append
	s.log.reading.Unlock()
	_, _ = conn.ExecContext(background, "pragma busy_timeout = 0")
	if s.log.size() >= s.log.large {
		s.log.next = time.Now().Add(trimPause)
	}
}

// logFile is the file of the write-ahead log. Each append and each transaction of a projection checks its size before it begins.
type logFile struct {
	name     string // empty for a database in memory
	large    int64
	written  int64        // approximate bytes appended since an append last checked the size
	reading  sync.RWMutex // locked by this store's readers
	trimming sync.Mutex   // guards next
	next     time.Time    // time of the next attempt
}

// init sets the name of the file. database is the name that SQLite reports: with links resolved, and empty in memory.
func (l *logFile) init(database string) {
	if database != "" {
		l.name = database + "-wal"
	}
	l.large = largeLog
}

func (l *logFile) size() int64 {
	if l.name == "" {
		return -1
	}
	info, err := os.Stat(l.name)
	if err != nil {
		return -1
	}
	return info.Size()
}
