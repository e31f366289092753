package main

import (
	"context"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/server"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/postgres"
)

func postgresFigures() []figure {
	return []figure{
		{"pg-append-16", "appends of one event by 16 writers, against a textbook transaction", atLeast(2.3), rates(pgAppend(16))},
		{"pg-append-128", "appends of one event by 128 writers, against a textbook transaction", atLeast(7), rates(pgAppend(128))},
		{"pg-append-1000", "appends of one event by 1,000 writers, against a textbook transaction", atLeast(13), rates(pgAppend(1000))},
		{"pg-insert-128", "appends of one event by 128 writers, against one INSERT each", atLeast(2.5), rates(pgInsert(128))},
		{"pg-insert-1000", "appends of one event by 1,000 writers, against one INSERT each", atLeast(4), rates(pgInsert(1000))},
		{"pg-append-limit", "appends of one event by 1,000 writers, against COPY of the same rows, 1,000 per transaction", atLeast(0.7), rates(pgAppendLimit)},
		{"pg-append-1", "appends of one event by one writer, against one INSERT each", atLeast(0.9), rates(pgInsert(1))},
		{"pg-append-processes", "appends by four processes of 64 writers each, against one process of 256", atLeast(0.85), pgProcesses},
		{"pg-execute-warm", "commands of 128 callers, each on its own cached account, against Append of the same events alone", atLeast(0.8), rates(pgExecuteWarm)},
		{"pg-execute-cold", "commands of 128 callers on accounts of 10 events that are not cached, against cached ones", atLeast(0.4), rates(pgExecuteCold)},
		{"pg-hot", "commands of 64 callers on one account, against load, decide, append with retries on conflict", atLeast(60), rates(pgHot)},
		{"pg-all", "All over 250,000 records, against one scan of the same rows with the bare driver", atLeast(0.7), pgAll},
		{"pg-load-1000", "time of Load of an uncached account of 1,000 events, against reading, decoding and folding it with the bare driver", atMost(1.3, ""), times(pgLoad)},
		{"pg-wake-p50", "delay from an acknowledged append to a follower in another process, one append at a time, median", atMost(3, "ms"), pgWake(50)},
		{"pg-wake-p99", "the same, 99th percentile", atMost(20, "ms"), pgWake(99)},
		{"pg-stall", "the same median while another transaction with writes stays open, against without one", atMost(1.5, ""), pgStall},
	}
}

// database creates an empty database for a round, on a server that is started when the first figure needs it.
func (s *session) database(ctx context.Context, r *round) (url string, err error) {
	if s.server == nil {
		if s.server, err = server.StartPostgres(); err != nil {
			return "", err
		}
	}
	url, drop, err := s.server.Database(ctx)
	if err == nil {
		r.cleanup(drop)
	}
	return url, err
}

func (s *session) pgStore(ctx context.Context, r *round) (*postgres.Store, string, error) {
	url, err := s.database(ctx, r)
	if err != nil {
		return nil, "", err
	}
	store, err := postgres.Open(ctx, url)
	if err == nil {
		r.cleanup(store.Close)
	}
	return store, url, err
}

// pgBoth opens both sides in one database, so that both are measured on the same server in the same state.
func pgBoth(ctx context.Context, r *round) (*postgres.Store, *baseline.Postgres, error) {
	store, url, err := r.session.pgStore(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	plain, err := baseline.OpenPostgres(ctx, url)
	if err == nil {
		r.cleanup(plain.Close)
	}
	return store, plain, err
}

func pgAppend(writers int) setUp {
	return func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		store, plain, err := pgBoth(ctx, r)
		if err != nil {
			return ours, theirs, err
		}
		return work.Appends("Append", work.To(store), writers, 1, payload), work.Appends("textbook", plain.Append, writers, 1, payload), nil
	}
}

func pgInsert(writers int) setUp {
	return func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		store, plain, err := pgBoth(ctx, r)
		if err != nil {
			return ours, theirs, err
		}
		return work.Appends("Append", work.To(store), writers, 1, payload), work.Appends("one INSERT each", plain.Insert, writers, 1, payload), nil
	}
}

func pgAppendLimit(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
	store, plain, err := pgBoth(ctx, r)
	if err != nil {
		return ours, theirs, err
	}
	const writers, rows = 1000, 1000
	return work.Appends("Append", work.To(store), writers, 1, payload), work.Inserts("COPY", plain.Copy, writers, rows, payload), nil
}

func pgExecuteWarm(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
	store, _, err := r.session.pgStore(ctx, r)
	if err != nil {
		return ours, theirs, err
	}
	bare, _, err := r.session.pgStore(ctx, r) // in another database, so that both sides have only rows that they wrote
	if err != nil {
		return ours, theirs, err
	}
	const callers = 128
	if ours, err = work.Warm(ctx, "Execute", work.On(work.NewRepo(store)), callers); err != nil {
		return ours, theirs, err
	}
	theirs, err = work.Deposits("Append", work.To(bare), callers)
	return ours, theirs, err
}

func pgExecuteCold(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
	store, _, err := r.session.pgStore(ctx, r)
	if err != nil {
		return ours, theirs, err
	}
	warm, _, err := r.session.pgStore(ctx, r)
	if err != nil {
		return ours, theirs, err
	}
	const callers, accounts, events = 128, 20_000, 10
	repo := work.NewRepo(store)
	repo.CacheSize = -1
	if ours, err = work.Cold(ctx, "Execute, not cached", work.To(store), work.On(repo), callers, accounts, events); err != nil {
		return ours, theirs, err
	}
	theirs, err = work.Warm(ctx, "Execute, cached", work.On(work.NewRepo(warm)), callers)
	return ours, theirs, err
}

func pgHot(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
	store, plain, err := pgBoth(ctx, r)
	if err != nil {
		return ours, theirs, err
	}
	const callers = 64
	ours = work.Hot("Execute", work.On(work.NewRepo(store)), callers)
	theirs = work.Hot("load, decide, append", work.OnPlain(baseline.Accounts{Store: plain}).Execute, callers)
	return ours, theirs, nil
}

func pgLoad(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
	store, plain, err := pgBoth(ctx, r)
	if err != nil {
		return ours, theirs, err
	}
	ours, err = work.Loads(ctx, "Load", work.To(store), func(ctx context.Context, id string) (es.Version, error) {
		repo := work.NewRepo(store)
		repo.CacheSize = -1
		at, err := repo.Load(ctx, id)
		version := at.Version
		return version, err
	}, 16, 1000)
	if err != nil {
		return ours, theirs, err
	}
	theirs, err = work.Loads(ctx, "bare driver", plain.Append, func(ctx context.Context, id string) (es.Version, error) {
		_, version, err := baseline.Accounts{Store: plain}.Load(ctx, id)
		return version, err
	}, 16, 1000)
	return ours, theirs, err
}

func pgAll(ctx context.Context, s *session) (outcome, error) {
	records := min(250_000, s.records)
	return rates(func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		store, plain, err := pgBoth(ctx, r)
		if err != nil {
			return ours, theirs, err
		}
		if err := work.Fill(ctx, work.To(store), records, payload); err != nil {
			return ours, theirs, err
		}
		if err := work.Fill(ctx, plain.Append, records, payload); err != nil {
			return ours, theirs, err
		}
		ours = work.Scans("All", records, func(ctx context.Context, see func(es.Record)) error {
			for r, err := range store.All(ctx, 0, es.Filter{}) {
				if err != nil {
					return err
				}
				see(r)
			}
			return nil
		})
		return ours, work.Scans("bare driver", records, plain.Scan), nil
	})(ctx, s)
}
