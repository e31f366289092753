package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/internal/test/testserver"
)

// These tests call the functions of migrations/007.sql as a store does. The table of rules is in docs/decisions.

// leaveEvents leaves a request of n events, for a stream of its own.
func leaveEvents(t *testing.T, c *pgx.Conn, ticket int64, n int) {
	t.Helper()
	_, err := c.Exec(t.Context(), `select es.leave($1, 0, 0, array_agg('left'::text), array_agg($1::bigint::text), array_agg(i), array_agg('t'::text), array_agg('x'::bytea), array_agg(''::text),
		null, null, null, null, null, null, null, null, null, null, null, null) from generate_series(1::bigint, $2) i`, ticket, n)
	if err != nil {
		t.Fatal(err)
	}
}

// serve serves a request and returns the answer, and how many others were served.
func serve(t *testing.T, c *pgx.Conn, ticket int64) (start int64, served int) {
	t.Helper()
	if err := c.QueryRow(t.Context(), "select start, served from es.serve($1)", ticket).Scan(&start, &served); err != nil {
		t.Fatal(err)
	}
	return start, served
}

// However many requests wait, each gets its own answer, and one call serves only so many that the lock is held for a short time.
func TestManyRequestsWait(t *testing.T) {
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	s := open(t, url)
	c := connect(t, url)
	const many, base, most = 300, 1_000_000, 130
	for i := range many {
		leaveEvents(t, c, base+int64(i)*10, 1)
	}
	starts := make(map[int64]int64)
	for i := many - 1; i >= 0; i-- { // not in the order of arrival
		ticket := base + int64(i)*10
		start, served := serve(t, c, ticket)
		if served > most {
			t.Errorf("one call has served %d others, want at most %d", served, most)
		}
		if again, _ := serve(t, c, ticket); served < 0 && again != start {
			t.Errorf("request %d: the answer is %d, and %d when asked again", i, start, again)
		}
		if other, taken := starts[start]; start < 0 || taken {
			t.Fatalf("requests %d and %d: the answer is %d", i, other, start)
		}
		starts[start] = int64(i)
	}
	all := dense(t, s)
	if len(all) != many {
		t.Fatalf("%d events were written, want %d", len(all), many)
	}
	for start, i := range starts {
		if got, want := all[start].Stream.ID, fmt.Sprint(base+i*10); got != want {
			t.Errorf("position %d has the event of %s, and was the answer to %s", start+1, got, want)
		}
	}

	serveOld(t, url)
	for i := range 3 {
		leaveEvents(t, c, 2*base+int64(i)*10_000, 2000)
	}
	if start, served := serve(t, c, 2*base); start != many || served != 1 {
		t.Errorf("of three requests with 2,000 events each: the answer is %d, and %d others were served; want %d and 1", start, served, many)
	}
}

// A request that was removed has no answer. Its store finds out by token, and does not take that for "not written".
func TestARequestWithoutAnswerIsResolved(t *testing.T) {
	combining(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := several(t, 1, url)[0]
		mustAppend(t, s, at(account("a"), 0, 1))
		for n, written := range []bool{false, true} {
			b := block(t, s, url)
			var all sync.WaitGroup
			all.Go(func() { mustAppend(t, s, add(account("a"), 1)) })
			waitForRequests(t, url, 1)
			if written { // as if the answer of the process that has served it had been removed
				for _, sql := range []string{"select es.write(q) from es.requests q", "delete from es.requests"} {
					if _, err := b.tx.Exec(t.Context(), sql); err != nil {
						t.Fatal(err)
					}
				}
				if err := b.tx.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else {
				run(t, url, "delete from es.requests")
				b.release(t)
			}
			all.Wait()
			if got := len(collect(t, s.Read(t.Context(), account("a"), 0))); got != n+2 {
				t.Errorf("the stream has %d events, want %d", got, n+2)
			}
			if got := s.Sharing().Unanswered; got != int64(n+1) {
				t.Errorf("%d batches had no answer, want %d", got, n+1)
			}
		}
	})
}

// What ended processes have left is removed: at Open, and now and then by those that serve.
func TestWhatIsLeftBehindIsRemoved(t *testing.T) {
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	open(t, url)
	c := connect(t, url)
	exec := func(sql string) {
		t.Helper()
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	answers := func() int { return scalar[int](t, url, "select count(*)::integer from es.answers") }

	leaveEvents(t, c, 1, 1)
	exec("update es.requests set time = time - interval '2 minutes'")
	exec("insert into es.answers (ticket, n, start) select i, i, 0 from generate_series(2, 10000) i")
	open(t, url)
	wantNoRequests(t, url)
	if got := answers(); got != 8193 {
		t.Errorf("%d answers are there after Open, want the last 8,193", got)
	}

	exec("alter table es.requests alter n restart with 19200") // a 64th, 9,200 behind the last answer
	leaveEvents(t, c, 1_000_000, 1)
	serve(t, c, 1_000_000)
	if got := scalar[int](t, url, "select count(*)::integer from es.answers where n between 19200 - 9216 and 19200 - 8192"); got != 0 || answers() == 0 {
		t.Errorf("%d of %d answers are far behind, want none of some", got, answers())
	}
}

// The functions use their indexes, with plans from when the tables were empty and with many dead rows.
func TestPlansOfCombining(t *testing.T) {
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	open(t, url)
	early := connect(t, url)
	const each = 12 // as often as makes the server keep a plan for any parameters
	use := func(c *pgx.Conn, base int64) {
		for i := range int64(each) {
			leaveEvents(t, c, base+i*10, 1)
			leaveEvents(t, c, base+i*10+5, 1)
			serve(t, c, base+i*10)
			serve(t, c, base+i*10+5)
			if _, err := c.Exec(t.Context(), "select es.withdraw($1)", base+i*10); err != nil {
				t.Fatal(err)
			}
		}
	}
	use(early, 1000)
	const rows = 100_000
	run(t, url, fmt.Sprintf(`insert into es.requests (ticket, xact, time, durable, weight, known, known_token)
			select -i, '1', now(), 'on', 1, 0, 0 from generate_series(1, %d) i`, rows),
		fmt.Sprintf("insert into es.answers (ticket, n, start) select -i, -i, 0 from generate_series(1, %d) i", rows),
		fmt.Sprintf("alter table es.requests alter n restart with %d", 2*rows))
	read := func() int64 {
		return scalar[int64](t, url, `select sum(pg_stat_get_tuples_returned(c.oid))::bigint from pg_class c
			where c.relname in ('requests', 'answers') and c.relnamespace = 'es'::regnamespace`)
	}
	late := connect(t, url)
	settled := read()
	eventually(t, "the server has counted", func() bool { before := settled; settled = read(); return settled == before })
	for i, c := range []*pgx.Conn{early, late} {
		use(c, int64(i+2)*1_000_000)
		if err := c.Close(context.Background()); err != nil { // so that the server counts
			t.Fatal(err)
		}
	}
	if got := read() - settled; got > rows/2 {
		t.Errorf("%d rows of requests and answers were read by scans", got)
	}
}
