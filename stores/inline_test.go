package stores_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// names refuses a stream whose first event has a name that another has.
var names = projection.SQLProjection{
	Name: "names",
	Prepare: func(ctx context.Context, tx projection.SQL) error {
		_, err := tx.Exec(ctx, "create table names (name text primary key)")
		return err
	},
	Handle: func(ctx context.Context, tx projection.SQL, records []es.Record) error {
		for _, r := range records {
			n, err := tx.Exec(ctx, "insert into names values ($1) on conflict do nothing", string(r.Data))
			switch {
			case err != nil:
				return err
			case n == 0:
				return es.Invariant("NAME_TAKEN", "another has the name")
			case string(r.Data) == `"bad"`:
				_, _ = tx.Exec(ctx, "insert into names values ($1)", string(r.Data)) // and hides the error
			}
		}
		return nil
	},
}

func TestInlineProjectionOfSQL(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (projection.Database, error){
		"sqlite": func(t *testing.T) (projection.Database, error) {
			s, err := sqlite.Config{Inline: []sqlite.Projection{sqlite.FromSQL(names)}}.Open(filepath.Join(t.TempDir(), "store.db"))
			if err != nil {
				return nil, err
			}
			return s.SQL(), nil
		},
		"postgres": func(t *testing.T) (projection.Database, error) {
			url := testserver.Postgres(t, testserver.Postgres18).Database(t)
			s, err := postgres.Config{Inline: []postgres.Projection{postgres.FromSQL(names)}}.Open(t.Context(), url)
			if err != nil {
				return nil, err
			}
			return s.SQL(), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			store, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			register := func(id, name string) error {
				_, err := store.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "user", ID: id}, Events: []es.Record{{Type: "named", Data: []byte(`"` + name + `"`)}}})
				return err
			}
			if err := register("1", "ann"); err != nil {
				t.Fatal(err)
			}
			var taken *es.InvariantError
			if err := register("2", "ann"); !errors.As(err, &taken) || taken.Code != "NAME_TAKEN" {
				t.Errorf("the name was given twice: %v", err)
			}
			if err := register("3", "bad"); err == nil {
				t.Error("an append was written whose handler hid an error")
			}
			if err := register("4", "bob"); err != nil {
				t.Error(err)
			}
			if n := count(t, store, "select count(*) from names"); n != 2 {
				t.Errorf("there are %d names, want 2", n)
			}
			if head, err := es.Head(t.Context(), store); err != nil || head != 2 {
				t.Errorf("there are %d records, %v: want 2", head, err)
			}
		})
	}
}
