package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// followInChild follows a log and prints the position of each record and when it arrived.
func followInChild(ctx context.Context, arguments []string) error {
	s, err := postgres.Config{PollInterval: time.Hour}.Open(ctx, arguments[0])
	if err != nil {
		return err
	}
	for r, err := range es.Follow(ctx, s, 0, es.Filter{}) {
		if err != nil {
			break // the test is over
		}
		child.Say(r.Position, time.Now().UnixNano())
	}
	return s.Close()
}

// listeners returns the sessions of a database that listen.
func listeners(t testing.TB, url string) []int32 {
	t.Helper()
	return scalar[[]int32](t, url, "select coalesce(array_agg(pid), '{}') from pg_stat_activity where datname = current_database() and query ilike 'listen %'")
}

// A follower is a goroutine that follows a log.
type follower struct {
	records chan es.Record
	err     chan error
	cancel  context.CancelFunc
}

func follow(t testing.TB, log es.Log, after es.Position) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{make(chan es.Record, 1<<16), make(chan error, 1), cancel}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r, err := range es.Follow(ctx, log, after, es.Filter{}) {
			if err != nil {
				f.err <- err
				return
			}
			f.records <- r
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return f
}

// sees waits until the follower has seen all records up to a position, once and in order.
func (f *follower) sees(t testing.TB, from, to es.Position) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for want := from; want <= to; want++ {
		select {
		case r := <-f.records:
			if r.Position != want {
				t.Fatalf("the follower saw position %d, want %d", r.Position, want)
			}
		case err := <-f.err:
			t.Fatalf("the follower ended before position %d: %v", want, err)
		case <-limit:
			t.Fatalf("the follower has not seen position %d", want)
		}
	}
}

func TestWakeAnotherProcess(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := open(t, url)
		mustAppend(t, s, add(account("a"), 1))
		c := child.Start(t, "follow", url)
		c.Line(t)
		eventually(t, "the other process listens", func() bool { return len(listeners(t, url)) == 1 })
		const turns = 40
		var took []time.Duration
		for i := range turns {
			position := mustAppend(t, s, add(account("a"), 1))
			committed := time.Now()
			seen, at, _ := strings.Cut(c.Line(t), " ")
			nanos, err := strconv.ParseInt(at, 10, 64)
			if err != nil || seen != fmt.Sprint(position) {
				t.Fatalf("the other process saw %s, want %d: %v", seen, position, err)
			}
			if i > 0 { // while the first comes the other process may still be about to listen
				took = append(took, max(0, time.Unix(0, nanos).Sub(committed)))
			}
		}
		slices.Sort(took)
		t.Logf("it was woken after %v, 9 of 10 within %v, at most %v", took[len(took)/2], took[len(took)*9/10], took[len(took)-1])
		// By looking alone it would take half a second.
		if median := took[len(took)/2]; median > 250*time.Millisecond {
			t.Errorf("it was woken after %v: announcements do not arrive", median)
		}
		c.CloseInput(t)
		c.Finish(t)
	})
}

func TestWakeThroughPgBouncer(t *testing.T) {
	server := testserver.Postgres(t, testserver.Postgres18)
	pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{PoolSize: 3})
	t.Run("by polling", func(t *testing.T) {
		url := server.Database(t)
		direct, pooled := open(t, url), open(t, pooler.Through(url))
		f := follow(t, pooled, 0)
		for i := range es.Position(30) {
			mustAppend(t, direct, add(account("a"), 1))
			f.sees(t, i+1, i+1)
		}
	})
	t.Run("and nothing is left listening on the connections it lends", func(t *testing.T) {
		url := server.Database(t)
		pooled := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{PoolSize: 1}).Through(url)
		s := open(t, pooled)
		f := follow(t, s, 0)
		for i := range es.Position(30) {
			mustAppend(t, s, add(account("a"), 1))
			f.sees(t, i+1, i+1)
		}
		conn := connect(t, pooled)
		var channels int
		err := conn.QueryRow(t.Context(), "select count(*) from pg_listening_channels()", pgx.QueryExecModeSimpleProtocol).Scan(&channels)
		if err != nil || channels != 0 {
			t.Errorf("the only connection listens to %d channels, %v", channels, err)
		}
	})
	t.Run("at once by what the store itself writes", func(t *testing.T) {
		url := server.Database(t)
		pooled := openWith(t, postgres.Config{PollInterval: time.Hour}, pooler.Through(url))
		f := follow(t, pooled, 0)
		for i := range es.Position(30) {
			mustAppend(t, pooled, add(account("a"), 1))
			f.sees(t, i+1, i+1)
		}
	})
}

func TestWakeSurvives(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		t.Run("the end of the connection that listens", func(t *testing.T) {
			url := server.Database(t)
			s, other := open(t, url), open(t, url)
			f := follow(t, s, 0)
			for range 2 {
				eventually(t, "it listens", func() bool { return len(listeners(t, url)) == 1 })
				was := listeners(t, url)
				run(t, url, fmt.Sprintf("select pg_terminate_backend(%d)", was[0]))
				for range 10 {
					at := mustAppend(t, other, add(account("a"), 1))
					f.sees(t, at, at)
				}
				eventually(t, "it listens again", func() bool {
					now := listeners(t, url)
					return len(now) == 1 && now[0] != was[0]
				})
			}
		})
		t.Run("announcements of nothing", func(t *testing.T) {
			url := server.Database(t)
			s, other := open(t, url), open(t, url)
			f := follow(t, s, 0)
			eventually(t, "it listens", func() bool { return len(listeners(t, url)) == 1 })
			run(t, url, `select pg_notify('es:es', payload) from unnest(array['', 'garbage', '-1', '99999999999999999999', repeat('x', 7000)]) payload, generate_series(1, 50)`)
			for i := range es.Position(5) {
				run(t, url, `notify "es:es", 'position 12345'`)
				mustAppend(t, other, add(account("a"), 1))
				f.sees(t, i+1, i+1)
			}
			select {
			case r := <-f.records:
				t.Errorf("the follower saw %s at position %d, which was never written", r.ID(), r.Position)
			case err := <-f.err:
				t.Error(err)
			default:
			}
		})
	})
}

// A transaction that notifies takes a lock of the whole database when it commits, and holds it until its commit is done.
func TestAppendsDoNotWaitForTheLockOfNotifications(t *testing.T) {
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	url := server.Database(t)
	s := open(t, with(url, "synchronous_commit=local"))
	run(t, url, "alter system set synchronous_standby_names = 'none'", "select pg_reload_conf()")
	notifier := connect(t, with(url, "synchronous_commit=on"))
	eventually(t, "the server has read its settings", func() bool {
		return scalar[string](t, url, "show synchronous_standby_names") == "none"
	})
	stuck := make(chan error, 1)
	waits := func() bool {
		return scalar[int](t, url, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'") > 0
	}
	// The checkpointer puts the setting into force in its own time: until then a commit is not stuck.
	for turn := 0; !waits(); turn++ {
		go func() {
			_, err := notifier.Exec(context.WithoutCancel(t.Context()), fmt.Sprintf("create table stuck%d (); notify x", turn))
			stuck <- err
		}()
		eventually(t, "a transaction that notifies is stuck in its commit, or done", func() bool { return waits() || len(stuck) > 0 })
		if !waits() {
			if err := <-stuck; err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for i := range es.Version(20) {
		if _, err := s.Append(ctx, at(account("a"), i, 1)); err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
	}
	if !waits() {
		t.Error("the other transaction was not stuck: the test tells nothing")
	}
	run(t, with(url, "synchronous_commit=local"), "alter system reset synchronous_standby_names", "select pg_reload_conf()")
	if err := <-stuck; err != nil {
		t.Error(err)
	}
}

func TestIdleCost(t *testing.T) {
	t.Parallel()
	server := testserver.Postgres(t, testserver.Postgres18)
	url := server.Database(t)
	name := scalar[string](t, url, "select current_database()")
	const window = 2 * time.Second
	cost := func() (transactions int64) {
		admin := server.URL("postgres")
		count := func() int64 {
			return scalar[int64](t, admin, "select xact_commit + xact_rollback from pg_stat_database where datname = $1", name)
		}
		before := count()
		<-time.After(window)
		return count() - before
	}
	s := open(t, url)
	s.Linger(10 * time.Millisecond)
	mustAppend(t, s, add(account("a"), 1))
	f := follow(t, s, 0)
	f.sees(t, 1, 1)
	eventually(t, "it listens", func() bool { return len(listeners(t, url)) == 1 })
	waiting := min(cost(), cost()) // in the first the server may still count what was before
	f.cancel()
	eventually(t, "no session listens", func() bool { return len(listeners(t, url)) == 0 })
	eventually(t, "the server has counted what was", func() bool { return cost() == 0 })
	t.Logf("with a waiting call: %d transactions in %v; without: none", waiting, window)
	if waiting > 20 {
		t.Errorf("%d transactions in %v, want one or two a second", waiting, window)
	}
}

// Without listeners in any process, no notification is sent, because it would cost time for nothing.
func TestNoNotificationWithoutListeners(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		writer, reader := open(t, url), open(t, url)
		reader.Linger(10 * time.Millisecond)
		mustAppend(t, writer, add(account("a"), 1))
		heard := func() bool {
			heard, err := writer.Notify(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return heard
		}
		other := open(t, server.Database(t)) // a store of the same name in another database
		follow(t, other, 0)
		for range 2 {
			if heard() {
				t.Error("Notify reports listeners and there are none")
			}
			f := follow(t, reader, 0)
			eventually(t, "Notify reports listeners", heard)
			f.cancel()
			eventually(t, "Notify reports no listeners", func() bool { return !heard() })
		}
	})
}

func TestWakeByRewind(t *testing.T) {
	isAhead := func(err error) bool {
		ahead := (*es.AheadError)(nil)
		return errors.As(err, &ahead) && ahead.After == 5
	}
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		prepare := func(t *testing.T) (s *postgres.Store, url string) {
			url = server.Database(t)
			s = open(t, url)
			mustAppend(t, s, add(account("a"), 5))
			return s, url
		}
		t.Run("who waits is told that it is ahead", func(t *testing.T) {
			s, url := prepare(t)
			f := follow(t, s, 5)
			inside(t, 1, "growth.(*Growth).Wait")
			rewind(t, url, 3)
			if err := <-f.err; !isAhead(err) {
				t.Errorf("got %v, want that position 5 is beyond the end of the log", err)
			}
		})
		t.Run("who waits is told although the store itself writes on at once", func(t *testing.T) {
			s, url := prepare(t)
			f := follow(t, s, 5)
			inside(t, 1, "growth.(*Growth).Wait")
			rewind(t, url, 0)
			mustAppend(t, s, add(account("b"), 1))
			if err := <-f.err; !isAhead(err) {
				t.Errorf("got %v, want that position 5 is beyond the end of the log", err)
			}
		})
		t.Run("who begins anew misses nothing, whatever others were waiting for", func(t *testing.T) {
			for range 2 {
				s, url := prepare(t)
				other := open(t, url)
				follow(t, s, 5)
				inside(t, 1, "growth.(*Growth).Wait")
				rewind(t, url, 3)
				f := follow(t, s, 3)
				inside(t, 1, "growth.(*Growth).Wait")
				for i := range es.Position(5) {
					mustAppend(t, other, add(account("a"), 1))
					f.sees(t, 4+i, 4+i)
				}
			}
		})
		t.Run("a look that gets no answer is not the last", func(t *testing.T) {
			url := server.Database(t)
			proxy := testserver.StartProxy(t, url)
			pool, err := pgxpool.New(t.Context(), proxy.Through(url))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			s, err := postgres.New(t.Context(), pool)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() }) // always nil
			f := follow(t, s, 0)
			eventually(t, "it listens", func() bool { return len(listeners(t, url)) == 1 })
			proxy.Stall()
			mustAppend(t, open(t, url), add(account("a"), 1))
			inside(t, 1, "postgres.(*watcher).look")
			proxy.Heal(t)
			f.sees(t, 1, 1)
		})
	})
}
