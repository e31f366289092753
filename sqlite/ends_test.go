package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

// A handler must not end its transaction: what it wrote would be committed without the checkpoint, and applied again.
func TestAHandlerThatEndsItsTransactionStopsTheRun(t *testing.T) {
	for name, end := range map[string]func(tx *sql.Tx) error{
		"commit":                 (*sql.Tx).Commit,
		"rollback":               (*sql.Tx).Rollback,
		"commit, and an error":   func(tx *sql.Tx) error { return errors.Join(tx.Commit(), errors.New("of the handler")) },
		"commit by a statement":  func(tx *sql.Tx) error { _, err := tx.ExecContext(context.Background(), "commit"); return err },
		"rollback, and an error": func(tx *sql.Tx) error { return errors.Join(tx.Rollback(), errors.New("of the handler")) },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := sqlite.Open(":memory:")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			add(t, s, at("a", 0, "first"))
			calls := 0
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err = s.Project(ctx, sqlite.Projection{Name: "ends", Once: true, Retries: -1, Handle: func(_ context.Context, tx *sql.Tx, _ []es.Record) error {
				calls++
				return end(tx)
			}})
			t.Logf("%d calls, %v", calls, err)
			if calls != 1 || !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "ended the transaction") {
				t.Errorf("%d calls, error %v; want one call and an error that says what the handler does", calls, err)
			}
		})
	}
}

// Inline, the events of the append belong to the transaction too, so nothing is written and the append is refused.
func TestAnInlineHandlerThatEndsItsTransactionRefusesTheAppend(t *testing.T) {
	for name, end := range map[string]func(tx *sql.Tx) error{
		"commit":                (*sql.Tx).Commit,
		"rollback":              (*sql.Tx).Rollback,
		"commit by a statement": func(tx *sql.Tx) error { _, err := tx.ExecContext(context.Background(), "commit"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			ends := true
			s, err := sqlite.Config{Inline: []sqlite.Projection{{Name: "ends", Handle: func(_ context.Context, tx *sql.Tx, _ []es.Record) error {
				if !ends {
					return nil
				}
				return end(tx)
			}}}}.Open(":memory:")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := s.Append(t.Context(), at("a", 0, "first")); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "projection ends refused the append") {
				t.Errorf("the append returned %v, want an error that says what the handler does", err)
			}
			ends = false
			add(t, s, at("a", 0, "again")) // nothing was written
		})
	}
}
