//go:build unix

package postgres_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/testserver"
	"github.com/thalo-go/es/postgres"
)

const workTable = "work"

// workProjection adds the ID of each record to a table. If it is to be led, it waits in the middle of the transaction, or between two, for a line.
func workProjection(partitions int, lease time.Duration, within, between func()) postgres.Projection {
	return postgres.Projection{
		Name: workTable, Partitions: partitions, Batch: 5, Lease: lease,
		Prepare: func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "create table work (n bigserial primary key, line text not null)")
			return err
		},
		Handle: func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
			for _, r := range records {
				if _, err := tx.Exec(ctx, "insert into work (line) values ($1)", r.ID()); err != nil {
					return err
				}
			}
			within()
			return nil
		},
		OnProgress: func(es.Progress) { between() },
	}
}

func init() { //nolint:gochecknoinits // the literal of main_test.go is for all systems, and this child for some
	children["projector"] = func(ctx context.Context, arguments []string, say func(string, ...any)) error {
		s, err := postgres.Open(ctx, arguments[0])
		if err != nil {
			return err
		}
		defer s.Close()
		partitions, err := strconv.Atoi(arguments[1])
		if err != nil {
			return err
		}
		lease, err := time.ParseDuration(arguments[2])
		if err != nil {
			return err
		}
		// It is led by a signal rather than by its input: whoever is paused is paused where it has said that it stands.
		stand := func(at string) func() {
			return func() {
				say("%s", at)
				if arguments[3] == at {
					_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
				}
			}
		}
		if err := s.Project(ctx, workProjection(partitions, lease, stand("within"), stand("between"))); ctx.Err() == nil {
			return err
		}
		return nil
	}
}

// worked fails the test unless each record is in the read model once, and those of each stream in order.
func worked(t *testing.T, url string, s *postgres.Store) {
	t.Helper()
	rows, err := connect(t, url).Query(t.Context(), "select line from work order by n")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	versions := make(map[string]int)
	for _, line := range lines {
		i := strings.LastIndexByte(line, '/')
		versions[line[:i]]++
		if line[i+1:] != strconv.Itoa(versions[line[:i]]) {
			t.Fatalf("%s is applied where version %d of its stream should be", line, versions[line[:i]])
		}
	}
	if n := len(dense(t, s)); len(lines) != n {
		t.Errorf("%d records are applied of %d", len(lines), n)
	}
}

func waitForWork(t *testing.T, s *postgres.Store, position es.Position) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := s.WaitFor(ctx, workTable, position); err != nil {
		status, _ := s.Status(t.Context())
		t.Fatalf("%v\n%+v", err, status)
	}
}

// drain keeps a child from waiting for somebody to read what it says.
func (c *child) drain() {
	go func() {
		for c.lines.Scan() { // all that it says
		}
	}()
}

func TestProjectingProcesses(t *testing.T) {
	t.Parallel()
	t.Run("that are killed, again and again, apply every record once", func(t *testing.T) {
		url := testserver.Postgres(t, testserver.Postgres18).Database(t)
		s := open(t, url)
		var running []*child
		var last es.Position
		for i := range 6 {
			c := startChild(t, "projector", url, "3", "700ms", "never")
			running = append(running, c)
			c.line(t)
			c.drain()
			for k := range 25 {
				last = mustAppend(t, s, add(account(fmt.Sprint(k%7)), 1+k%3))
			}
			if i >= 2 {
				if err := running[i-2].Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		waitForWork(t, s, last)
		worked(t, url, s)
	})
	for _, where := range []string{"within", "between"} {
		t.Run("of which one is paused "+where+" transactions, and another takes its place, apply every record once", func(t *testing.T) {
			server := testserver.Postgres(t, testserver.Postgres18)
			pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{PoolSize: 10})
			url := server.Database(t)
			s := open(t, url)
			last := mustAppend(t, s, add(account("a"), 100))
			paused := startChild(t, "projector", with(pooler.Through(url), "default_query_exec_mode=exec"), "1", "1s", where)
			for paused.line(t) != where { // until it stands there
			}
			other := startChild(t, "projector", url, "1", "1s", "never")
			other.drain()
			waitForWork(t, s, last)
			// It wakes in the middle of what it was doing, and is paused again at the next such place, until it has been beaten.
			paused.drain()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for range 200 {
					_ = paused.Process.Signal(syscall.SIGCONT)
					select {
					case <-time.After(5 * time.Millisecond):
					case <-t.Context().Done():
						return
					}
				}
			}()
			waitForWork(t, s, mustAppend(t, s, add(account("a"), 60), add(account("b"), 40)))
			<-ended
			waitForWork(t, s, mustAppend(t, s, add(account("c"), 10)))
			worked(t, url, s)
		})
	}
}
