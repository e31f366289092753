package sqlite_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/datum"
	"github.com/thalo-go/es/sqlite"
)

// Appends that share a transaction must not fail because of what one of them appends.
func TestOneCallersBadDatumFailsOnlyItsCall(t *testing.T) {
	nothing := sqlite.Projection{Name: "nothing", Handle: func(context.Context, *sql.Tx, []es.Record) error { return nil }}
	datum.Run(t, datum.Backend{
		Rules: map[string]string{
			"an error of a function":    "create trigger small before insert on es_events when length(new.data) >= 100 begin select json('{'); end",
			"a trigger that aborts":     "create trigger small before insert on es_events when length(new.data) >= 100 begin select raise(abort, 'large'); end",
			"a trigger that rolls back": "create trigger small before insert on es_events when length(new.data) >= 100 begin select raise(rollback, 'large'); end",
			"a trigger that fails":      "create trigger small after insert on es_events when length(new.data) >= 100 begin select raise(fail, 'large'); end",
		},
		Open: func(t *testing.T, rule string, inline bool) datum.Store {
			var c sqlite.Config
			if inline {
				c.Inline = []sqlite.Projection{nothing}
			}
			path := filepath.Join(t.TempDir(), "es.db")
			s := openWith(t, path, c)
			do(t, connect(t, path), rule)
			return s
		},
	})
}
