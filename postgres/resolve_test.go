package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// through opens a store whose connections go through a proxy.
func through(t testing.TB, c postgres.Config, url, parameters string) (*postgres.Store, *testserver.Proxy) {
	t.Helper()
	proxy := testserver.StartProxy(t, url)
	return openWith(t, c, with(proxy.Through(url), parameters)), proxy
}

// breaks are the ways in which the network can lose a call.
var breaks = map[string]func(*testserver.Proxy, string) <-chan struct{}{
	"the request": (*testserver.Proxy).LoseRequest,
	"the answer":  (*testserver.Proxy).LoseAnswer,
}

func isConflict(err error) bool {
	conflict := (*es.ConflictError)(nil)
	return errors.As(err, &conflict)
}

func isDuplicate(err error) bool {
	duplicate := (*es.DuplicateError)(nil)
	return errors.As(err, &duplicate)
}

func isNil(err error) bool { return err == nil }

func TestResolveLoneAppend(t *testing.T) {
	t.Parallel()
	withCommand := func(name string, stream es.Stream, expected es.Version) es.Append {
		a := named(name, stream, expected)
		a.Command = "c"
		return a
	}
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		for what, lose := range breaks {
			t.Run("the connection loses "+what, func(t *testing.T) {
				url := server.Database(t)
				s, proxy := through(t, postgres.Config{}, url, "pool_max_conns=2")
				l := newLedger()
				for _, test := range []struct {
					name   string
					append es.Append
					want   func(error) bool
				}{
					{"of the very first append", named("first", account("first"), 0), isNil},
					{"of an append to a new stream", named("new", account("new"), 0), isNil},
					{"of an append at a version that the store knows", named("known", account("new"), 1), isNil},
					{"of an append at any version", named("any", account("new"), es.AnyVersion), isNil},
					{"of an append at any version of an unknown stream", named("unseen", account("unseen"), es.AnyVersion), isNil},
					{"of an append with a command", withCommand("command", account("new"), 3), isNil},
					{"of an append at a version that is past", named("past", account("new"), 1), isConflict},
					{"of an append at a version that is not there yet", named("future", account("new"), 9), isConflict},
					{"of an append with the same command", withCommand("command again", account("new"), 4), isDuplicate},
				} {
					lost := lose(proxy, test.append.Stream.ID)
					if err := l.append(t.Context(), s, test.append); !test.want(err) {
						t.Errorf("%s: got %v", test.name, err)
					}
					<-lost
					l.check(t, url)
				}
				mustAppend(t, s, named("healed", account("new"), 4))
			})
		}
	})
}

// mixed returns calls of one batch with the verdict that each must get. The store tells written from refused calls although the answer was
// lost.
func mixed(l *ledger, s *postgres.Store) (try func(t *testing.T)) {
	calls := []struct {
		append es.Append
		want   func(error) bool
	}{
		{named("new", account("new"), 0), isNil},
		{named("stale", account("there"), 0), isConflict},
		{named("right", account("there"), 2), isNil},
		{named("second", account("there"), 2), isConflict},
		{named("any", account("there"), es.AnyVersion), isNil},
		{es.Append{Stream: account("done"), Expected: 1, Command: "c", Events: named("repeated", es.Stream{}, 0).Events}, isDuplicate},
		{es.Append{Stream: account("there"), Expected: es.AnyVersion, Command: "c", Events: named("command", es.Stream{}, 0).Events}, isNil},
		{es.Append{Stream: account("there"), Expected: es.AnyVersion, Command: "c", Events: named("command again", es.Stream{}, 0).Events}, isDuplicate},
		{named("last", account("other"), es.AnyVersion), isNil},
	}
	return func(t *testing.T) {
		t.Helper()
		var appends [][]es.Append
		for _, c := range calls {
			appends = append(appends, []es.Append{c.append})
		}
		positions, errs := s.WriteTogether(t.Context(), appends...)
		for i, c := range calls {
			l.note(c.append, positions[i], errs[i])
			if !c.want(errs[i]) {
				t.Errorf("%s: got %v", c.append.Events[0].Data, errs[i])
			}
		}
	}
}

func TestResolveBatch(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		for what, lose := range breaks {
			t.Run("with mixed verdicts, the connection loses "+what, func(t *testing.T) {
				url := server.Database(t)
				s, proxy := through(t, postgres.Config{}, url, "pool_max_conns=2")
				l := newLedger()
				for v, name := range []string{"there 1", "there 2"} {
					_ = l.append(t.Context(), s, named(name, account("there"), es.Version(v))) // the ledger has the error
				}
				_ = l.append(t.Context(), s, es.Append{Stream: account("done"), Command: "c", Events: named("done", es.Stream{}, 0).Events})
				lost := lose(proxy, "other")
				mixed(l, s)(t)
				<-lost
				l.check(t, url)
				if got := l.count(); got != 3+5 {
					t.Errorf("%d appends were acknowledged, want 8", got)
				}
			})
			t.Run("with known versions, the connection loses "+what, func(t *testing.T) {
				url := server.Database(t)
				s, proxy := through(t, postgres.Config{}, url, "pool_max_conns=2")
				l := newLedger()
				var calls [][]es.Append
				for i := range 50 {
					calls = append(calls, []es.Append{named(fmt.Sprint("event ", i), account(fmt.Sprint("stream ", i)), 0)})
				}
				lost := lose(proxy, "stream 7")
				positions, errs := s.WriteTogether(t.Context(), calls...)
				for i := range calls {
					if errs[i] != nil {
						t.Errorf("append %d: %v", i, errs[i])
					}
					l.note(calls[i][0], positions[i], errs[i])
				}
				<-lost
				l.check(t, url)
			})
		}
	})
}

// A call may arrive long after its connection broke. Once the store has found it unwritten, it must never be written.
func TestLateCallIsRejected(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		for _, parameters := range []string{"", "default_transaction_isolation=serializable", "default_query_exec_mode=exec"} {
			t.Run(parameters, func(t *testing.T) {
				url := server.Database(t)
				s, wire := openOn(t, with(url, parameters))
				l := newLedger()
				for _, a := range []es.Append{
					named("first of all", account("first"), 0),
					named("known", account("first"), 1),
					named("unseen", account("unseen"), es.AnyVersion),
				} {
					wire.keep(a.Stream.ID)
					if err := l.append(t.Context(), s, a); err != nil {
						t.Errorf("%s: %v", a.Events[0].Data, err)
					}
					if answer := wire.deliver(t); !strings.Contains(answer, "ES002") {
						t.Errorf("%s: the late call was answered %q, want ES002", a.Events[0].Data, answer)
					}
					l.check(t, url)
				}
				_ = l.append(t.Context(), s, named("there", account("there"), 0)) // the ledger has the error
				_ = l.append(t.Context(), s, named("there too", account("there"), 1))
				_ = l.append(t.Context(), s, es.Append{Stream: account("done"), Command: "c", Events: named("done", es.Stream{}, 0).Events})
				wire.keep("other")
				mixed(l, s)(t)
				if answer := wire.deliver(t); !strings.Contains(answer, "ES002") {
					t.Errorf("the late batch was answered %q, want ES002", answer)
				}
				l.check(t, url)
			})
		}
	})
}

// waiting returns the processes that wait for an advisory lock.
func waiting(t testing.TB, url string, n int) (pids []int32) {
	t.Helper()
	c := connect(t, url)
	eventually(t, fmt.Sprintf("%d sessions wait for the lock", n), func() bool {
		err := c.QueryRow(t.Context(), `select coalesce(array_agg(pid order by waitstart), '{}') from pg_locks
			where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())`).Scan(&pids)
		if err != nil {
			t.Fatal(err)
		}
		return len(pids) == n
	})
	return pids
}

func TestResolveWhileTheLockIsHeld(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		for name, ended := range map[string]bool{"and the call goes on without its client": false, "and the call is ended": true} {
			t.Run(name, func(t *testing.T) {
				url := server.Database(t)
				s, wire := openOn(t, url)
				release := holdLock(t, open(t, url), url)
				l := newLedger()
				wire.lose("account")
				answered := make(chan error, 1)
				go func() { answered <- l.append(t.Context(), s, named("a", account("a"), 0)) }()
				first := waiting(t, url, 2) // the call, and the store that asks about it
				if ended {
					run(t, url, fmt.Sprintf("select pg_terminate_backend(%d)", first[0]))
				}
				release()
				if err := <-answered; err != nil {
					t.Error(err)
				}
				l.check(t, url)
			})
		}
		t.Run("and the call is cancelled with its connection", func(t *testing.T) {
			url := server.Database(t)
			s, proxy := through(t, postgres.Config{}, url, "")
			release := holdLock(t, open(t, url), url)
			l := newLedger()
			answered := make(chan error, 1)
			go func() { answered <- l.append(t.Context(), s, named("a", account("a"), 0)) }()
			waiting(t, url, 1)
			proxy.Cut()
			inside(t, 1, "postgres.(*groupTx).lookUp")
			release()
			if err := <-answered; err != nil {
				t.Error(err)
			}
			l.check(t, url)
		})
	})
}

// A call in its commit is not visible yet and can no longer be rejected.
func TestResolveWaitsForACallInItsCommit(t *testing.T) {
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	url := server.Database(t)
	s, wire := openOn(t, url)
	l := newLedger()
	_ = l.append(t.Context(), s, named("before", account("a"), 0)) // the ledger has the error
	local := with(url, "synchronous_commit=local")
	run(t, local, "alter system set synchronous_standby_names = 'none'", "select pg_reload_conf()")
	eventually(t, "the server has read its settings", func() bool {
		return scalar[string](t, local, "show synchronous_standby_names") == "none"
	})
	answered := make(chan error, 1)
	stuck := func() bool {
		return scalar[int](t, local, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'") > 0
	}
	// The checkpointer puts the setting into force in its own time: until then a call is not stuck.
	for turn := 0; !stuck(); turn++ {
		wire.lose("account")
		go func() {
			answered <- l.append(t.Context(), s, named(fmt.Sprint("a", turn), account("a"), es.AnyVersion))
		}()
		eventually(t, "the call is stuck in its commit, or answered", func() bool { return stuck() || len(answered) > 0 })
		if !stuck() {
			if err := <-answered; err != nil {
				t.Fatal(err)
			}
		}
	}
	waiting(t, local, 1)
	run(t, local, "alter system reset synchronous_standby_names", "select pg_reload_conf()")
	if err := <-answered; err != nil {
		t.Error(err)
	}
	l.check(t, url)
}

func TestResolveBrokenAgainAndAgain(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s, wire := openOn(t, with(url, "pool_max_conns=3"))
		l := newLedger()
		for turn, lose := range []func(string){wire.lose, wire.keep, wire.lose} {
			lose("account")
			wire.loseMore(9 + turn)
			if err := l.append(t.Context(), s, named(fmt.Sprint("turn ", turn), account("a"), es.Version(turn))); err != nil {
				t.Error(err)
			}
			if n := wire.more(); n != 0 {
				t.Errorf("%d connections did not break", n)
			}
			l.check(t, url)
		}
	})
}

func TestResolveIsNotBlocked(t *testing.T) {
	server := testserver.Postgres(t, testserver.Postgres18)
	t.Run("by a changed default isolation", func(t *testing.T) {
		url := server.Database(t)
		s, wire := openOn(t, with(url, "pool_max_conns=1"))
		l := newLedger()
		_ = l.append(t.Context(), s, named("before", account("a"), 0)) // the ledger has the error
		run(t, url, "do $$ begin execute format('alter database %I set default_transaction_isolation = serializable', current_database()); end $$")
		wire.keep("account")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for v := range es.Version(2) {
			if err := l.append(ctx, s, named(fmt.Sprint("after ", v), account("a"), 1+v)); err != nil {
				t.Error(err)
			}
		}
		l.check(t, url)
	})
	t.Run("by a lock held for longer than lock_timeout", func(t *testing.T) {
		url := server.Database(t)
		s, wire := openOn(t, with(url, "lock_timeout=20ms"))
		l := newLedger()
		release := holdLock(t, open(t, url), url)
		wire.keep("account")
		answered := make(chan error, 1)
		go func() { answered <- l.append(t.Context(), s, named("a", account("a"), 0)) }()
		c, asked := connect(t, url), make(map[time.Time]bool)
		eventually(t, "the store has asked again", func() bool {
			rows, err := c.Query(t.Context(), "select waitstart from pg_locks where locktype = 'advisory' and not granted and waitstart is not null")
			if err != nil {
				t.Fatal(err)
			}
			since, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range since {
				asked[at] = true
			}
			return len(asked) > 1
		})
		release()
		if err := <-answered; err != nil {
			t.Error(err)
		}
		l.check(t, url)
	})
}

// cutOff returns a store that cannot resolve its next append: its connection breaks and no other can be made.
func cutOff(t *testing.T) (s *postgres.Store, proxy *testserver.Proxy, url string, lost <-chan struct{}) {
	t.Helper()
	url = testserver.Postgres(t, testserver.Postgres18).Database(t)
	s, proxy = through(t, postgres.Config{}, url, "")
	mustAppend(t, s, named("before", account("before"), 0))
	lost = proxy.LoseAnswer("lost")
	proxy.Refuse()
	return s, proxy, url, lost
}

func TestResolveEnds(t *testing.T) {
	t.Run("with the context of its caller", func(t *testing.T) {
		s, proxy, url, lost := cutOff(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		answered := make(chan error, 1)
		go func() {
			_, err := s.Append(ctx, named("lost", account("lost"), 0))
			answered <- err
		}()
		<-lost
		inside(t, 1, "postgres.(*groupTx).resolve")
		cancel(nil)
		err := <-answered
		if !errors.Is(err, es.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want es.ErrUnknownOutcome and the context's", err)
		}
		proxy.Heal(t)
		mustAppend(t, s, named("after", account("after"), 0))
		if got := len(stored(t, url)); got != 3 {
			t.Errorf("%d records, want 3", got)
		}
	})
	t.Run("when the store is closed", func(t *testing.T) {
		s, _, _, lost := cutOff(t)
		answered := make(chan error, 1)
		go func() {
			_, err := s.Append(t.Context(), named("lost", account("lost"), 0))
			answered <- err
		}()
		<-lost
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-answered; !errors.Is(err, es.ErrUnknownOutcome) || !errors.Is(err, es.ErrClosed) {
			t.Errorf("got %v, want es.ErrUnknownOutcome and es.ErrClosed", err)
		}
	})
	t.Run("for requests that wait for another batch, too", func(t *testing.T) {
		s, proxy, url, lost := cutOff(t)
		ctx, cancel := context.WithCancel(t.Context())
		repeated := func(i int) []es.Append {
			return []es.Append{{Stream: account("lost"), Expected: es.AnyVersion, Command: "c", Events: named(fmt.Sprint("c", i), es.Stream{}, 0).Events}}
		}
		answered := make(chan []error, 1)
		go func() {
			_, errs := s.WriteTogether(ctx, repeated(0), repeated(1))
			answered <- errs
		}()
		<-lost
		inside(t, 1, "postgres.(*groupTx).resolve")
		cancel()
		errs := <-answered
		if !errors.Is(errs[0], es.ErrUnknownOutcome) || errs[1] == nil || errors.Is(errs[1], es.ErrUnknownOutcome) {
			t.Errorf("got %v, want es.ErrUnknownOutcome and an error that says that nothing was written", errs)
		}
		proxy.Heal(t)
		if got := string(stored(t, url)[1].Data); got != "c0" {
			t.Errorf("the second record is %q, want c0", got)
		}
	})
}

// One of several callers of a batch leaves. The others get their answers.
func TestResolveGoesOnForTheOthers(t *testing.T) {
	s, proxy, url, lost := cutOff(t)
	l := newLedger()
	l.note(named("before", account("before"), 0), 1, nil)
	release := holdLock(t, open(t, url), url)
	first, others := make(chan error, 1), make(chan error, 3)
	go func() { first <- l.append(t.Context(), s, named("first", account("one"), 0)) }()
	waiting(t, url, 1)
	short, cancel := context.WithCancel(t.Context())
	for i := range 3 {
		ctx := t.Context()
		if i == 0 {
			ctx = short
		}
		go func() { others <- l.append(ctx, s, named(fmt.Sprint("lost ", i), account(fmt.Sprint("lost ", i)), 0)) }()
	}
	inside(t, 4, "commit.(*Queue).Append")
	release()
	if err := <-first; err != nil {
		t.Error(err)
	}
	<-lost
	cancel()
	if err := <-others; !errors.Is(err, es.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want es.ErrUnknownOutcome and the context's", err)
	}
	proxy.Heal(t)
	for range 2 {
		if err := <-others; err != nil {
			t.Error(err)
		}
	}
	l.check(t, url)
}

func TestConnectTimeout(t *testing.T) {
	server := testserver.Postgres(t, testserver.Postgres18)
	for name, before := range map[string]func(*testserver.Proxy){
		"no connection can be made":              func(p *testserver.Proxy) { p.Refuse(); p.Cut() },
		"connections are made and get no answer": func(p *testserver.Proxy) { p.Cut(); p.Stall() },
	} {
		t.Run(name, func(t *testing.T) {
			url := server.Database(t)
			s, proxy := through(t, postgres.Config{ConnectTimeout: 200 * time.Millisecond}, url, "")
			l := newLedger()
			if err := l.append(t.Context(), s, named("before", account("a"), 0)); err != nil {
				t.Fatal(err)
			}
			before(proxy)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for i := range 3 {
				err := l.append(ctx, s, named(fmt.Sprint("refused ", i), account("a"), 1))
				if err == nil || errors.Is(err, es.ErrUnknownOutcome) || !strings.Contains(err.Error(), "nothing was written") || ctx.Err() != nil {
					t.Errorf("got %v, want an error that says that nothing was written", err)
				}
			}
			l.check(t, url)
			proxy.Heal(t)
			if err := l.append(t.Context(), s, named("after", account("a"), 1)); err != nil {
				t.Error(err)
			}
			l.check(t, url)
		})
	}
}
