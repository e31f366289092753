package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// If the read model does not exist, the handler is not at fault. The error says what creates it.
func TestAMissingReadModelIsNotBlamedOnTheHandler(t *testing.T) {
	t.Parallel()
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	prepare := func(context.Context, pgx.Tx) error { return nil } // as of a read model that was dropped later
	for statement, prepares := range map[string]func(context.Context, pgx.Tx) error{
		"insert into nowhere values (1)":           prepare,
		"insert into nowhere.at_all values (1)":    prepare,
		"select absent from es.events":             prepare,
		"insert into es.meta (absent) values ('')": prepare,
		"delete from nowhere":                      nil,
	} {
		says := "use Rebuild, which calls Prepare"
		if prepares == nil {
			says = "create it, or give the projection a Prepare"
		}
		p := postgres.Projection{Name: "p", Retries: -1, Prepare: prepares, Handle: func(ctx context.Context, tx pgx.Tx, _ []es.Record) error {
			_, err := tx.Exec(ctx, statement)
			return err
		}}
		empty(t, url)
		s := open(t, url)
		mustAppend(t, s, add(account("a"), 1))
		err := s.Project(t.Context(), p)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "fix the handler") {
			t.Errorf("%s: Project returned %v, want that it says %q", statement, err, says)
		}
		if text := statusOf(t, s, "p").Error; !strings.Contains(text, says) {
			t.Errorf("%s: Status has the error %q, want that it says %q", statement, text, says)
		}
		empty(t, url)
		inline := openWith(t, postgres.Config{Inline: []postgres.Projection{p}}, url)
		if _, err := inline.Append(t.Context(), add(account("a"), 1)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: Append returned %v, want that it says %q", statement, err, says)
		}
	}
}
