package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/sqlite"
)

func sqliteFigures() []figure {
	return []figure{
		{
			"sqlite-append-128", "appends of one event by 128 writers, against one commit per append through the same driver",
			atLeast(5), rates(sqliteAppend(128)),
		},
		{
			"sqlite-append-1000", "appends of one event by 1,000 writers, against one commit per append through the same driver",
			atLeast(12), rates(sqliteAppend(1000)),
		},
		{
			"sqlite-append-limit", "appends of one event by 1,000 writers, against a bare loop of the driver that inserts the same rows, 1,000 per transaction",
			atLeast(0.6), rates(sqliteAppendLimit(1000)),
		},
		{
			"sqlite-append-16", "appends of one event by 16 writers, against a bare loop of the driver that inserts the same rows, 16 per transaction",
			atLeast(0.75), rates(sqliteAppendLimit(16)),
		},
		{
			"sqlite-append-1", "appends of one event by one writer, against one plain commit per append",
			atLeast(0.85), rates(sqliteAppend(1)),
		},
		{
			"sqlite-hot", "commands of 64 callers on one account, against load, decide, append with retries on conflict",
			atLeast(30), rates(sqliteHot),
		},
		{
			"sqlite-execute-warm", "commands of 128 callers, each on its own cached account, against Append of the same events alone",
			atLeast(0.8), rates(sqliteExecuteWarm),
		},
		{
			"sqlite-load-1000", "time of Load of an uncached account of 1,000 events, against reading, decoding and folding it with the bare driver",
			atMost(1.3, ""), times(sqliteLoad),
		},
		{
			"sqlite-follow-memory", "peak memory of the process while following a log of 1,000,000 records, minus its memory before opening the log",
			atMost(30, "MB"), sqliteFollowMemory,
		},
	}
}

// payload is the size of an event where its content does not matter.
const payload = 120

// sqliteStore returns an empty store for a round.
func sqliteStore(r *round) (*sqlite.Store, error) {
	store, err := sqlite.Open(filepath.Join(r.dir, "store.db"))
	if err == nil {
		r.cleanup(store.Close)
	}
	return store, err
}

// sqlitePlain returns an empty baseline store for a round.
func sqlitePlain(r *round) (*baseline.SQLite, error) {
	plain, err := baseline.OpenSQLite(filepath.Join(r.dir, "plain.db"))
	if err == nil {
		r.cleanup(plain.Close)
	}
	return plain, err
}

func sqliteBoth(r *round) (*sqlite.Store, *baseline.SQLite, error) {
	store, err := sqliteStore(r)
	if err != nil {
		return nil, nil, err
	}
	plain, err := sqlitePlain(r)
	return store, plain, err
}

func sqliteAppend(writers int) setUp {
	return func(_ context.Context, r *round) (ours, theirs measure.Side, err error) {
		store, plain, err := sqliteBoth(r)
		if err != nil {
			return ours, theirs, err
		}
		ours = work.Appends("Append", work.To(store), writers, 1, payload)
		theirs = work.Appends("one commit each", plain.Append, writers, 1, payload)
		return ours, theirs, nil
	}
}

// sqliteAppendLimit compares with transactions of as many rows as there are writers.
func sqliteAppendLimit(writers int) func(context.Context, *round) (ours, theirs measure.Side, err error) {
	return func(_ context.Context, r *round) (ours, theirs measure.Side, err error) {
		store, plain, err := sqliteBoth(r)
		if err != nil {
			return ours, theirs, err
		}
		ours = work.Appends("Append", work.To(store), writers, 1, payload)
		theirs = work.Inserts("bare loop", plain.Insert, writers, writers, payload)
		return ours, theirs, nil
	}
}

func sqliteHot(_ context.Context, r *round) (ours, theirs measure.Side, err error) {
	store, plain, err := sqliteBoth(r)
	if err != nil {
		return ours, theirs, err
	}
	const callers = 64
	ours = work.Hot("Execute", work.On(work.NewRepo(store)), callers)
	theirs = work.Hot("load, decide, append", work.OnPlain(baseline.Accounts{Store: plain}).Execute, callers)
	return ours, theirs, nil
}

func sqliteExecuteWarm(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
	store, err := sqliteStore(r)
	if err != nil {
		return ours, theirs, err
	}
	const callers = 128
	if ours, err = work.Warm(ctx, "Execute", work.On(work.NewRepo(store)), callers); err != nil {
		return ours, theirs, err
	}
	// In another database, so that both sides have only rows that they wrote.
	bare, err := sqlite.Open(filepath.Join(r.dir, "bare.db"))
	if err != nil {
		return ours, theirs, err
	}
	r.cleanup(bare.Close)
	theirs, err = work.Deposits("Append", work.To(bare), callers)
	return ours, theirs, err
}

func sqliteLoad(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
	store, plain, err := sqliteBoth(r)
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

func sqliteFollowMemory(ctx context.Context, s *session) (o outcome, err error) {
	err = s.round(func(r *round) error {
		path := filepath.Join(r.dir, "store.db")
		if err := sqliteFill(ctx, path, s.records); err != nil {
			return err
		}
		o, err = followMemory(ctx, s.records, "sqlite", path)
		return err
	})
	return o, err
}

func sqliteFill(ctx context.Context, path string, records int) error {
	store, err := sqlite.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(work.Fill(ctx, work.To(store), records, payload), store.Close())
}

func openSQLite(path string) (closingLog, error) { return sqlite.Open(path) }
