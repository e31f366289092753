package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/internal/test/trace"
	"github.com/thalo-go/es/postgres"
)

// startTrace records what each transaction does, in its own transaction, so that what is rolled back leaves no trace. A number is taken when
// a row changes. So in the order of their last numbers, transactions that have the lock are in their order, and one that leaves a request is
// before all that serve it.
const startTrace = `
create schema traced;
create table traced.log (
	n     bigint generated always as identity,
	xact  xid8 not null default pg_current_xact_id(),
	run   timestamptz not null default pg_postmaster_start_time(),
	sql   text not null default current_query(),
	what  text not null, -- done with the ticket or token
	token bigint not null,
	more  bigint not null default 0, -- events of a request, start of an answer, outcome
	name  text not null default ''
);
create function traced.note() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$ begin
	case tg_table_name || ' ' || tg_op
	when 'requests INSERT' then insert into traced.log (what, token, more) values ('left', new.ticket, new.weight);
	when 'requests DELETE' then insert into traced.log (what, token) values ('removed', old.ticket);
	when 'answers INSERT' then insert into traced.log (what, token, more) values ('answered', new.ticket, new.start);
	when 'fences INSERT' then insert into traced.log (what, token) values ('fenced', new.token);
	when 'events INSERT' then insert into traced.log (what, token, name) values ('wrote', new.token, convert_from(new.data, 'UTF8'));
	end case;
	return null;
end $$;
create trigger note after insert or delete on es.requests for each row execute function traced.note();
create trigger note after insert on es.answers for each row execute function traced.note();
create trigger note after insert on es.fences for each row execute function traced.note();
create trigger note after insert on es.events for each row execute function traced.note()`

// judgeTrace returns the objections to what was recorded, and how many requests were served by other processes.
func judgeTrace(t *testing.T, url string) (objections []error, served int) {
	t.Helper()
	rows, err := connect(t, url).Query(t.Context(), `select xact::text, run, sql, what, token, more, name from (
			select *, max(n) over (partition by xact) as last from traced.log) l order by last, n`)
	if err != nil {
		t.Fatal(err)
	}
	var c trace.Checker
	var tx trace.Transaction
	note := func(err error) {
		if err != nil {
			objections = append(objections, err)
		}
	}
	last := ""
	runs := make(map[time.Time]int)
	commit := func() {
		if last != "" && tx.By != "" {
			note(c.Commit(tx))
			served += len(tx.Answered)
		}
	}
	var xact, sql, what, name string
	var run time.Time
	var token, more int64
	_, err = pgx.ForEachRow(rows, []any{&xact, &run, &sql, &what, &token, &more, &name}, func() error {
		if xact != last {
			commit()
			if _, known := runs[run]; !known {
				runs[run] = len(runs)
			}
			tx, last = trace.Transaction{Run: runs[run], By: statementOf(sql), Answered: make(map[int64]int64)}, xact
		}
		switch what {
		case "left":
			tx.Left = append(tx.Left, trace.Request{Ticket: token, Events: more})
		case "removed":
			tx.Removed = append(tx.Removed, token)
		case "answered":
			tx.Answered[token] = more
		case "fenced":
			tx.Fenced = append(tx.Fenced, token)
		case "wrote":
			tx.Wrote = append(tx.Wrote, trace.Event{Token: token, Name: name})
		case "told":
			tx.By = ""
			note(c.Told(name, trace.Outcome(more)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	commit()
	return objections, served
}

func statementOf(sql string) string {
	for _, by := range []string{trace.Leave, trace.Serve, trace.Resolve, trace.Withdraw, trace.Sweep} {
		if strings.Contains(sql, "."+by+"(") {
			return by
		}
	}
	return trace.Append
}

// told records what the caller of an append was told.
func told(ctx context.Context, pool *pgxpool.Pool, name string, err error) error {
	outcome := trace.Written
	switch {
	case errors.Is(err, es.ErrUnknownOutcome):
		outcome = trace.Unknown
	case err != nil:
		outcome = trace.NotWritten
	}
	_, err = pool.Exec(ctx, "insert into traced.log (what, token, more, name) values ('told', 0, $1, $2)", int64(outcome), name)
	return err
}

// traceInChild appends from several goroutines until the input ends. The mode is "shares" or "directly".
func traceInChild(ctx context.Context, arguments []string) error {
	url, mode, process := arguments[0], arguments[1], arguments[2]
	during := map[string]func(func()){"shares": postgres.CombineAlways, "directly": postgres.CombineNever}[mode]
	var s *postgres.Store
	var err error
	during(func() { s, err = postgres.Config{ConnectTimeout: time.Minute}.Open(ctx, with(url, "pool_max_conns=4")) })
	if err != nil {
		return err
	}
	notes, err := pgxpool.New(ctx, with(url, "pool_max_conns=4"))
	if err != nil {
		return err
	}
	defer notes.Close()
	child.Say("ready")
	var all sync.WaitGroup
	for g := range 3 {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				limited, cancel := context.WithCancel(context.WithoutCancel(ctx))
				if n%8 == 7 { // it leaves early
					limited, cancel = context.WithTimeout(limited, rand.N(5*time.Millisecond))
				}
				a := named(fmt.Sprint(process, "-", g, "-", n), account(fmt.Sprint(process, "-", rand.IntN(9))), es.AnyVersion)
				_, err := s.Append(limited, a)
				cancel()
				_ = told(context.WithoutCancel(ctx), notes, string(a.Events[0].Data), err) // if it fails, nothing is known of what was told
			}
		})
	}
	all.Wait()
	return s.Close()
}

// Processes that share flushes, and one that does not, are killed, their backends are ended, and the server crashes. What they have done follows
// the model of the protocol; see package trace.
func TestTracesOfProcessesFollowTheModel(t *testing.T) {
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	url := server.Database(t)
	open(t, url)
	run(t, url, startTrace)
	started := 0
	start := func() *child.Process {
		mode := "shares"
		if started%4 == 3 {
			mode = "directly"
		}
		p := child.Start(t, "trace", url, mode, fmt.Sprint("p", started))
		started++
		return p
	}
	processes := []*child.Process{start(), start(), start(), start()}
	for _, p := range processes {
		p.Line(t)
	}
	answered := func() int {
		return scalar[int](t, url, "select count(*)::integer from traced.log where what = 'answered'")
	}
	progress := func() {
		before := answered()
		for answered() <= before+5 { // however long that takes
			select {
			case <-time.After(2 * time.Millisecond):
			case <-t.Context().Done():
				t.Fatal(t.Context().Err())
			}
		}
	}
	for round := range 6 {
		progress()
		switch round % 3 {
		case 0:
			for range 10 {
				scalar[int](t, url, terminateWaiters)
			}
		case 1:
			i := round % len(processes)
			if err := processes[i].Kill(); err != nil {
				t.Fatal(err)
			}
			processes[i] = start()
			processes[i].Line(t)
		case 2:
			server.Kill(t)
			server.Start(t)
		}
	}
	progress()
	for _, p := range processes {
		p.CloseInput(t)
		p.Finish(t)
	}
	objections, served := judgeTrace(t, url)
	for i, err := range objections {
		if i == 10 {
			break
		}
		t.Error(err)
	}
	t.Logf("%d requests were served by other processes", served)
	dense(t, open(t, url))
}

// change replaces a part of a function of the schema.
func change(t *testing.T, url, function, old, by string) {
	t.Helper()
	text := scalar[string](t, url, "select pg_get_functiondef(p.oid) from pg_proc p where p.proname = $1 and p.pronamespace = 'es'::regnamespace", function)
	if !strings.Contains(text, old) {
		t.Fatalf("function %s does not have %q", function, old)
	}
	run(t, url, strings.ReplaceAll(text, old, by))
}

// serveOld takes the limits of time from the function that serves, so that a test that counts what is served holds on a busy machine.
func serveOld(t *testing.T, url string) {
	t.Helper()
	change(t, url, "serve", "interval '5 s'", "interval '1 day'")
	change(t, url, "serve", "interval '20 ms'", "interval '1 day'")
}

// A server whose functions break a rule is found by what it does.
func TestTracesOfBrokenFunctionsAreRejected(t *testing.T) {
	for name, test := range map[string]struct{ function, old, by, want string }{
		"none":                                 {"serve", "", "", ""},
		"a request is removed without a fence": {"resolve", "insert into \"es\".fences (token) values (first_token - 1) on conflict do nothing;", "", "without a fence"},
		"a request is served again":            {"serve", "with gone as (delete from \"es\".requests q where q.ticket = any (tickets) returning q.ticket, q.n, q.weight)", "with gone as (select q.ticket, q.n, q.weight from \"es\".requests q where q.ticket = any (tickets))", "served and still lies there|written: true"},
		"a fenced request is served":           {"serve", "and (select f.token from \"es\".fences f where f.token = q.ticket) is null", "", "fenced off"},
	} {
		t.Run(name, func(t *testing.T) {
			url := testserver.Postgres(t, testserver.Postgres18).Database(t)
			var stores []*postgres.Store
			postgres.CombineAlways(func() { stores = several(t, 3, url) })
			for i, s := range stores {
				mustAppend(t, s, named(fmt.Sprint("first ", i), account(fmt.Sprint(i)), 0))
			}
			run(t, url, startTrace)
			serveOld(t, url)
			if test.want != "" {
				change(t, url, test.function, test.old, test.by)
			}
			c := connect(t, url)
			leaveEvents(t, c, 1_000_000, 1)
			if _, err := c.Exec(t.Context(), "insert into es.fences (token) values (1000000)"); err != nil {
				t.Fatal(err)
			}
			for round := range 2 {
				b := block(t, stores[0], url)
				var all sync.WaitGroup
				for i, s := range stores {
					all.Go(func() {
						ctx := t.Context()
						if test.want != "" { // it may never answer
							limited, cancel := context.WithTimeout(ctx, 20*time.Second)
							defer cancel()
							ctx = limited
						}
						_, err := s.Append(ctx, named(fmt.Sprint(round, "-", i), account(fmt.Sprint(i)), es.AnyVersion))
						if err != nil && test.want == "" {
							t.Error(err)
						}
						if err := told(t.Context(), s.Pool(), fmt.Sprint(round, "-", i), err); err != nil {
							t.Error(err)
						}
					})
				}
				eventually(t, "all wait", func() bool { return scalar[int](t, url, countRequests+" where ticket <> 1000000") >= len(stores) })
				if round == 1 {
					ended := 0
					eventually(t, "all are ended", func() bool { ended += scalar[int](t, url, terminateWaiters); return ended == len(stores) })
				}
				b.release(t)
				all.Wait()
			}
			objections, served := judgeTrace(t, url)
			text := fmt.Sprint(errors.Join(objections...))
			switch {
			case test.want == "" && (len(objections) > 0 || served == 0):
				t.Errorf("%d were served by others, and the checker objects: %s", served, text)
			case test.want != "" && !regexp.MustCompile(test.want).MatchString(text):
				t.Errorf("the checker finds %s, want %q", text, test.want)
			}
		})
	}
}
