package postgres_test

import (
	"fmt"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/tag"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// Sessions cache plans. A plan made while the table was empty must not scan it once it is large.
func TestPlans(t *testing.T) {
	const rows = 300_000
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		t.Parallel()
		url := server.Database(t)
		other := open(t, url)
		check := func(name string, s *postgres.Store) {
			before := scans(t, url)
			for i := range 8 { // as often as makes the server keep a plan for any parameters
				everything(t, s, other, fmt.Sprint(name, i))
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the server has counted", func() bool { return scans(t, url).index > before.index })
			// While the table was small it may have been scanned: that is not yet counted for a session from before.
			if after := scans(t, url); after.read-before.read > rows/2 {
				t.Errorf("%s: tables were scanned, which read %d rows", name, after.read-before.read)
			}
		}
		session := func() *postgres.Store { return open(t, with(url, "pool_max_conns=1")) }
		early := func(name string) *postgres.Store {
			s := session()
			for i := range 8 {
				everything(t, s, other, fmt.Sprint(name, i))
			}
			return s
		}

		for _, table := range []string{"events", "commands", "fences", "tags"} {
			run(t, url, fmt.Sprintf("alter table es.%s set (autovacuum_enabled = off)", table))
		}
		small := early("while the table is small")
		run(t, url, "set es.change_history = 'on'", "delete from es.events", "delete from es.commands", "delete from es.tags", "vacuum analyze es.events, es.commands, es.fences, es.tags")
		none := early("while the table is known to be empty")
		fill(t, url, rows)
		check("a session from when the table was small", small)
		check("a session from when the table was known to be empty", none)
		check("a new session, with statistics of an empty table", session())
		run(t, url, "analyze es.events, es.commands, es.fences, es.tags")
		check("a new session, with statistics", session())
	})
}

type scanned struct{ read, index int64 }

func scans(t testing.TB, url string) (n scanned) {
	t.Helper()
	const sql = `select sum(seq_tup_read)::bigint, sum(idx_scan)::bigint from pg_stat_user_tables where relname in ('events', 'commands', 'fences', 'snapshots', 'tags')`
	if err := connect(t, url).QueryRow(t.Context(), sql).Scan(&n.read, &n.index); err != nil {
		t.Fatal(err)
	}
	return n
}

// fill inserts into the tables without the store: streams of ten events, with one command each.
func fill(t testing.TB, url string, rows int) {
	t.Helper()
	run(t, url, fmt.Sprintf(`insert into es.events (position, kind, id, version, time, type, data, meta, token)
		select (select coalesce(max(position), 0) from es.events) + n, 'filler', 'f' || (n / 10), n %% 10 + 1, now(), 'deposited', 'some data', '', -n from generate_series(1, %d) n`, rows),
		fmt.Sprintf(`insert into es.tags (hash, position) select %d, position from es.events where kind = 'filler'`, tag.Hash("hot")),
		fmt.Sprintf(`insert into es.commands (kind, id, command, first, last) select 'filler', 'f' || n, 'c', 1, 1 from generate_series(1, %d) n`, rows/10))
}

// everything runs each statement of a store.
func everything(t testing.TB, s, other *postgres.Store, name string) {
	t.Helper()
	mustAppend(t, other, add(account(name+" other"), 1)) // so that what s knows is not the end of the log
	mustAppend(t, s, at(account(name+" one"), 0, 1))
	mustAppend(t, other, add(account(name+" other"), 1))
	mustAppend(t, s, at(account(name+" two"), 0, 2))
	for range 20 { // the last ones take the fast path, at least the first time
		mustAppend(t, s, add(account(name+" solo"), 1))
	}
	once := es.Append{Stream: account(name + " once"), Expected: es.AnyVersion, Events: events(1), Command: "c"}
	mustAppend(t, s, at(account(name), 0, 1))                          // one
	mustAppend(t, s, at(account(name), 1, 1))                          // of a head that is known
	mustAppend(t, s, at(account(name), 2, 3), at(account(name), 5, 1)) // several
	mustAppend(t, s, once)                                             // that looks, with a command
	_, errs := s.WriteTogether(t.Context(), []es.Append{once}, []es.Append{at(account(name), 1, 1)}, []es.Append{at(account(name+" new"), 0, 2)}, []es.Append{at(account(name), 6, 0)})
	if good, conflicts, _ := count(errs); good != 2 || conflicts != 1 {
		t.Fatalf("got %v, want a duplicate, a conflict and two successes", errs)
	}
	if got := len(collect(t, s.Read(t.Context(), account(name), 1))); got != 5 {
		t.Fatalf("read %d records, want 5", got)
	}
	head, err := es.Head(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, filter := range []es.Filter{{}, {Kinds: []string{"account"}}, {Types: []string{"deposited"}}, {Kinds: []string{"account"}, Types: []string{"deposited"}}} {
		if got := len(collect(t, s.All(t.Context(), head-2, filter))); got != 2 {
			t.Fatalf("read %d records of the log with %v, want 2", got, filter)
		}
	}
	own := es.Append{Stream: es.Stream{Kind: "tagged", ID: name}, Expected: es.AnyVersion, Events: []es.Record{{Type: "deposited", Tags: []string{"hot", name}}}}
	mustAppend(t, s, own)
	own.Unless = es.Condition{After: head, Match: []es.Filter{{Tags: []string{"cold " + name}}, {Tags: []string{"hot", "cold " + name}, Types: []string{"deposited"}}}}
	mustAppend(t, s, own, own)
	if got := len(collect(t, s.All(t.Context(), head, es.Filter{Tags: []string{"hot", name}}))); got != 3 {
		t.Fatalf("read %d records by tag, want 3", got)
	}
	together, err := s.ReadTogether(t.Context(), account(name), account("none"), account(name+" new"))
	if err != nil || len(together[0]) != 6 || len(together[1]) != 0 || len(together[2]) != 2 {
		t.Fatalf("read %v, %v together", together, err)
	}
	if err := s.Resolve(t.Context(), head-2); err != nil {
		t.Fatal(err)
	}
}
