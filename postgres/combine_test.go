package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// combining runs a test whose stores always combine.
func combining(t *testing.T, test func(t *testing.T, server *testserver.Server)) {
	postgres.CombineAlways(func() { testserver.Each(t, test) })
}

// wantCombined checks that a store has combined. A store that falls back to the direct way passes all other tests.
func wantCombined(t *testing.T, s *postgres.Store) {
	t.Helper()
	if got := s.Sharing(); got.Left == 0 || got.Unanswered > 0 {
		t.Errorf("%d batches were left, and %d of them not answered; want some, and none", got.Left, got.Unanswered)
	}
}

// The conformance suites hold while every batch is left as a request.
func TestConformanceWhileCombining(t *testing.T) {
	combining(t, func(t *testing.T, server *testserver.Server) {
		if server.Version() == testserver.Postgres14 { // one version is enough for a suite that takes long
			const parameters = "pool_max_conns=9&default_transaction_isolation=repeatable%20read&default_query_exec_mode=exec"
			t.Run("with "+parameters, func(t *testing.T) { conforms(t, with(server.Database(t), parameters)) })
		}
		for _, mode := range []string{"transaction", "statement"} {
			t.Run("through pgbouncer in mode "+mode, func(t *testing.T) {
				url := server.Database(t)
				pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{PoolSize: 3, Settings: map[string]string{"pool_mode": mode}})
				if err := postgres.Migrate(t.Context(), newPool(t, url)); err != nil { // in mode statement there are no transactions
					t.Fatal(err)
				}
				other := openWith(t, postgres.Config{}, pooler.Through(url))
				writeAndRead(t, openWith(t, postgres.Config{}, pooler.Through(url)), other)
				wantCombined(t, other)
			})
		}
	})
}

// A blocker holds the lock of all appends, as a transaction of an application does between its append and its end.
type blocker struct{ tx pgx.Tx }

func block(t *testing.T, s *postgres.Store, url string) *blocker {
	t.Helper()
	tx, err := connect(t, url).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s.In(tx), add(account("blocker"), 1))
	return &blocker{tx}
}

func (b *blocker) release(t *testing.T) {
	t.Helper()
	if err := b.tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}

const countRequests = "select count(*)::integer from es.requests"

// waitForRequests waits until a number of requests lie in the table.
func waitForRequests(t *testing.T, url string, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " requests lie there"), func() bool { return scalar[int](t, url, countRequests) == n })
}

// wantNoRequests checks that no request is left over.
func wantNoRequests(t *testing.T, url string) {
	t.Helper()
	if n := scalar[int](t, url, countRequests); n != 0 {
		t.Errorf("%d requests are left over", n)
	}
}

// several opens stores that append concurrently, as processes do.
func several(t *testing.T, n int, url string) []*postgres.Store {
	t.Helper()
	stores := make([]*postgres.Store, n)
	for i := range stores {
		stores[i] = openWith(t, postgres.Config{}, with(url, "pool_max_conns=4"))
	}
	return stores
}

func TestOneProcessServesTheOthers(t *testing.T) {
	combining(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		stores := several(t, 12, url)
		serveOld(t, url)
		l := newLedger()
		for i, s := range stores {
			for name, a := range map[string]es.Append{
				"known": named(fmt.Sprint("known ", i), account(fmt.Sprint(i)), 0),
				"own":   named(fmt.Sprint("own ", i), account(fmt.Sprint("own", i)), 0),
			} {
				if err := l.append(t.Context(), s, a); err != nil {
					t.Fatal(name, err)
				}
			}
		}
		b := block(t, stores[0], url)
		var all sync.WaitGroup
		for i, s := range stores {
			command := named(fmt.Sprint("command ", i), account(fmt.Sprint("own", i)), 1)
			command.Command = "c"
			all.Go(func() {
				if err := l.append(t.Context(), s, command); err != nil {
					t.Error(err)
				}
			})
			all.Go(func() { // half of them conflict with those of a neighbour
				if err := l.append(t.Context(), s, named(fmt.Sprint("next ", i), account(fmt.Sprint(i/2)), 1)); err != nil && !isConflict(err) {
					t.Error(err)
				}
			})
		}
		waitForRequests(t, url, len(stores))
		b.release(t)
		all.Wait()
		l.check(t, url)
		wantNoRequests(t, url)
		if n := scalar[int](t, url, "select count(*)::integer from es.answers"); n == 0 {
			t.Error("no answer was left by another process")
		}
		for _, s := range stores {
			wantCombined(t, s)
		}
	})
}

// Stores that combine, one that does not, one with an inline projection, transactions of an application, and callers without patience: each
// acknowledged append is there once, and each unknown one at most once.
func TestMixedWriters(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		var direct *postgres.Store
		postgres.CombineNever(func() { direct = openWith(t, postgres.Config{}, url) })
		var stores []*postgres.Store
		postgres.CombineAlways(func() { stores = several(t, 6, url) })
		stores = append(stores, direct)
		l := newLedger()
		var all sync.WaitGroup
		for i, s := range stores {
			for w := range 3 {
				all.Go(func() {
					for n := range 25 {
						ctx, cancel := t.Context(), func() {}
						if w == 2 {
							ctx, cancel = context.WithTimeout(ctx, time.Duration(rand.Int64N(int64(4*time.Millisecond))))
						}
						a := named(fmt.Sprint(i, "-", w, "-", n), account(fmt.Sprint(rand.IntN(9))), es.AnyVersion)
						if n%3 == 0 {
							a.Command = fmt.Sprint("c", n)
						}
						err := l.append(ctx, s, a)
						cancel()
						if err != nil && !isDuplicate(err) && !errors.Is(err, context.DeadlineExceeded) {
							t.Error(err)
						}
					}
				})
			}
		}
		all.Go(func() {
			c := connect(t, url)
			for n := range 20 {
				tx, err := c.Begin(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				a := named(fmt.Sprint("in ", n), account("in"), es.AnyVersion)
				position, err := direct.In(tx).Append(t.Context(), a)
				if n%2 == 0 {
					err = errors.Join(err, tx.Commit(t.Context()))
					l.note(a, position, err)
				} else {
					err = errors.Join(err, tx.Rollback(t.Context()))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
		all.Wait()
		for _, s := range stores {
			if err := s.Close(); err != nil { // so that calls without callers have ended
				t.Error(err)
			}
		}
		l.check(t, url)
		wantNoRequests(t, url)
	})
}

// The connection of a call breaks at each of its boundaries. The store finds out by token, and nothing is written twice.
func TestLostCallIsResolved(t *testing.T) {
	combining(t, func(t *testing.T, server *testserver.Server) {
		for what, lose := range breaks {
			t.Run("the connection loses "+what, func(t *testing.T) {
				url := server.Database(t)
				s, proxy := through(t, postgres.Config{}, url, "pool_max_conns=3")
				l := newLedger()
				for _, a := range []es.Append{
					named("first", account("first"), 0), named("known", account("first"), 1), named("any", account("first"), es.AnyVersion), named("unseen", account("unseen"), es.AnyVersion),
				} {
					lost := lose(proxy, string(a.Events[0].Data))
					if err := l.append(t.Context(), s, a); err != nil {
						t.Errorf("%s: %v", a.Events[0].Data, err)
					}
					<-lost
					l.check(t, url)
				}
				wantNoRequests(t, url)
			})
		}
		t.Run("all connections are cut while the call waits for the lock", func(t *testing.T) {
			url := server.Database(t)
			s, proxy := through(t, postgres.Config{}, url, "pool_max_conns=3")
			other := several(t, 1, url)[0]
			l := newLedger()
			for n := range 8 {
				b := block(t, other, url)
				var all sync.WaitGroup
				all.Go(func() {
					if err := l.append(t.Context(), s, named(fmt.Sprint("cut ", n), account("cut"), es.AnyVersion)); err != nil {
						t.Error(err)
					}
				})
				waitForRequests(t, url, 1)
				if n%2 == 0 {
					all.Go(func() {
						if err := l.append(t.Context(), other, named(fmt.Sprint("other ", n), account("other"), es.AnyVersion)); err != nil {
							t.Error(err)
						}
					})
					waitForRequests(t, url, 2)
				}
				proxy.Cut()
				b.release(t)
				all.Wait()
				l.check(t, url)
			}
			wantNoRequests(t, url)
		})
	})
}

const terminateWaiters = `select count(pg_terminate_backend(a.pid))::integer from pg_stat_activity a
	where a.datname = current_database() and a.wait_event_type = 'Lock' and a.query like '%serve%'`

// The server ends backends that wait with their requests, which others may serve at the same time.
func TestKilledWaiters(t *testing.T) {
	combining(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		stores := several(t, 4, url)
		l := newLedger()
		ended := 0
		for n := range 8 {
			b := block(t, stores[0], url)
			var all sync.WaitGroup
			for i, s := range stores {
				all.Go(func() {
					if err := l.append(t.Context(), s, named(fmt.Sprint(n, "-", i), account(fmt.Sprint(i)), es.AnyVersion)); err != nil {
						t.Error(err)
					}
				})
			}
			waitForRequests(t, url, len(stores))
			if n%2 == 0 {
				ended += scalar[int](t, url, terminateWaiters)
				b.release(t)
			} else {
				b.release(t)
				ended += scalar[int](t, url, terminateWaiters) // while one serves
			}
			all.Wait()
			l.check(t, url)
		}
		if ended == 0 {
			t.Error("no backend was ended")
		}
		wantNoRequests(t, url)
	})
}

// A call that a time limit ends has left its request. It is told that nothing was written only once that is so for good.
func TestTimeLimitOfTheServer(t *testing.T) {
	combining(t, func(t *testing.T, server *testserver.Server) {
		for _, limit := range []string{"lock_timeout", "statement_timeout"} {
			t.Run(limit, func(t *testing.T) {
				url := server.Database(t)
				patient := several(t, 1, url)[0]
				hasty := openWith(t, postgres.Config{}, with(url, "options=-c%20"+limit+"%3D300"))
				l := newLedger()
				b := block(t, patient, url)
				var all sync.WaitGroup
				all.Go(func() {
					if err := l.append(t.Context(), patient, named("patient", account("patient"), 0)); err != nil {
						t.Error(err)
					}
				})
				waitForRequests(t, url, 1)
				var err error
				all.Go(func() { err = l.append(t.Context(), hasty, named("hasty", account("hasty"), es.AnyVersion)) })
				waitForRequests(t, url, 2)
				eventually(t, "the call is ended", func() bool { return hasty.Sharing().Unanswered > 0 })
				b.release(t)
				all.Wait()
				if err != nil && (errors.Is(err, es.ErrUnknownOutcome) || !strings.Contains(err.Error(), "nothing was written")) {
					t.Errorf("got %v, want success, or an error that says that nothing was written", err)
				}
				l.check(t, url)
				mustAppend(t, patient, add(account("later"), 1)) // would write a request that was left over
				wantNoRequests(t, url)
			})
		}
	})
}

// appendAndLeave appends with a context that ends when the request waits at the server, and returns the caller's error.
func appendAndLeave(t *testing.T, s *postgres.Store, url string, a es.Append) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := s.Append(ctx, a)
		result <- err
	}()
	waitForRequests(t, url, 1)
	cancel()
	return <-result
}

// A caller whose context ends learns so at once, and nothing is cancelled at the server, where others may share the transaction.
func TestCallerLeavesWhileCombining(t *testing.T) {
	combining(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s, other := openWith(t, postgres.Config{}, url), several(t, 1, url)[0]
		mustAppend(t, s, at(account("a"), 0, 1))
		b := block(t, other, url)
		if err := appendAndLeave(t, s, url, at(account("a"), 1, 1)); !errors.Is(err, es.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want es.ErrUnknownOutcome and the context's", err)
		}
		waiting := scalar[int](t, url, "select count(*)::integer from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")
		if waiting != 1 {
			t.Errorf("%d calls wait at the server, want 1", waiting)
		}
		b.release(t)
		if err := s.Close(); err != nil { // waits for the call
			t.Error(err)
		}
		if all := collect(t, other.Read(t.Context(), account("a"), 0)); len(all) != 2 {
			t.Errorf("the stream has %d records; want 2, as the call went on", len(all))
		}
	})
}

const leaveRequest = `select es.leave($1, 0, 0, $2::text[], array['x']::text[], array[$3]::bigint[], array['t']::text[], array['x']::bytea[], $4::text[],
	null, null, null, null, null, null, null, null, null, null, null, null)`

// Requests that cannot be written take nothing with them.
func TestNeighboursThatCannotBeWritten(t *testing.T) {
	combining(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := several(t, 1, url)[0]
		mustAppend(t, s, at(account("a"), 0, 1))
		for name, leave := range map[string]struct {
			kind, meta []string
			version    int64
			after      string
		}{
			"is fenced":              {kind: []string{"k"}, version: 1, after: "insert into es.fences (token) values (1000000)"},
			"has arrays that differ": {kind: []string{"k", "l"}, version: 1},
			"has a null":             {version: 1},
			"collides":               {kind: []string{"account"}, version: 1, after: "update es.requests set e_id = '{a}'"},
			"is of a lost history":   {kind: []string{"k"}, version: 1, after: "update es.requests set known = 1, known_token = 7"},
			"is of a dump":           {kind: []string{"k"}, version: 1, after: "create table es.dump as table es.requests; delete from es.requests; insert into es.requests overriding system value table es.dump; drop table es.dump"},
			"is old":                 {kind: []string{"k"}, version: 1, after: "update es.requests set time = time - interval '6 s', xact = pg_current_xact_id()::xid"},
			"is less durable":        {kind: []string{"k"}, version: 1, after: "update es.requests set durable = 'local', xact = pg_current_xact_id()::xid"},
		} {
			t.Run(name, func(t *testing.T) {
				c := connect(t, url)
				if _, err := c.Exec(t.Context(), leaveRequest, int64(1000000), leave.kind, leave.version, leave.meta); err != nil {
					t.Fatal(err)
				}
				for sql := range strings.SplitSeq(leave.after, ";") {
					if strings.HasPrefix(sql, "update es.requests") && !strings.Contains(sql, "xact") {
						sql += ", xact = pg_current_xact_id()::xid"
					}
					if _, err := c.Exec(t.Context(), sql); err != nil {
						t.Fatal(err)
					}
				}
				before := len(dense(t, s))
				mustAppend(t, s, add(account("a"), 1))
				if got := len(dense(t, s)); got != before+1 {
					t.Errorf("%d records were written, want 1", got-before)
				}
				run(t, url, "delete from es.requests", "delete from es.answers", "delete from es.fences")
			})
		}
		wantCombined(t, s)
	})
}

// Without a right, a writer appends directly. No role but the owner sees requests or answers.
func TestRightsOfCombining(t *testing.T) {
	postgres.CombineAlways(func() {
		eachWithRoles(t, func(t *testing.T, _, owner, writer, reader string) {
			w := open(t, writer)
			mustAppend(t, w, at(account("a"), 0, 1))
			wantCombined(t, w)
			for role, url := range map[string]string{"writer": writer, "reader": reader} {
				for _, sql := range []string{"table es.requests", "table es.answers", "delete from es.answers", "insert into es.answers (ticket, n, start) values (1, 1, 1)", "select nextval('es.rounds')"} {
					if _, err := connect(t, url).Exec(t.Context(), sql); code(err) != refusedPrivilege {
						t.Errorf("%s: %s: got %v, want insufficient privilege", role, sql, err)
					}
				}
			}
			for _, sql := range []string{"select es.serve(1)", "select es.withdraw(1)", "select es.sweep()", "select es.leave(1, 1, 1, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null)"} {
				if _, err := connect(t, reader).Exec(t.Context(), sql); code(err) != refusedPrivilege {
					t.Errorf("reader: %s: got %v, want insufficient privilege", sql, err)
				}
			}
			for _, right := range []string{"function es.serve", "function es.leave", "function es.withdraw"} {
				run(t, owner, "revoke execute on "+right+" from es_writer")
				s := open(t, writer)
				mustAppend(t, s, add(account("a"), 1))
				mustAppend(t, s, add(account("a"), 1))
				if s.Sharing().Active && right != "function es.withdraw" {
					t.Errorf("without the right to execute %s, the store still combines", right)
				}
				if err := s.Resolve(t.Context(), 0); err != nil {
					t.Errorf("without the right to execute %s: resolve: %v", right, err)
				}
				run(t, owner, "grant execute on "+right+" to es_writer")
			}
			dense(t, w)
		})
	})
}

// The process that serves others waits for a synchronous standby, and its wait is cancelled. What it has written is visible, but a failover can
// lose it, so those that were served wait for the standby themselves.
func TestServedRequestsWaitForTheStandby(t *testing.T) {
	postgres.CombineAlways(func() {
		server := testserver.StartPostgres(t, testserver.PostgresOptions{})
		url := server.Database(t)
		stores := several(t, 3, url)
		for i, s := range stores {
			mustAppend(t, s, at(account(fmt.Sprint(i)), 0, 1))
		}
		local, waiting, end := withoutStandby(t, url)
		b := block(t, stores[0], url)
		l := newLedger()
		answered := make(chan error, len(stores))
		for i, s := range stores {
			go func() { answered <- l.append(t.Context(), s, named(fmt.Sprint(i), account(fmt.Sprint(i)), 1)) }()
		}
		waitForRequests(t, url, len(stores))
		b.release(t)
		eventually(t, "the one that serves waits", func() bool { return len(waiting()) == 1 })
		before := warnings(server)
		cancelWait(t, local, waiting()[0])
		eventually(t, "its wait is over", func() bool { return warnings(server) > before })
		// One that was not among those served serves itself. It has the lock while it waits, and so the one that looks for its outcome waits for that.
		looking := func() int {
			return scalar[int](t, local, "select count(*) from pg_stat_activity where wait_event = 'advisory' and query like '%.resolve(%'")
		}
		eventually(t, "all wait, or one is answered", func() bool { return len(waiting())+looking() == len(stores) || len(answered) > 0 })
		if len(answered) > 0 {
			t.Errorf("an append was answered with %v while its standby was not there", <-answered)
			answered <- nil
		}
		end()
		for range stores {
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
		dense(t, stores[0])
	})
}
