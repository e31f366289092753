package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

// Names are unique across all streams: the read model of names is written with the events and refuses a second use.
func ExampleConfig_inline() {
	names := sqlite.Projection{
		Name:   "names",
		Filter: es.Filter{Types: []string{"named"}},
		Prepare: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "drop table if exists names; create table names (name text primary key, holder text)")
			return err
		},
		Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
			for _, r := range records {
				inserted, err := tx.ExecContext(ctx, "insert into names values (?, ?) on conflict do nothing", string(r.Data), r.Stream.ID)
				if err != nil {
					return err
				}
				if n, err := inserted.RowsAffected(); err != nil {
					return err
				} else if n == 0 {
					return es.Invariant("NAME_TAKEN", "the name %s is taken", r.Data)
				}
			}
			return nil
		},
	}
	store, err := sqlite.Config{Inline: []sqlite.Projection{names}}.Open(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	for _, id := range []string{"1", "2"} {
		named := []es.Record{{Type: "named", Data: []byte("ann")}}
		_, err := store.Append(context.Background(), es.Append{Stream: es.Stream{Kind: "user", ID: id}, Events: named})
		var refused *es.InvariantError
		fmt.Println(id, errors.As(err, &refused))
	}
	// Output:
	// 1 false
	// 2 true
}
