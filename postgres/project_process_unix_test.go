//go:build unix

package postgres_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/processtest"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

func init() { //nolint:gochecknoinits // the literal of main_test.go is for all systems, and this child for some
	children["projector"] = func(ctx context.Context, arguments []string) error {
		s, err := postgres.Open(ctx, arguments[0])
		if err != nil {
			return err
		}
		defer s.Close()
		p, err := processtest.Projection(arguments[1:],
			func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "create table work (n bigserial primary key, line text not null)")
				return err
			},
			func(ctx context.Context, tx pgx.Tx, line string) error {
				_, err := tx.Exec(ctx, "insert into work (line) values ($1)", line)
				return err
			})
		if err != nil {
			return err
		}
		if err := s.Project(ctx, p); ctx.Err() == nil {
			return err
		}
		return nil
	}
}

func TestProjectingProcesses(t *testing.T) {
	server := testserver.Postgres(t, testserver.Postgres18)
	urls := make(map[processtest.Store]string)
	processtest.Run(t, processtest.Backend{
		Database: func(t *testing.T) (processtest.Store, func(arguments ...string) processtest.Process) {
			url := server.Database(t)
			s := open(t, url)
			urls[s] = url
			return s, func(arguments ...string) processtest.Process {
				through := url
				if processtest.Pause(arguments[2]) != processtest.Nowhere { // behind a pooler, whose connection to the server stays
					pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{PoolSize: 10})
					through = with(pooler.Through(url), "default_query_exec_mode=exec")
				}
				c := child.Start(t, "projector", through, arguments[0], arguments[1], arguments[2])
				paused := make(chan struct{})
				go func() {
					if len(c.Await(1)) > 0 {
						close(paused)
					}
				}()
				return processtest.Process{Process: c.Process, Paused: paused}
			}
		},
		Lines: func(t *testing.T, s processtest.Store) []string {
			rows, err := connect(t, urls[s]).Query(t.Context(), "select line from work order by n")
			if err != nil {
				t.Fatal(err)
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			return lines
		},
		Pauses: []processtest.Pause{processtest.Within, processtest.Between},
	})
}
