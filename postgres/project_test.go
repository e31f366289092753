package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/testserver"
	"github.com/thalo-go/es/postgres"
)

func sums(name string) postgres.Projection {
	return postgres.Projection{
		Name: name,
		Prepare: func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "create table if not exists sums (id text primary key, n bigint not null, last bigint not null); truncate sums")
			return err
		},
		Handle: func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
			for _, r := range records {
				if _, err := tx.Exec(ctx, "insert into sums values ($1, 1, $2) on conflict (id) do update set n = sums.n + 1, last = excluded.last", r.Stream.ID, int64(r.Position)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func TestProjectionSmoke(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := open(t, url)
		mustAppend(t, s, add(account("a"), 2500))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		caught := make(chan bool, 1)
		p := sums("sums")
		p.Partitions = 2
		p.OnCaughtUp = func(context.Context) error { caught <- true; return nil }
		go func() { done <- s.Project(ctx, p) }()
		select {
		case <-caught:
		case err := <-done:
			t.Fatal(err)
		}
		for i := range 20 {
			position := mustAppend(t, s, add(account(string(rune('a'+i))), 1))
			began := time.Now()
			if err := s.WaitFor(ctx, "sums", position); err != nil {
				t.Fatal(err)
			}
			t.Log(time.Since(began))
		}
		if n := scalar[int](t, url, "select sum(n)::int from sums"); n != 2520 {
			t.Error(n)
		}
		status, err := s.Status(ctx)
		t.Logf("%+v %v", status, err)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
