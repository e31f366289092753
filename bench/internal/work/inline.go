package work

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/postgres"
)

const (
	createCounts = "create table if not exists counts (id text collate \"C\" primary key, n bigint not null, last bigint not null) with (fillfactor = 50)"
	upsertCounts = `insert into counts as c (id, n, last)
		select e.id, count(*), max(e.position) from unnest($1::text[], $2::bigint[]) as e (id, position) group by e.id
		on conflict (id) do update set n = c.n + excluded.n, last = excluded.last`
)

// Counts returns a projection that counts the events of each stream, with one upsert per batch.
func Counts() postgres.Projection {
	return postgres.Projection{
		Name: "counts",
		Prepare: func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, createCounts)
			return err
		},
		Handle: func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
			ids, positions := make([]string, len(records)), make([]int64, len(records))
			for i, r := range records {
				ids[i], positions[i] = r.Stream.ID, int64(r.Position)
			}
			_, err := tx.Exec(ctx, upsertCounts, ids, positions)
			return err
		},
	}
}
