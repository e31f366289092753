package sqlite

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mattn/go-sqlite3"
	"github.com/thalo-go/es"
)

func isBusy(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked)
}

// isPassing reports whether an error is what SQLite or the system did to a transaction, whatever its statements were.
func isPassing(err error) bool {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrNomem, sqlite3.ErrInterrupt, sqlite3.ErrIoErr, sqlite3.ErrFull, sqlite3.ErrProtocol,
		sqlite3.ErrSchema, sqlite3.ErrCantOpen, sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return true
	}
	return false
}

// isMissing reports whether a statement names a table or column that does not exist. SQLite has no code for that. Source: its src/build.c,
// src/resolve.c and src/insert.c.
func isMissing(err error) bool {
	var e sqlite3.Error
	if !errors.As(err, &e) || e.Code != sqlite3.ErrError {
		return false
	}
	text := e.Error()
	return strings.HasPrefix(text, "no such table: ") || strings.HasPrefix(text, "no such column: ") || strings.Contains(text, " has no column named ")
}

func isConstraint(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.Code == sqlite3.ErrConstraint
}

// isDatum reports whether a value that is appended may be the reason for an error: a constraint or a trigger of the application has refused
// it, or SQLite cannot hold it.
func isDatum(err error) bool {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case sqlite3.ErrConstraint, sqlite3.ErrTooBig, sqlite3.ErrMismatch, sqlite3.ErrRange:
		return true
	case sqlite3.ErrError: // also of a trigger that evaluates the value
		return !strings.HasPrefix(e.Error(), "no such ")
	}
	return false
}

// isUnsynced reports whether a commit has written its rows, but the disk has not confirmed them: they may appear after a crash.
// Any other error of a commit comes before its last row is written, and without that row SQLite ignores the others.
// Source: walFrames in https://www.sqlite.org/src/file/src/wal.c.
func isUnsynced(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.ExtendedCode == sqlite3.ErrIoErrFsync || e.ExtendedCode == sqlite3.ErrIoErrDirFsync)
}

// explain adds the remedy to an error of SQLite, and ErrUnavailable to temporary ones.
func (s *Store) explain(err error) error {
	if err == nil {
		return nil
	}
	if err.Error() == "sql: database is closed" { // database/sql exports no value for it
		return fmt.Errorf("store is %w", es.ErrClosed)
	}
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case sqlite3.ErrIoErr, sqlite3.ErrCantOpen, sqlite3.ErrCorrupt, sqlite3.ErrNotADB, sqlite3.ErrReadonly:
		if moved := s.files.check(); moved != nil {
			return fmt.Errorf("%w: %w", moved, err)
		}
	}
	switch e.Code {
	case sqlite3.ErrReadonly, sqlite3.ErrCantOpen:
		if s.readOnly {
			return fmt.Errorf("%w: SQLite keeps shared memory beside the file: allow writing to its folder, or open a copy", err)
		}
	}
	switch e.Code {
	case sqlite3.ErrFull:
		return fmt.Errorf("%w: %w: nothing was written; free disk space and try again", es.ErrUnavailable, err)
	case sqlite3.ErrIoErr:
		if e.ExtendedCode == sqlite3.ErrIoErrWrite {
			return fmt.Errorf("%w: %w: nothing was written; check the disk, and the limit on the size of files (ulimit -f)", es.ErrUnavailable, err)
		}
		return fmt.Errorf("%w: %w: the disk or file system failed: see the system's log", es.ErrUnavailable, err)
	case sqlite3.ErrNotADB:
		return fmt.Errorf("%w: give another path, or move the file away", err)
	case sqlite3.ErrCorrupt:
		return fmt.Errorf("%w: stop, keep the file for analysis, and restore a backup", err)
	case sqlite3.ErrReadonly, sqlite3.ErrPerm, sqlite3.ErrCantOpen:
		return fmt.Errorf("%w: check the permissions of the file and of its folder, to which SQLite writes as well", err)
	case sqlite3.ErrNomem, sqlite3.ErrInterrupt, sqlite3.ErrProtocol, sqlite3.ErrSchema:
		return fmt.Errorf("%w: %w: nothing was written; try again", es.ErrUnavailable, err)
	case sqlite3.ErrBusy, sqlite3.ErrLocked:
		return fmt.Errorf("%w: %w: another process holds the lock; nothing was written", es.ErrUnavailable, err)
	}
	return err
}
