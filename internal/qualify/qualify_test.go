package qualify_test

import (
	"testing"

	"github.com/thalo-go/es/internal/qualify"
)

func TestSQL(t *testing.T) {
	for text, want := range map[string]string{
		"select a from s.t where b = $1":                                  "select a from s.t where b operator(pg_catalog.=) $1",
		"select count(*), max (x) from s.t":                               "select pg_catalog.count(*), pg_catalog.max (x) from s.t",
		"select t.* from s.t":                                             "select t.* from s.t",
		"select -1, f(-2), 3 - 2":                                         "select -1, pg_catalog.f(-2), 3 operator(pg_catalog.-) 2",
		"select s.f(1), pg_catalog.g(1)":                                  "select s.f(1), pg_catalog.g(1)",
		"select $1::text, $2::bigint[]":                                   "select $1::pg_catalog.text, $2::bigint[]",
		"select $1::pg_catalog.text":                                      "select $1::pg_catalog.text",
		"select cast($1 as oid)":                                          "select cast($1 as pg_catalog.oid)",
		"select 'a = b(c)', \"d=e(\".f from g":                            "select 'a = b(c)', \"d=e(\".f from g",
		"select 'it''s =', x = y":                                         "select 'it''s =', x operator(pg_catalog.=) y",
		"select 1 -- x = f(y)\n, a = b":                                   "select 1 -- x = f(y)\n, a operator(pg_catalog.=) b",
		"update s.t set a = $1, b = (c + 1) where d = $2 returning e = 1": "update s.t set a = $1, b = (c operator(pg_catalog.+) 1) where d operator(pg_catalog.=) $2 returning e operator(pg_catalog.=) 1",
		"insert into s.t as x (a, b) values ($1, $2) on conflict (a) do update set b = x.b":   "insert into s.t as x (a, b) values ($1, $2) on conflict (a) do update set b = x.b",
		"select a from rows from (unnest($1::text[])) with ordinality as q (k, n)":            "select a from rows from (pg_catalog.unnest($1::pg_catalog.text[])) with ordinality as q (k, n)",
		"select a from s.t where k = any ($1::text[]) and (a, b) >= (c, d)":                   "select a from s.t where k operator(pg_catalog.=) any ($1::pg_catalog.text[]) and (a, b) operator(pg_catalog.>=) (c, d)",
		"select extract(epoch from now()), greatest(a, now()), coalesce(b, 'x')":              "select extract(epoch from pg_catalog.now()), greatest(a, pg_catalog.now()), coalesce(b, 'x')",
		"select case when a > 1 then b else c end, row_number() over (order by n)":            "select case when a operator(pg_catalog.>) 1 then b else c end, pg_catalog.row_number() over (order by n)",
		"select now() + ($3::bigint * interval '1 microsecond')":                              "select pg_catalog.now() operator(pg_catalog.+) ($3::bigint operator(pg_catalog.*) interval '1 microsecond')",
		"select a from s.t where exists (select 1 from s.u where x <> '') order by a limit 1": "select a from s.t where exists (select 1 from s.u where x operator(pg_catalog.<>) '') order by a limit 1",
	} {
		got := qualify.SQL(text)
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
		if again := qualify.SQL(got); again != got {
			t.Errorf("a second time it became %s, want %s", again, got)
		}
	}
}

func TestUnsafeStatementsPanic(t *testing.T) {
	for _, text := range []string{
		"select 1 where a in (1, 2)", "select 1 where a not in (select b from s.t)", "select 1 where a between 1 and 2", "select nullif(a, '')", "select 1 from s.t join s.u using (a)",
		"select 1 where a like 'b'", "select 1 where a is distinct from b", "select case a when 1 then 2 end", "select 1 + 2 * 3",
		"select 1 where a = b + 1", "select 1 where a operator(pg_catalog.=) b + 1", "update s.t set a = b + 1 - c", "select 'open", "select 1)",
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s became %s, want a panic", text, qualify.SQL(text))
				}
			}()
			qualify.SQL(text)
		}()
	}
}
