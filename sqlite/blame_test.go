package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/background"
	"github.com/thalo-go/es/sqlite"
)

// Without memory, space or patience SQLite fails a statement, and may roll the transaction back. No record is parked for that, even if the
// handler hides the error. Status has it, although nothing is retried, and the projection goes on afterwards.
func TestRecordsAreNotParkedForTheDatabasesFaults(t *testing.T) {
	for name, returns := range map[string]func(error) error{
		"wraps": func(err error) error { return fmt.Errorf("insert: %w", err) },
		"hides": func(err error) error { return fmt.Errorf("insert: %v", err) }, //nolint:errorlint // on purpose
	} {
		t.Run("the handler "+name+" the error", func(t *testing.T) {
			s := open(t, file(t))
			var large atomic.Bool
			background.Project(t, s, sqlite.Projection{
				Name: "p", OnError: es.Park, Retries: -1,
				Prepare: func(ctx context.Context, tx *sql.Tx) error {
					_, err := tx.ExecContext(ctx, "create table model (data blob)")
					return err
				},
				Handle: func(ctx context.Context, tx *sql.Tx, _ []es.Record) error {
					size := 1
					if large.Load() {
						size = 1 << 20
					}
					if _, err := tx.ExecContext(ctx, "insert into model values (?)", bytes.Repeat([]byte{1}, size)); err != nil {
						return returns(err)
					}
					return nil
				},
			})
			add(t, s, at("a", 0, "first"))
			if err := s.WaitFor(t.Context(), "p", 1); err != nil {
				t.Fatal(err)
			}
			large.Store(true)
			limit(t, s, 20)
			add(t, s, at("a", 1, "second"))
			for found := false; !found; {
				all, err := s.Status(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				found = len(all) == 1 && strings.Contains(all[0].Error, "full")
				if all[0].Parked > 0 {
					t.Fatalf("a record is parked")
				}
			}
			large.Store(false)
			if err := s.WaitFor(t.Context(), "p", 2); err != nil {
				t.Fatal(err)
			}
			for p, err := range s.Parked(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				t.Errorf("%s is parked: %s", p.Record.ID(), p.Error)
			}
		})
	}
}

// A statement of the application that SQLite interrupts is not the fault of its record.
func TestInterruptedHandlersAreRetried(t *testing.T) {
	s := open(t, file(t))
	var interrupted atomic.Bool
	background.Project(t, s, sqlite.Projection{Name: "p", OnError: es.Park, Retries: -1, Handle: func(context.Context, *sql.Tx, []es.Record) error {
		if interrupted.CompareAndSwap(false, true) {
			return fmt.Errorf("insert: %w", sqlite3.Error{Code: sqlite3.ErrInterrupt})
		}
		return nil
	}})
	add(t, s, at("a", 0, "first"))
	if err := s.WaitFor(t.Context(), "p", 1); err != nil {
		t.Fatal(err)
	}
	for p, err := range s.Parked(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s is parked: %v", p.Record.ID(), errors.New(p.Error))
	}
}
