package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
)

func projectionFigures() []figure {
	return []figure{
		{
			"pg-rebuild", "rebuild of a count-and-sum read model over 250,000 records, one multi-row upsert per batch, against a bare loop with the same reads and writes",
			atLeast(0.8), pgRebuild(false, 250_000, 3),
		},
		{
			"pg-rebuild-each", "the same over 100,000 records, one upsert per record",
			atLeast(0.9), pgRebuild(true, 100_000, 2),
		},
		{
			"sqlite-rebuild", "rebuild of a count-and-sum read model over 250,000 records, one multi-row upsert per batch, against a bare loop with the same reads and writes",
			atLeast(0.8), sqliteRebuild(false, 250_000, 3),
		},
		{
			"sqlite-rebuild-each", "the same, one upsert per record",
			atLeast(0.9), sqliteRebuild(true, 250_000, 5),
		},
		{"pg-project-p50", "delay from an acknowledged append to the commit of the read model by another store value, one append at a time, median", atMost(5, "ms"), pgProject(50)},
		{"pg-project-p99", "the same, 99th percentile", atMost(25, "ms"), pgProject(99)},
	}
}

// page is the number of records per transaction of the bare loops: the default of projections.
const page = 1000

// once compares sides whose runs take seconds: the given number of pairs in a single round, without a warm-up.
func once(pairs int, set setUp) func(context.Context, *session) (outcome, error) {
	return func(ctx context.Context, s *session) (outcome, error) {
		kept := s.effort
		defer func() { s.effort = kept }()
		s.rounds, s.pairs, s.warmUp = 1, min(pairs, s.pairs), 0
		return rates(set)(ctx, s)
	}
}

func pgRebuild(each bool, records, pairs int) func(context.Context, *session) (outcome, error) {
	return once(pairs, func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		records := min(records, r.session.records)
		store, plain, err := pgBoth(ctx, r)
		if err != nil {
			return ours, theirs, err
		}
		if err := errors.Join(work.FillAccounts(ctx, store, records/10, 10), work.FillPlain(ctx, plain.Copy, records/10, 10)); err != nil {
			return ours, theirs, err
		}
		handle := work.PostgresSums(each)
		ours = work.Rebuilds("Project", plain, records, work.Projecting(store.Project, postgres.Projection{Name: "sums", Prepare: work.PreparePostgres, Handle: handle}))
		theirs = work.Rebuilds("bare loop", plain, records, func(ctx context.Context) error {
			return plain.Project(ctx, page, work.PreparePostgres, handle)
		})
		return ours, theirs, nil
	})
}

func sqliteRebuild(each bool, records, pairs int) func(context.Context, *session) (outcome, error) {
	return once(pairs, func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		records := min(records, r.session.records)
		store, plain, err := sqliteBoth(r)
		if err != nil {
			return ours, theirs, err
		}
		if err := errors.Join(work.FillAccounts(ctx, store, records/10, 10), work.FillPlain(ctx, plain.Insert, records/10, 10)); err != nil {
			return ours, theirs, err
		}
		db, err := sql.Open("sqlite3", "file:"+filepath.ToSlash(filepath.Join(r.dir, "store.db"))+"?_query_only=true&_busy_timeout=10000")
		if err != nil {
			return ours, theirs, err
		}
		r.cleanup(db.Close)
		handle := work.SQLiteSums(each)
		ours = work.Rebuilds("Project", work.SQLiteModel{DB: db}, records, work.Projecting(store.Project, projection.Projection[*sql.Tx]{
			Name: "sums", Prepare: work.PrepareSQLite, Handle: handle,
		}))
		theirs = work.Rebuilds("bare loop", plain, records, func(ctx context.Context) error {
			return plain.Project(ctx, page, work.PrepareSQLite, handle)
		})
		return ours, theirs, nil
	})
}

// pgProject appends one event at a time, with pauses, and measures the delay from each acknowledgement to the read
// model.
func pgProject(percent float64) func(context.Context, *session) (outcome, error) {
	return func(ctx context.Context, s *session) (o outcome, err error) {
		err = s.round(func(r *round) error {
			writer, url, err := s.pgStore(ctx, r)
			if err != nil {
				return err
			}
			reader, err := postgres.Open(ctx, url)
			if err != nil {
				return err
			}
			r.cleanup(reader.Close)
			n := 500
			if s.rounds == 1 {
				n = 20
			}
			d, err := projectDelays(ctx, writer, reader, n)
			if err != nil {
				return err
			}
			o.value = milliseconds(measure.Percentile(d, percent))
			o.details = []string{fmt.Sprintf("%d appends\tp50 %.3g ms\tp99 %.3g ms", len(d), milliseconds(measure.Percentile(d, 50)), milliseconds(measure.Percentile(d, 99)))}
			return nil
		})
		return o, err
	}
}

func projectDelays(ctx context.Context, writer es.Store, reader *postgres.Store, n int) (delays []time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	type applied struct {
		position es.Position
		at       time.Time
	}
	seen, ended := make(chan applied, n), make(chan error, 1)
	go func() {
		ended <- reader.Project(ctx, projection.Projection[pgx.Tx]{
			Name: "sums", Prepare: work.PreparePostgres, Handle: work.PostgresSums(false),
			OnProgress: func(p projection.Progress) { seen <- applied{p.Position, time.Now()} }, // after the commit
		})
	}()
	defer func() {
		cancel()
		<-ended //nolint:errcheck // the end of the context, which was just ended
	}()
	history, err := work.History(2)
	if err != nil {
		return nil, err
	}
	for v := range n {
		select {
		case <-time.After(20 * time.Millisecond): // so that the system is idle before each append
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		position, err := writer.Append(ctx, es.Append{Stream: es.Stream{Kind: "account", ID: "a"}, Expected: es.Version(v), Events: history[1:]})
		if err != nil {
			return nil, err
		}
		acknowledged := time.Now()
		for at := es.Position(0); at < position; {
			select {
			case a := <-seen:
				if at = a.position; at >= position {
					delays = append(delays, max(0, a.at.Sub(acknowledged)))
				}
			case err := <-ended:
				ended <- nil
				return nil, fmt.Errorf("the projection ended: %w", err)
			}
		}
	}
	return delays[n/10:], nil // the first ones warm up: connections, LISTEN
}
