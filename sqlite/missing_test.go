package sqlite_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

// If the read model does not exist, the handler is not at fault. The error says what creates it.
func TestAMissingReadModelIsNotBlamedOnTheHandler(t *testing.T) {
	prepare := func(context.Context, *sql.Tx) error { return nil } // as of a read model that was dropped later
	for statement, prepares := range map[string]func(context.Context, *sql.Tx) error{
		"insert into nowhere values (1)":           prepare,
		"select absent from es_events":             prepare,
		"insert into es_meta (absent) values ('')": prepare,
		"delete from nowhere":                      nil,
	} {
		says := "use Rebuild, which calls Prepare"
		if prepares == nil {
			says = "create it, or give the projection a Prepare"
		}
		p := sqlite.Projection{Name: "p", Retries: -1, Prepare: prepares, Handle: func(ctx context.Context, tx *sql.Tx, _ []es.Record) error {
			_, err := tx.ExecContext(ctx, statement)
			return err
		}}
		s := open(t, file(t))
		add(t, s, at("a", 0, "x"))
		err := s.Project(t.Context(), p)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "fix the handler") {
			t.Errorf("%s: Project returned %v, want that it says %q", statement, err, says)
		}
		all, err := s.Status(t.Context())
		if err != nil || len(all) != 1 || !strings.Contains(all[0].Error, says) {
			t.Errorf("%s: Status returned %+v, %v, want that it says %q", statement, all, err, says)
		}
		inline := openWith(t, file(t), sqlite.Config{Inline: []sqlite.Projection{p}})
		if _, err := inline.Append(t.Context(), at("a", 0, "x")); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: Append returned %v, want that it says %q", statement, err, says)
		}
	}
}
