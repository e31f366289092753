package sqlite

import (
	"errors"
	"fmt"
	"testing"

	"github.com/mattn/go-sqlite3"
)

// What SQLite or the disk does to a transaction is never the fault of a record, and what SQLite says about a statement always is.
// The table has all result codes of https://www.sqlite.org/rescode.html that an error can have.
func TestTheDatabasesFaultsAreNotTheRecords(t *testing.T) {
	const databases, records = true, false
	for code, fault := range map[sqlite3.ErrNo]bool{
		sqlite3.ErrError: records, sqlite3.ErrInternal: records, sqlite3.ErrPerm: records, sqlite3.ErrAbort: records, sqlite3.ErrReadonly: records,
		sqlite3.ErrNotFound: records, sqlite3.ErrEmpty: records, sqlite3.ErrTooBig: records, sqlite3.ErrConstraint: records,
		sqlite3.ErrMismatch: records, sqlite3.ErrMisuse: records, sqlite3.ErrNoLFS: records, sqlite3.ErrAuth: records, sqlite3.ErrFormat: records,
		sqlite3.ErrRange: records,

		sqlite3.ErrBusy: databases, sqlite3.ErrLocked: databases, sqlite3.ErrNomem: databases, sqlite3.ErrInterrupt: databases,
		sqlite3.ErrIoErr: databases, sqlite3.ErrCorrupt: databases, sqlite3.ErrFull: databases, sqlite3.ErrCantOpen: databases,
		sqlite3.ErrProtocol: databases, sqlite3.ErrSchema: databases, sqlite3.ErrNotADB: databases,
	} {
		err := error(sqlite3.Error{Code: code})
		for _, err := range []error{err, fmt.Errorf("insert: %w", err), new(Store).explain(err), errors.Join(errors.New("also"), err)} {
			if got := new(backend).Passing(err); got != fault {
				t.Errorf("%d, %v: the database's fault is %v, want %v", code, err, got, fault)
			}
		}
	}
	if new(backend).Passing(errors.New("no such account")) || new(backend).Passing(nil) {
		t.Error("an error of the handler is blamed on the database")
	}
}
