package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// withoutStandby lets each commit on a server wait for a synchronous standby that does not exist, until end is called. local is the URL of
// sessions that do not wait.
func withoutStandby(t *testing.T, url string) (local string, waiting func() []int32, end func()) {
	t.Helper()
	local = with(url, "synchronous_commit=local")
	waiting = func() []int32 {
		return column[int32](t, local, "select pid from pg_stat_activity where wait_event = 'SyncRep' order by backend_start")
	}
	run(t, local, "create table stuck (n integer)", "alter system set synchronous_standby_names = 'none'", "select pg_reload_conf()")
	// The checkpointer puts the setting into force in its own time: until then no commit waits.
	probe := make(chan error, 1)
	probing := connect(t, with(url, "synchronous_commit=on"))
	for len(waiting()) == 0 {
		go func() {
			_, err := probing.Exec(context.WithoutCancel(t.Context()), "insert into stuck values (1)")
			probe <- err
		}()
		eventually(t, "a commit waits for a standby, or is done", func() bool { return len(waiting()) > 0 || len(probe) > 0 })
		if len(waiting()) == 0 {
			if err := <-probe; err != nil {
				t.Fatal(err)
			}
		}
	}
	cancelWait(t, local, waiting()[0])
	if err := <-probe; err != nil {
		t.Fatal(err)
	}
	return local, waiting, func() {
		run(t, local, "alter system reset synchronous_standby_names", "select pg_reload_conf()")
	}
}

// cancelWait cancels the wait of a session for a standby, as an operator does.
func cancelWait(t *testing.T, local string, pid int32) {
	t.Helper()
	if !scalar[bool](t, local, "select pg_cancel_backend($1)", pid) {
		t.Fatalf("session %d is gone", pid)
	}
}

// A transaction whose wait for a synchronous standby is cancelled is committed, and the server reports success with a warning. A failover
// can lose it, so it must not be acknowledged.
func TestACancelledWaitForAStandbyIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	for name, inline := range map[string][]postgres.Projection{"an append": nil, "an append with an inline projection": {counts()}} {
		t.Run(name, func(t *testing.T) {
			server := testserver.StartPostgres(t, testserver.PostgresOptions{})
			url := server.Database(t)
			s := openWith(t, postgres.Config{Inline: inline}, url)
			mustAppend(t, s, at(account("a"), 0, 1))
			local, waiting, end := withoutStandby(t, url)
			l := newLedger()
			answered := make(chan error, 1)
			go func() { answered <- l.append(t.Context(), s, named("a", account("a"), 1)) }()
			// Each time, what resolves the append waits for the standby as well.
			for range 3 {
				eventually(t, "the append waits, or is answered", func() bool { return len(waiting()) > 0 || len(answered) > 0 })
				if len(answered) > 0 {
					t.Fatalf("the append was answered with %v while its standby was not there", <-answered)
				}
				before := warnings(server)
				cancelWait(t, local, waiting()[0])
				eventually(t, "the wait is over", func() bool { return warnings(server) > before })
			}
			end()
			if err := <-answered; err != nil {
				t.Error(err)
			}
			dense(t, s)
		})
	}
}

// warnings returns how many waits for a standby were cancelled.
func warnings(server *testserver.Server) int {
	return strings.Count(server.Log(), "canceling wait for synchronous replication")
}

// The caller whose context ends is told that the outcome is not known.
func TestAWaitForAStandbyEndsWithTheContext(t *testing.T) {
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	url := server.Database(t)
	s := open(t, url)
	mustAppend(t, s, at(account("a"), 0, 1))
	local, waiting, end := withoutStandby(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan error, 1)
	go func() {
		_, err := s.Append(ctx, at(account("a"), 1, 1))
		answered <- err
	}()
	eventually(t, "the append waits", func() bool { return len(waiting()) > 0 })
	cancelWait(t, local, waiting()[0])
	eventually(t, "the append is resolved, or answered", func() bool { return len(waiting()) > 0 || len(answered) > 0 })
	cancel()
	if err := <-answered; !errors.Is(err, es.ErrUnknownOutcome) {
		t.Errorf("got %v, want es.ErrUnknownOutcome", err)
	}
	end()
}

// The reply of an append is lost while it waits for its standby, and then the server gives up the wait: the event is visible, but
// a failover can lose it.
func TestResolveWaitsForTheStandby(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	url := server.Database(t)
	s, wire := openOn(t, url)
	mustAppend(t, s, named("before", account("a"), 0))
	local, waits, end := withoutStandby(t, url)
	answered := make(chan error, 1)
	wire.lose("account")
	go func() {
		_, err := s.Append(t.Context(), named("a", account("a"), 1))
		answered <- err
	}()
	eventually(t, "the append waits for the standby", func() bool { return len(waits()) > 0 })
	waiting(t, local, 1) // the store waits for the lock of the append
	cancelWait(t, local, waits()[0])
	eventually(t, "the event is visible", func() bool { return scalar[int](t, local, "select count(*) from es.events") == 2 })
	eventually(t, "the store waits for the standby, or has answered", func() bool { return len(waits()) > 0 || len(answered) > 0 })
	if len(answered) > 0 {
		t.Fatalf("the append was answered with %v while its standby was not there", <-answered)
	}
	end()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// A role with synchronous_commit = off must not lose what is acknowledged in a crash. That a commit waits for a standby shows that it waits
// for the disk.
func TestSynchronousCommitIsRaised(t *testing.T) {
	t.Parallel()
	for _, version := range []testserver.Version{testserver.Postgres14, testserver.Postgres18} {
		t.Run(fmt.Sprintf("%.2s", version), func(t *testing.T) {
			server := testserver.StartPostgres(t, testserver.PostgresOptions{Version: version})
			url := server.Database(t)
			name := scalar[string](t, url, "select current_database()")
			run(t, url, fmt.Sprintf("alter database %q set synchronous_commit = off", name))
			alone, s := openWith(t, postgres.Config{Schema: "alone"}, url), open(t, url)
			for v := range es.Version(20) {
				mustAppend(t, alone, at(account("a"), v, 1))
			}
			if !alone.FastPath() {
				t.Error("the fast path is closed, so it is not tested")
			}
			mustAppend(t, s, at(account("a"), 0, 1))
			_, waits, end := withoutStandby(t, url)
			calls := map[string]func() error{
				"the fast path":      func() error { _, err := alone.Append(t.Context(), at(account("a"), 20, 1)); return err },
				"an append of one":   func() error { _, err := s.Append(t.Context(), at(account("a"), 1, 1)); return err },
				"an append of two":   func() error { _, err := s.Append(t.Context(), at(account("a"), 2, 2)); return err },
				"a judged append":    func() error { _, err := s.Append(t.Context(), add(account("b"), 1)); return err },
				"a fence of resolve": func() error { return s.Resolve(t.Context(), 4) },
			}
			for _, what := range []string{"the fast path", "an append of one", "an append of two", "a judged append", "a fence of resolve"} {
				done := make(chan error, 1)
				go func() { done <- calls[what]() }()
				eventually(t, what+" waits, or is done", func() bool { return len(waits()) > 0 || len(done) > 0 })
				if len(done) > 0 {
					t.Errorf("%s did not wait for its commit: %v", what, <-done)
					continue
				}
				end()
				if err := <-done; err != nil {
					t.Errorf("%s: %v", what, err)
				}
				_, waits, end = withoutStandbyAgain(t, url)
			}
			end()
		})
	}
}

func withoutStandbyAgain(t *testing.T, url string) (string, func() []int32, func()) {
	t.Helper()
	run(t, with(url, "synchronous_commit=local"), "drop table stuck")
	return withoutStandby(t, url)
}

// New refuses a pool that cannot report a cancelled wait, if there is one to report.
func TestPoolWithoutNoticesIsRefused(t *testing.T) {
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	url := server.Database(t)
	open(t, url)
	local, _, end := withoutStandby(t, url)
	defer end()
	_, err := postgres.New(t.Context(), newPool(t, local))
	if !errors.Is(err, es.ErrInvalid) {
		t.Errorf("got %v, want an error that wraps es.ErrInvalid", err)
	}
	s, err := postgres.New(t.Context(), newPool(t, local, postgres.Configure))
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, at(account("a"), 0, 1))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
