package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

func sums(name string) sqlite.Projection {
	return sqlite.Projection{
		Name: name,
		Prepare: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "create table if not exists sums (id text primary key, n integer not null, last integer not null) strict; delete from sums")
			return err
		},
		Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
			for _, r := range records {
				if _, err := tx.ExecContext(ctx, "insert into sums values (?, 1, ?) on conflict (id) do update set n = n + 1, last = excluded.last", r.Stream.ID, r.Position); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func TestProjectionSmoke(t *testing.T) {
	for _, path := range []string{":memory:", file(t)} {
		t.Run(path[len(path)-5:], func(t *testing.T) {
			s := open(t, path)
			add(t, s, at("a", 0, make([]string, 2500)...))
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			caught := make(chan bool, 1)
			p := sums("sums")
			p.OnCaughtUp = func(context.Context) error { caught <- true; return nil }
			go func() { done <- s.Project(ctx, p) }()
			<-caught
			for i := range 20 {
				position := add(t, s, at(fmt.Sprint(i), es.AnyVersion, "x"))
				began := time.Now()
				if err := s.WaitFor(ctx, "sums", position); err != nil {
					t.Fatal(err)
				}
				t.Log(time.Since(began))
			}
			var n int
			if err := s.DB().QueryRow("select sum(n) from sums").Scan(&n); err != nil || n != 2520 {
				t.Error(n, err)
			}
			status, err := s.Status(ctx)
			t.Logf("%+v %v", status, err)
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}
