package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
)

// shadow creates a schema with a function, operator and domain in place of each built-in one, none of which may be executed. A statement
// that finds one of them fails.
const shadow = `
create schema hostile;
grant usage on schema hostile to public;
do $shadow$
declare
	f record;
	v text;
begin
	for f in
		select p.proname, p.prokind, pg_get_function_identity_arguments(p.oid) as arguments, pg_get_function_result(p.oid) as result, n.n as variant
		from pg_catalog.pg_proc p, generate_series(0, 4) n
		where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind in ('f', 'a', 'w')
			and (n.n = 0 or p.oid::regprocedure::text ~ 'any(element|array|compatible)')
	loop
		-- A function of a polymorphic type gets variants for the types that statements use, which match better.
		v := f.arguments;
		if f.variant > 0 then
			v := replace(replace(v, 'anycompatiblearray', 'anyarray'), 'anycompatible', 'anyelement');
			v := replace(replace(v, 'anyarray', (array['text[]', 'bigint[]', 'integer[]', 'bytea[]'])[f.variant]),
				'anyelement', (array['text', 'bigint', 'integer', 'bytea'])[f.variant]);
			f.result := replace(replace(replace(replace(f.result, 'anycompatiblearray', 'anyarray'), 'anycompatible', 'anyelement'),
				'anyarray', (array['text[]', 'bigint[]', 'integer[]', 'bytea[]'])[f.variant]),
				'anyelement', (array['text', 'bigint', 'integer', 'bytea'])[f.variant]);
		end if;
		v := replace(replace(v, '"any"', 'anyelement'), 'ORDER BY ', '');
		begin
			execute format('create function hostile.%I(%s) returns %s language plpgsql as $body$ begin raise exception ''hostile''; end $body$',
				f.proname, v, f.result);
		exception when others then
			null; -- pseudo-types such as internal, which statements do not use
		end;
	end loop;
	for f in
		select o.oprname, nullif(o.oprleft, 0)::regtype as l, o.oprright::regtype as r, o.oprresult::regtype as result, o.oid
		from pg_catalog.pg_operator o where o.oprnamespace = 'pg_catalog'::regnamespace and o.oprresult <> 0
	loop
		begin
			if f.l is null then
				execute format('create function hostile.operator_%s(%s) returns %s language plpgsql as $body$ begin raise exception ''hostile''; end $body$',
					f.oid, f.r, f.result);
				execute format('create operator hostile.%s (function = hostile.operator_%s, rightarg = %s)', f.oprname, f.oid, f.r);
			else
				execute format('create function hostile.operator_%s(%s, %s) returns %s language plpgsql as $body$ begin raise exception ''hostile''; end $body$',
					f.oid, f.l, f.r, f.result);
				execute format('create operator hostile.%s (function = hostile.operator_%s, leftarg = %s, rightarg = %s)', f.oprname, f.oid, f.l, f.r);
			end if;
		exception when others then
			null;
		end;
	end loop;
	-- No function belongs to what may be executed.
	execute 'revoke execute on all functions in schema hostile from public';
	execute 'create function hostile.refuse() returns boolean language plpgsql as $body$ begin raise exception ''hostile''; end $body$';
	for f in
		select t.typname from pg_catalog.pg_type t
		where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype = 'b' and t.typelem = 0 and t.typname !~ '^_'
	loop
		execute format('create domain hostile.%I as pg_catalog.%I check (hostile.refuse())', f.typname, f.typname);
	end loop;
	execute 'create collation hostile."C" from pg_catalog."POSIX"';
	execute 'create table hostile.events (n integer)';
	execute 'create table hostile.pg_class (n integer)';
	execute 'create table hostile.pg_namespace (n integer)';
end $shadow$`

var victims atomic.Int64

// hostile returns the URL of a database for a role with few rights, in whose path all built-in names are shadowed, and a URL without
// the path for the test's own statements.
func hostile(t *testing.T, server *testserver.Server) (url, plain string) {
	t.Helper()
	role := fmt.Sprintf("victim%d", victims.Add(1))
	t.Cleanup(func() { // after the database is gone
		c, err := pgx.Connect(context.Background(), server.URL("postgres"))
		if err == nil {
			_, err = c.Exec(context.Background(), fmt.Sprintf("drop role %q", role))
			err = errors.Join(err, c.Close(context.Background()))
		}
		if err != nil {
			t.Error(err)
		}
	})
	super := server.Database(t)
	name := scalar[string](t, super, "select current_database()")
	run(t, super, shadow, fmt.Sprintf("create role %q login password 'x'", role), fmt.Sprintf("grant create on database %q to %q", name, role),
		fmt.Sprintf("grant create on schema public to %q", role))
	run(t, super, fmt.Sprintf("alter role %q in database %q set search_path = hostile, pg_catalog", role, name))
	url = testserver.As(super, role, "x")
	return url, with(url, "search_path=public")
}

// A role with nothing but the right to create functions in a schema of the path must not run code as another role.
func TestHostileSearchPath(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url, plain := hostile(t, server)
		t.Run("the shadows are found", func(t *testing.T) {
			for _, sql := range []string{
				"select 1 where 'a'::pg_catalog.text = 'b'", "select cardinality(array['a'])", "select count(*) from (values (1)) v", "select 'a'::text",
				"select pg_backend_pid()", "select max(x) from (values (1::bigint)) v (x)", "select * from unnest(array['a'])",
			} {
				if _, err := connect(t, url).Exec(t.Context(), sql); err == nil {
					t.Errorf("%s: succeeded, want an error", sql)
				}
			}
		})
		if server.Version() == testserver.Postgres14 {
			t.Run("projections", func(t *testing.T) { projects(t, url, plain) })
		} else {
			t.Run("log", func(t *testing.T) { conforms(t, url) })
		}
		t.Run("diff", func(t *testing.T) { compares(t, url, plain) })
		t.Run("inline", func(t *testing.T) { inlineOn(t, url) })
		t.Run("In", func(t *testing.T) { inTransaction(t, url) })
		t.Run("statements", func(t *testing.T) {
			s := openWith(t, postgres.Config{Schema: "texts"}, url)
			explainAll(t, url, s.Texts())
		})
		t.Run("an existing schema", func(t *testing.T) {
			run(t, plain, "create schema es")
			if err := postgres.MigrateTo(t.Context(), newPool(t, plain), 3); err != nil {
				t.Fatal(err)
			}
			s := open(t, url)
			mustAppend(t, s, at(account("a"), 0, 1), es.Append{Stream: account("b"), Expected: 0, Command: "c", Events: events(2)})
			dense(t, s)
		})
		t.Run("nothing depends on a shadow", func(t *testing.T) {
			for _, found := range column[string](t, plain, dependents) {
				t.Error(found)
			}
		})
		t.Run("each function has a path", func(t *testing.T) {
			for _, found := range column[string](t, plain, `select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
				where n.nspname in ('es', 'texts') and p.prokind <> 'p' -- one with a path cannot commit, so it may only call functions with one
					and not 'search_path=pg_catalog, pg_temp' = any (coalesce(p.proconfig, '{}'))`) {
				t.Errorf("%s has no path", found)
			}
		})
	})
}

// compares compares two tables. Rows are compared by operators, whose path cannot be that of the session.
func compares(t *testing.T, url, plain string) {
	s := openWith(t, postgres.Config{Schema: "compared"}, url)
	mustAppend(t, s, add(account("a"), 1))
	for _, table := range []string{"one", "two"} {
		run(t, plain, "create table "+table+" (id text primary key, state json)")
		p := postgres.Projection{Name: table, Once: true, Filter: es.Filter{Kinds: []string{"account"}}, Handle: func(context.Context, pgx.Tx, []es.Record) error { return nil }}
		if err := s.Project(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	run(t, plain, `insert into one values ('a', '{"n": 1}'), ('b', '{"n": 1}')`, `insert into two values ('a', '{"n": 2}'), ('b', '{"n":1}')`)
	found := 0
	for d, err := range s.Diff(t.Context(), projection.Table{Projection: "one", Table: "public.one", Key: []string{"id"}}, projection.Table{Projection: "two", Table: "public.two", Key: []string{"id"}}) {
		if err != nil {
			t.Fatal(err)
		}
		if found++; d.Key["id"] != "a" || d.Last.Version != 1 {
			t.Errorf("the difference is %+v", d)
		}
	}
	if found != 1 {
		t.Errorf("%d rows differ, want 1", found)
	}
}

// The function below matches better than the built-in one, which takes anyarray, so no special path is needed.
func TestBetterMatchInPublic(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		run(t, url, "create table public.loot (thief text)",
			`create function public.cardinality(a integer[]) returns integer language plpgsql as $$ begin
				insert into public.loot values (current_user); return pg_catalog.cardinality(a); end $$`)
		s := open(t, url)
		mustAppend(t, s, add(account("a"), 1)) // to a new stream, which calls the function that judges
		if got := scalar[int](t, url, "select count(*) from public.loot"); got != 0 {
			t.Errorf("the function of another role ran %d times with the rights of the writer", got)
		}
	})
}

// dependents are the objects that use a shadow, without the shadows.
const dependents = `
	with shadows as (
		select 'pg_proc'::regclass as class, oid from pg_proc where pronamespace = 'hostile'::regnamespace
		union all select 'pg_operator'::regclass, oid from pg_operator where oprnamespace = 'hostile'::regnamespace
		union all select 'pg_type'::regclass, oid from pg_type where typnamespace = 'hostile'::regnamespace
		union all select 'pg_collation'::regclass, oid from pg_collation where collnamespace = 'hostile'::regnamespace
		union all select 'pg_class'::regclass, oid from pg_class where relnamespace = 'hostile'::regnamespace)
	select distinct pg_describe_object(d.classid, d.objid, d.objsubid) || ' depends on ' || pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
	from pg_depend d join shadows r on d.refclassid = r.class and d.refobjid = r.oid
	where not exists (select from shadows s where s.class = d.classid and s.oid = d.objid) and d.deptype <> 'i'
		and d.classid <> 'pg_constraint'::regclass and pg_describe_object(d.classid, d.objid, d.objsubid) !~ 'hostile'`

// explainAll lets the server look up every name of statements, and check the right to execute what it found, without running them.
func explainAll(t *testing.T, url string, texts map[string]string) {
	t.Helper()
	conn := connect(t, url)
	if _, err := conn.Exec(t.Context(), "set plan_cache_mode = force_generic_plan"); err != nil {
		t.Fatal(err)
	}
	if len(texts) < 50 {
		t.Fatalf("there are %d statements, want all", len(texts))
	}
	for name, text := range texts {
		prepared, err := conn.Prepare(t.Context(), "p", text)
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
			continue
		}
		params := strings.TrimSuffix(strings.Repeat("null, ", len(prepared.ParamOIDs)), ", ")
		if params != "" {
			params = "(" + params + ")"
		}
		if _, err := conn.Exec(t.Context(), "explain execute p"+params); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
		if err := conn.Deallocate(t.Context(), "p"); err != nil {
			t.Error(err)
		}
	}
}

// inlineOn appends with an inline projection whose handler sees the path of its user.
func inlineOn(t *testing.T, url string) {
	var paths []string
	seen := postgres.Projection{
		Name: "seen",
		Handle: func(ctx context.Context, tx pgx.Tx, _ []es.Record) error {
			var path string
			err := tx.QueryRow(ctx, "show search_path").Scan(&path)
			paths = append(paths, path)
			return err
		},
	}
	c := postgres.Config{Schema: "with inline", Inline: []postgres.Projection{seen}}
	s := openWith(t, c, url)
	for v := range es.Version(3) {
		mustAppend(t, s, at(account("a"), v, 1))
	}
	mustAppend(t, s, es.Append{Stream: account("a"), Expected: es.AnyVersion, Command: "c", Events: events(1)})
	tx := begin(t, connect(t, url), pgx.ReadCommitted)
	mustAppend(t, s.In(tx), add(account("a"), 1))
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(paths) != 5 {
		t.Errorf("the handler was called %d times, want 5", len(paths))
	}
	for _, path := range paths {
		if path != "hostile, pg_catalog" {
			t.Errorf("the handler ran with the path %q, want its user's", path)
		}
	}
}

// inTransaction appends and reads in the application's transaction, whose path stays as it is.
func inTransaction(t *testing.T, url string) {
	s := openWith(t, postgres.Config{Schema: "in"}, url)
	tx := begin(t, connect(t, url), pgx.ReadCommitted)
	mustAppend(t, s.In(tx), at(account("a"), 0, 2))
	if got := len(collect(t, s.In(tx).Read(t.Context(), account("a"), 0))); got != 2 {
		t.Errorf("read %d records, want 2", got)
	}
	var path string
	if err := tx.QueryRow(t.Context(), "show search_path").Scan(&path); err != nil || path != "hostile, pg_catalog" {
		t.Errorf("the path of the transaction is %q, %v; want its own", path, err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A lone writer, so that the fast path opens, and what follows a lost reply.
	for v := range es.Version(20) {
		mustAppend(t, s, at(account("b"), v, 1))
	}
	if !s.FastPath() {
		t.Error("the fast path is closed: its statement was not tried")
	}
	if err := s.Resolve(t.Context(), 22); err != nil {
		t.Error(err)
	}
}

// column returns the single column of a query.
func column[T any](t testing.TB, url, sql string) []T {
	t.Helper()
	c := connect(t, url)
	rows, err := c.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err := errors.Join(err, c.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	return values
}
