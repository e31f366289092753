package sqlite

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
)

// openFiles detects that the database, its write-ahead log or their shared memory was removed or replaced while the store has them open.
// The system keeps open files that have no name any more, so appends would succeed, and be gone when the store is closed.
//
// SQLite never does that itself while a connection is open. It does not notice if others do: see https://www.sqlite.org/howtocorrupt.html,
// section 2.4.
type openFiles struct {
	name    string // of the database, as given to Open; empty in memory
	ids     [3]fileID
	names   [3]string
	noted   atomic.Bool
	checked atomic.Int64 // when read checked, as the time since began
	began   time.Time
}

// note notes the files that are open. path is the name of the database with links resolved.
func (f *openFiles) note(path string) error {
	if f.name == "" {
		return nil
	}
	before := f.ids[0]
	f.names = [3]string{f.name, path + "-wal", path + "-shm"}
	for i, name := range f.names {
		f.ids[i], _ = identify(name) // a read-only database may have only the first
	}
	if before != (fileID{}) && before != f.ids[0] {
		return f.moved(f.name)
	}
	f.noted.Store(true)
	return nil
}

// check returns an error if one of the files is not the one that was opened. It takes about 1 µs.
func (f *openFiles) check() error {
	if !f.noted.Load() {
		return nil
	}
	for i, name := range f.names {
		if f.ids[i] == (fileID{}) {
			continue // this file system does not number its files
		}
		if id, err := identify(name); err != nil || id != f.ids[i] {
			return f.moved(name)
		}
	}
	return nil
}

const checkEvery = 100 * time.Millisecond

// checkRead is like check, for reads: it looks only now and then.
func (f *openFiles) checkRead() error {
	now := int64(time.Since(f.began))
	if last := f.checked.Load(); now-last < int64(checkEvery) {
		return nil
	}
	if err := f.check(); err != nil {
		return err
	}
	f.checked.Store(now)
	return nil
}

func (f *openFiles) moved(name string) error {
	return fmt.Errorf("%s was removed or replaced, so the store is %w: open it again", name, es.ErrClosed)
}

// commit runs a commit, and checks that what it wrote is still in the database. All commits of this package pass it.
func (s *Store) commit(do func() error) error {
	defer s.turns.end()
	if err := do(); err != nil {
		if isUnsynced(err) {
			err = fmt.Errorf("%w: %w", es.ErrUnknownOutcome, err)
		}
		return err
	}
	if err := s.files.check(); err != nil {
		return fmt.Errorf("%w: %w", es.ErrUnknownOutcome, err)
	}
	return nil
}
