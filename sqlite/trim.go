package sqlite

import (
	"context"
	"os"
	"sync"
	"time"
)

// SQLite empties its write-ahead log when nobody reads it at the end of a commit. If somebody always does, the log grows as long as that
// goes on (https://www.sqlite.org/wal.html#avoiding_excessively_large_wal_files), and what it has grown to it keeps of the disk.
// So when it is larger than this, the next transaction waits a moment for those who are reading, and new ones wait for it.
// Reads of this package are short; if one of the application's is not, the next attempt is made some seconds later.
const (
	largeLog  = 64 << 20 // bytes
	trimPause = 10 * time.Second

	trimLog = "pragma busy_timeout = 250; pragma wal_checkpoint(truncate)"
)

// trim empties the write-ahead log if appends have made it large.
func (s *Store) trim(ctx context.Context) {
	if s.log.written < s.log.large/16 {
		return // not worth a look
	}
	s.log.written = 0
	s.trimLarge(ctx)
}

// trimLarge empties the write-ahead log if it has become large. One caller at a time does; the others need not wait for it.
func (s *Store) trimLarge(ctx context.Context) {
	if !s.log.trimming.TryLock() {
		return
	}
	defer s.log.trimming.Unlock()
	if s.log.size() < s.log.large || time.Now().Before(s.log.next) {
		return
	}
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return // whoever needs the connection next is told
	}
	defer conn.Close()
	s.log.reading.Lock()                         // SQLite alone would not get its turn: readers that overlap pass their places on to each other
	_, _ = conn.ExecContext(background, trimLog) // what keeps it from working does not keep the append from it
	s.log.reading.Unlock()
	_, _ = conn.ExecContext(background, "pragma busy_timeout = 0")
	if s.log.size() >= s.log.large {
		s.log.next = time.Now().Add(trimPause)
	}
}

// A logFile is the write-ahead log as a file. It is looked at by whoever begins an append or a transaction of a projection.
type logFile struct {
	name     string // empty for a database in memory
	large    int64
	written  int64        // bytes that were appended since an append last looked at it, about
	reading  sync.RWMutex // held by this store's reads
	trimming sync.Mutex   // guards what follows
	next     time.Time    // not to be emptied before
}

// init is given the name of the database, as SQLite has it: with links followed, and empty if it is in memory.
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
