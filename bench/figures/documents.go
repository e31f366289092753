package main

import (
	"context"
	"database/sql"
	"path/filepath"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/postgres"
)

func documentFigures() []figure {
	const what = "documents over 250,000 records of 10,000 keys, against a bare loop that loads, folds and writes the rows of a batch by the same number of statements"
	return []figure{
		{"pg-documents", what, atLeast(0.8), pgDocuments(250_000, 3)},
		{"sqlite-documents", what, atLeast(0.8), sqliteDocuments(250_000, 3)},
		{"pg-typed", "a handler of decoded events over 250,000 records, against the loop that it replaces, both in Project", atLeast(0.95), pgTyped(250_000, 6)},
	}
}

// eventsOfDocument is the number of events of each key.
const eventsOfDocument = 25

func pgDocuments(records, pairs int) func(context.Context, *session) (outcome, error) {
	return once(pairs, func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		records := min(records, r.session.records)
		store, plain, err := pgBoth(ctx, r)
		if err != nil {
			return ours, theirs, err
		}
		if err := work.FillInRounds(ctx, store, plain.Copy, records/eventsOfDocument, eventsOfDocument); err != nil {
			return ours, theirs, err
		}
		ours = work.Rebuilds("Documents", plain, records, work.Projecting(store.SQL().Project, work.Documents()))
		theirs = work.Rebuilds("bare loop", plain, records, func(ctx context.Context) error {
			return plain.Project(ctx, page, work.PreparePostgresDocuments, work.PostgresDocuments)
		})
		return ours, theirs, nil
	})
}

func sqliteDocuments(records, pairs int) func(context.Context, *session) (outcome, error) {
	return once(pairs, func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		records := min(records, r.session.records)
		store, plain, err := sqliteBoth(r)
		if err != nil {
			return ours, theirs, err
		}
		if err := work.FillInRounds(ctx, store, plain.Insert, records/eventsOfDocument, eventsOfDocument); err != nil {
			return ours, theirs, err
		}
		db, err := sql.Open("sqlite3", "file:"+filepath.ToSlash(filepath.Join(r.dir, "store.db"))+"?_query_only=true&_busy_timeout=10000")
		if err != nil {
			return ours, theirs, err
		}
		r.cleanup(db.Close)
		ours = work.Rebuilds("Documents", work.SQLiteModel{DB: db}, records, work.Projecting(store.SQL().Project, work.Documents()))
		theirs = work.Rebuilds("bare loop", plain, records, func(ctx context.Context) error {
			return plain.Project(ctx, page, work.PrepareSQLiteDocuments, work.SQLiteDocuments)
		})
		return ours, theirs, nil
	})
}

func pgTyped(records, pairs int) func(context.Context, *session) (outcome, error) {
	return once(pairs, func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		records := min(records, r.session.records)
		store, _, err := r.session.pgStore(ctx, r)
		if err != nil {
			return ours, theirs, err
		}
		if err := work.FillAccounts(ctx, store, records/eventsOfDocument, eventsOfDocument); err != nil {
			return ours, theirs, err
		}
		var typed, loop work.Sums
		ours = work.Handles("Each", records, &typed, work.Projecting(store.Project, postgres.Projection{Name: "typed", Handle: work.Typed[pgx.Tx](&typed)}))
		theirs = work.Handles("loop", records, &loop, work.Projecting(store.Project, postgres.Projection{Name: "loop", Handle: work.Loop[pgx.Tx](&loop)}))
		return ours, theirs, nil
	})
}
