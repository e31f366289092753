package postgres_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

const refusedPrivilege = "42501"

// code returns the SQLSTATE of an error.
func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// eachWithRoles runs a test on a server that requires passwords, with a store set up by roles.sql.
func eachWithRoles(t *testing.T, test func(t *testing.T, super, owner, writer, reader string)) {
	testserver.Each(t, func(t *testing.T, shared *testserver.Server) {
		server := testserver.StartPostgres(t, testserver.PostgresOptions{Version: shared.Version(), Scram: true})
		super := server.Database(t)
		run(t, super,
			"create role es_owner login password 'owns'",
			"create role es_writer login password 'writes'",
			"create role es_reader login password 'reads'",
			"create schema es authorization es_owner",
			// As in a hardened database.
			"alter default privileges for role es_owner revoke execute on functions from public")
		owner := testserver.As(super, "es_owner", "owns")
		if err := postgres.Migrate(t.Context(), newPool(t, owner)); err != nil {
			t.Fatal(err)
		}
		grants, err := os.ReadFile("roles.sql")
		if err != nil {
			t.Fatal(err)
		}
		run(t, owner, string(grants))
		test(t, super, owner, testserver.As(super, "es_writer", "writes"), testserver.As(super, "es_reader", "reads"))
	})
}

func TestRoles(t *testing.T) {
	t.Parallel()
	eachWithRoles(t, func(t *testing.T, super, owner, writer, reader string) {
		w, r := open(t, writer), open(t, reader)
		t.Run("a writer appends", func(t *testing.T) { writerAppends(t, w, writer) })
		t.Run("a reader reads and follows", func(t *testing.T) { readerFollows(t, w, r) })
		t.Run("a reader does not write", func(t *testing.T) {
			_, err := r.Append(t.Context(), add(account("a"), 1))
			wantRemedy(t, err)
			wantRemedy(t, r.SaveSnapshot(t.Context(), es.Snapshot{Stream: account("a"), Version: 1}))
			_, err = r.AcquireLease(t.Context(), "relay", "a", time.Hour, "")
			wantRemedy(t, err)
			_, err = r.MoveCheckpoint(t.Context(), "relay", 0, 1)
			wantRemedy(t, err)
		})
		t.Run("none of them changes history", func(t *testing.T) {
			for role, url := range map[string]string{"writer": writer, "reader": reader} {
				for _, sql := range []string{
					"update es.events set data = 'x'", "delete from es.events", "truncate es.events",
					"update es.commands set last = 0", "delete from es.commands", "truncate es.commands",
					"update es.meta set value = 'x'", "insert into es.meta values ('x', 'y')", "delete from es.meta",
					"delete from es.snapshots", "drop table es.events", "alter table es.events disable trigger all", "drop trigger history on es.events",
					"set session_replication_role = replica", "create table es.mine (n integer)", "drop function es.as_jsonb",
					"create or replace function es.refuse() returns trigger language plpgsql as 'begin return null; end'",
					"create function es.refuse(integer) returns integer language sql as 'select 1'",
				} {
					conn := connect(t, url)
					_, err := conn.Exec(t.Context(), "begin; set local es.change_history = 'on'; "+sql)
					if code(err) != refusedPrivilege {
						t.Errorf("%s: %s: got %v, want insufficient privilege", role, sql, err)
					}
				}
			}
			conn := connect(t, reader)
			for _, sql := range []string{"insert into es.events select * from es.events", "select * from es.resolve(0, 1, 2)", "select * from es.commands"} {
				if _, err := conn.Exec(t.Context(), sql); code(err) != refusedPrivilege {
					t.Errorf("reader: %s: got %v, want insufficient privilege", sql, err)
				}
			}
		})
		t.Run("only the owner redacts", func(t *testing.T) {
			mustAppend(t, w, at(account("redacted"), 0, 1))
			for _, s := range []*postgres.Store{w, r} {
				_, err := s.Redact(t.Context(), account("redacted"), 1, "request 17")
				wantRemedy(t, err)
			}
			// Also if the function was granted with all others.
			run(t, owner, "grant execute on all functions in schema es to es_writer")
			_, err := w.Redact(t.Context(), account("redacted"), 1, "request 17")
			wantRemedy(t, err)
			run(t, owner, "revoke execute on function es.redact from es_writer")
			if done, err := open(t, owner).Redact(t.Context(), account("redacted"), 1, "request 17"); err != nil || done.Audit != 2 {
				t.Errorf("the owner: got %+v, %v", done, err)
			}
			mustAppend(t, w, at(account("redacted"), 2, 1))
			for s, err := range w.Read(t.Context(), account("redacted"), 1) {
				if err != nil || s.Meta["role"] != "es_owner" {
					t.Errorf("got %+v, %v", s, err)
				}
				break
			}
			late := es.Snapshot{Stream: account("redacted"), Version: 1, Position: 1, Data: []byte("x")}
			if err := w.SaveSnapshot(t.Context(), late); err != nil {
				t.Error(err)
			}
			if s, err := w.LoadSnapshot(t.Context(), account("redacted")); err != nil || s.Version != 0 {
				t.Errorf("got %+v, %v", s, err)
			}
		})
		t.Run("the owner migrates again", func(t *testing.T) {
			if err := postgres.Migrate(t.Context(), newPool(t, owner)); err != nil {
				t.Error(err)
			}
		})
		t.Run("who has no rights is told the remedy", func(t *testing.T) {
			run(t, super, "create role stranger login password 'comes'", "create database empty")
			stranger := testserver.As(super, "stranger", "comes")
			_, err := postgres.Open(t.Context(), stranger)
			wantRemedy(t, err)
			run(t, super, "grant usage on schema es to stranger")
			_, err = postgres.Open(t.Context(), stranger)
			wantRemedy(t, err)
			address, settings, _ := strings.Cut(stranger, "?")
			empty := address[:strings.LastIndex(address, "/")] + "/empty?" + settings
			_, err = postgres.Open(t.Context(), empty)
			wantRemedy(t, err)
			wantRemedy(t, postgres.Migrate(t.Context(), newPool(t, empty)))
		})
	})
}

func wantRemedy(t *testing.T, err error) {
	t.Helper()
	if code(err) != refusedPrivilege || !strings.Contains(err.Error(), "docs/operations.md") {
		t.Errorf("got %v, want insufficient privilege and the remedy", err)
	}
}

func writerAppends(t *testing.T, w *postgres.Store, url string) {
	mustAppend(t, w, at(account("a"), 0, 2))
	mustAppend(t, w, at(account("a"), 2, 1))
	mustAppend(t, w, add(account("a"), 1), at(account("b"), 0, 2))
	once := es.Append{Stream: account("c"), Expected: 0, Events: events(1), Command: "once"}
	mustAppend(t, w, once)
	tagged := es.Append{Stream: es.Stream{Kind: "tagged", ID: "a"}, Expected: es.AnyVersion, Events: []es.Record{{Type: "deposited", Tags: []string{"a"}}}}
	mustAppend(t, w, tagged)
	tagged.Unless = es.Condition{Match: []es.Filter{{Tags: []string{"a"}}}}
	if _, err := w.Append(t.Context(), tagged); !errors.As(err, new(*es.ConflictError)) {
		t.Errorf("got %v, want a conflict", err)
	}
	old := es.Append{Stream: es.Stream{Kind: "old", ID: "a"}, Expected: es.AnyVersion, Events: events(1)}
	mustAppend(t, w, old)
	if err := w.AddTags(t.Context(), "old", func(es.Record) ([]string, error) { return []string{"old"}, nil }); err != nil {
		t.Error(err)
	}
	if got := collect(t, w.All(t.Context(), 0, es.Filter{Tags: []string{"old"}})); len(got) != 1 {
		t.Errorf("%d records have the tag that was added, want 1", len(got))
	}
	_, errs := w.WriteTogether(t.Context(), []es.Append{once}, []es.Append{at(account("b"), 0, 1)})
	if _, conflicts, _ := count(errs); conflicts != 1 || !errors.As(errs[0], new(*es.DuplicateError)) {
		t.Errorf("got %v, want a duplicate and a conflict", errs)
	}
	if err := w.SaveSnapshot(t.Context(), es.Snapshot{Stream: account("a"), Version: 1, Position: 1}); err != nil {
		t.Error(err)
	}
	if err := w.SaveSnapshot(t.Context(), es.Snapshot{Stream: account("a"), Version: 2, Position: 2}); err != nil {
		t.Error(err)
	}
	for range 2 {
		if l, err := w.AcquireLease(t.Context(), "relay", "a", time.Hour, ""); err != nil || l.Holder != "a" {
			t.Errorf("the lease is %+v, %v", l, err)
		}
	}
	if err := w.ReleaseLease(t.Context(), "relay", "a"); err != nil {
		t.Error(err)
	}
	for at := range es.Position(2) {
		if moved, err := w.MoveCheckpoint(t.Context(), "relay", at, at+1); !moved {
			t.Errorf("the checkpoint was not moved: %v", err)
		}
	}
	conn := connect(t, url)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, w.In(tx), add(account("a"), 1))
	if err := tx.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	// What a writer does whose connection broke: it finds nothing, leaves a fence, and clears away old ones.
	if _, err := conn.Exec(t.Context(), "select * from es.resolve(0, 1, 2)"); err != nil {
		t.Errorf("resolve: %v", err)
	}
	dense(t, w)
}

func readerFollows(t *testing.T, w, r *postgres.Store) {
	head, err := es.Head(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(dense(t, r)); got != int(head) {
		t.Errorf("read %d records, want %d", got, head)
	}
	if n, err := r.LoadSnapshot(t.Context(), account("a")); err != nil || n.Version != 2 {
		t.Errorf("loaded the snapshot of version %d, %v; want 2", n.Version, err)
	}
	if _, err := r.ListLeases(t.Context()); err != nil {
		t.Error(err)
	}
	if at, err := r.LoadCheckpoint(t.Context(), "relay"); err != nil || at != 2 {
		t.Errorf("loaded the checkpoint %d, %v; want 2", at, err)
	}
	changed := make(chan error)
	go func() {
		_, err := r.Changed(t.Context(), head)
		changed <- err
	}()
	mustAppend(t, w, add(account("a"), 1))
	if err := <-changed; err != nil {
		t.Error(err)
	}
}

func TestHistoryCannotBeChanged(t *testing.T) {
	t.Parallel()
	eachWithRoles(t, func(t *testing.T, super, owner, writer, _ string) {
		s := open(t, writer)
		mustAppend(t, s, at(account("a"), 0, 3))
		changes := []string{
			"update es.events set data = 'x' where version = 2", "update es.events set data = 'x' where false",
			"delete from es.events where version = 3", "truncate es.events",
			"insert into es.events select * from es.events on conflict (position) do update set data = 'x'",
		}
		for role, url := range map[string]string{"the owner": owner, "a superuser": super} {
			for _, sql := range changes {
				_, err := connect(t, url).Exec(t.Context(), sql)
				if code(err) != "ES003" {
					t.Errorf("%s: %s: got %v, want ES003", role, sql, err)
				}
			}
		}
		if got := dense(t, s); len(got) != 3 || string(got[1].Data) == "x" {
			t.Errorf("history was changed: %v", got)
		}
		t.Run("unless that is switched on, for the transaction", func(t *testing.T) {
			conn := connect(t, owner)
			err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), "set local es.change_history = 'on'"); err != nil {
					return err
				}
				_, err := tx.Exec(t.Context(), changes[0])
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := dense(t, s); string(got[1].Data) != "x" {
				t.Errorf("history was not changed: %s", got[1].Data)
			}
			if _, err := conn.Exec(t.Context(), changes[0]); code(err) != "ES003" {
				t.Errorf("after that transaction: got %v, want ES003", err)
			}
		})
	})
}

func TestHistoryView(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := open(t, url)
		type row struct {
			stream, kind string
			data, meta   *string
		}
		text := func(s string) *string { return &s }
		var records []es.Record
		var want []row
		for _, test := range []struct {
			data string
			want *string
		}{
			{`{"n": 1}`, text(`{"n": 1}`)}, {`[1, "ü"]`, text(`[1, "ü"]`)}, {`"text"`, text(`"text"`)}, {`null`, text(`null`)}, {` 12 `, text(`12`)},
			{``, nil}, {`{"n": 1`, nil}, {"\x00\x01", nil}, {"\xff\xfe{}", nil}, {`{"nul": "\u0000"}`, nil}, {"protobuf\n\x05", nil},
		} {
			records = append(records, es.Record{Type: "t", Data: []byte(test.data)})
			want = append(want, row{"account/a/b", "t", test.want, nil})
		}
		records[1].Meta = map[string]string{`ke"y`: "välue"}
		want[1].meta = text(`{"ke\"y": "välue"}`)
		mustAppend(t, s, es.Append{Stream: account("a/b"), Expected: 0, Events: records})
		rows, err := connect(t, url).Query(t.Context(), "select stream, type, data::text, meta::text from es.history order by position")
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (found row, err error) {
			return found, r.Scan(&found.stream, &found.kind, &found.data, &found.meta)
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(row{})); diff != "" {
			t.Errorf("es.history differs (-want +got):\n%s", diff)
		}
	})
}

// Names and data are always sent as parameters.
func TestInjection(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		s := open(t, server.Database(t))
		names := []string{
			`'; drop schema es cascade; --`, `"; drop schema es cascade; --`, `\'; drop schema es cascade; --`, `$$; drop schema es cascade; --`,
			`$1`, `{schema}`, `{key}`, `%s`, `{1,2}`, `{"a","b"}`, `(a,b)`, `NULL`, `null`, `\x00`, `\N`, "\n", "\\", `"`, `""`, `'`, `{}`, `_`, `%`, "a\u202e", "\ufeff",
		}
		for i, name := range names {
			stream := es.Stream{Kind: name, ID: name}
			record := es.Record{Type: name, Data: []byte(name), Meta: map[string]string{name: name}}
			call := es.Append{Stream: stream, Expected: 0, Events: []es.Record{record}, Command: name}
			position := mustAppend(t, s, call)
			_, err := s.Append(t.Context(), call)
			if duplicate := (*es.DuplicateError)(nil); !errors.As(err, &duplicate) || duplicate.Command != name {
				t.Errorf("%q: got %v, want a duplicate", name, err)
			}
			record.Stream, record.Version, record.Position = stream, 1, es.Position(i+1)
			for by, found := range map[string][]es.Record{
				"Read":   collect(t, s.Read(t.Context(), stream, 0)),
				"All":    collect(t, s.All(t.Context(), position-1, es.Filter{})),
				"filter": collect(t, s.All(t.Context(), 0, es.Filter{Kinds: []string{name, "other"}, Types: []string{name}})),
			} {
				if len(found) == 1 {
					record.Time = found[0].Time
				}
				if diff := cmp.Diff([]es.Record{record}, found); diff != "" {
					t.Errorf("%q by %s (-want +got):\n%s", name, by, diff)
				}
			}
			if err := s.SaveSnapshot(t.Context(), es.Snapshot{Stream: stream, Version: 1, Position: position, Data: []byte(name)}); err != nil {
				t.Error(err)
			}
			if n, err := s.LoadSnapshot(t.Context(), stream); err != nil || string(n.Data) != name {
				t.Errorf("%q: loaded the snapshot %q, %v", name, n.Data, err)
			}
		}
		if got := len(dense(t, s)); got != len(names) {
			t.Errorf("the log has %d records, want %d", got, len(names))
		}
	})
}
