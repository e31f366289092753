package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// writeInChild appends from many goroutines until it is killed, and prints what was acknowledged.
func writeInChild(ctx context.Context, arguments []string) error {
	s, err := postgres.Open(ctx, arguments[0])
	if err != nil {
		return err
	}
	acknowledged := make(chan string)
	for w := range 16 {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%s writer %d append %d", arguments[1], w, i)
				position, err := s.Append(ctx, named(name, account(fmt.Sprint(arguments[1], " ", w%3)), es.AnyVersion), named(name+" and more", account("all"), es.AnyVersion))
				if err != nil {
					return
				}
				acknowledged <- fmt.Sprintf("%d %s", position, name)
			}
		}()
	}
	for a := range acknowledged {
		child.Say(a)
	}
	return nil
}

// A follower sees each record while other transactions are open. It neither waits for them nor skips a record.
func TestForeignTransactionsStallNoFollower(t *testing.T) {
	for name, foreign := range map[string]struct {
		options pgx.TxOptions
		do      []string
	}{
		"one that has a transaction id": {pgx.TxOptions{}, []string{"select txid_current()"}},
		"one that has written to another table of the schema": {pgx.TxOptions{}, []string{
			"insert into es.snapshots values ('k', 'i', 1, 1, 1, '')", "insert into es.meta values ('k', 'v')"}},
		"one that has written to the application's tables": {pgx.TxOptions{}, []string{"create table mine (n int)", "insert into mine values (1)"}},
		"one that is serializable and has read the events": {pgx.TxOptions{IsoLevel: pgx.Serializable}, []string{"select count(*) from es.events", "select txid_current()"}},
		"one that holds a snapshot":                        {pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, []string{"select count(*) from es.events"}},
		"one that has failed":                              {pgx.TxOptions{}, []string{"select txid_current()", "select 1/0"}},
		"one that has locked events that are there":        {pgx.TxOptions{}, []string{"select * from es.events for update"}},
	} {
		t.Run(name, func(t *testing.T) {
			testserver.Each(t, func(t *testing.T, server *testserver.Server) {
				url := server.Database(t)
				s, elsewhere := open(t, url), open(t, url)
				at := mustAppend(t, s, add(account("before"), 3))
				tx, err := connect(t, url).BeginTx(t.Context(), foreign.options)
				if err != nil {
					t.Fatal(err)
				}
				for _, sql := range foreign.do {
					if _, err := tx.Exec(t.Context(), sql); (err != nil) != (sql == "select 1/0") {
						t.Fatalf("%s: %v", sql, err)
					}
				}
				f, other := follow(t, s, 0), follow(t, elsewhere, 0)
				f.sees(t, 1, at)
				other.sees(t, 1, at)
				for i := range 20 {
					from := at + 1
					at = mustAppend(t, s, add(account(fmt.Sprint(i%3)), 2))
					f.sees(t, from, at)
					other.sees(t, from, at)
				}
				if err := tx.Rollback(t.Context()); err != nil {
					t.Fatal(err)
				}
				at = mustAppend(t, s, add(account("after"), 1))
				f.sees(t, at, at)
				other.sees(t, at, at)
			})
		})
	}
}

func TestRolledBackAppendsLeaveNoGap(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := open(t, url)
		l := newLedger()
		stop := l.writers(t, s, 8, func(error) bool { return false })
		f := follow(t, s, 0)
		conn := connect(t, url)
		for i := range 20 {
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			a := named(fmt.Sprint("in a transaction ", i), account("shared 0"), es.AnyVersion)
			position, err := s.In(tx).Append(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				err = tx.Rollback(t.Context())
				l.note(a, 0, errors.New("rolled back"))
			} else {
				err = tx.Commit(t.Context())
				l.note(a, position, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			at := l.count()
			eventually(t, "others have written", func() bool { return l.count() > at })
		}
		stop()
		f.sees(t, 1, es.Position(l.count()))
		l.check(t, url)
	})
}

func TestSessionThatHoldsTheLockDies(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := open(t, url)
		for i := range es.Version(3) {
			conn := connect(t, url)
			tx, err := conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.In(tx).Append(t.Context(), add(account("a"), 1)); err != nil {
				t.Fatal(err)
			}
			answered := make(chan error, 1)
			go func() {
				_, err := s.Append(t.Context(), at(account("a"), i, 1))
				answered <- err
			}()
			waiting(t, url, 1)
			select {
			case err := <-answered:
				t.Errorf("it did not wait: %v", err)
			default:
			}
			run(t, url, fmt.Sprintf("select pg_terminate_backend(%d)", conn.PgConn().PID()))
			if err := <-answered; err != nil {
				t.Errorf("what the dead session wrote is in the way: %v", err)
			}
		}
		dense(t, s)
	})
}

// A process killed while it writes leaves all or nothing of each batch, and does not keep other processes from writing.
func TestKilledProcess(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := open(t, url)
		f := follow(t, s, 0)
		said := make(map[string]es.Position)
		for turn := range 4 {
			c := child.Start(t, "write", url, fmt.Sprint("process ", turn))
			for range 50 + turn*7 {
				var at es.Position
				line := c.Line(t)
				if _, err := fmt.Sscan(line, &at); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				said[line[len(fmt.Sprint(at))+1:]] = at
			}
			if err := c.Kill(); err != nil {
				t.Fatal(err)
			}
			mustAppend(t, s, add(account("mine"), 2))
		}
		eventually(t, "the sessions of those that were killed have ended", func() bool {
			return scalar[int](t, url, "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' and pid <> pg_backend_pid()") == 0
		})
		all := dense(t, s)
		f.sees(t, 1, es.Position(len(all)))
		for i, r := range all {
			name := string(r.Data)
			if at, acknowledged := said[name]; acknowledged && at != r.Position+1 {
				t.Errorf("%s was acknowledged at position %d, and is at %d", name, at, r.Position+1)
			}
			delete(said, name)
			if r.Type == "named" && r.Stream != account("all") && (i+1 == len(all) || string(all[i+1].Data) != name+" and more") {
				t.Errorf("half of %q is there", name)
			}
		}
		for name, at := range said {
			t.Errorf("%s was acknowledged at position %d, and is not there", name, at)
		}
	})
}
