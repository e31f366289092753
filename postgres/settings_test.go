package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
)

// sessionSettings are those that a role or a database may have, and that could change what a statement means.
var sessionSettings = map[string]string{
	"array_nulls": "off", "backend_flush_after": "1", "bytea_output": "escape", "check_function_bodies": "off", "client_encoding": "LATIN1",
	"client_min_messages": "error", "cursor_tuple_fraction": "0.001", "DateStyle": "SQL, DMY", "default_transaction_deferrable": "on",
	"default_transaction_isolation": "serializable", "enable_indexscan": "off", "enable_seqscan": "off", "escape_string_warning": "off", "extra_float_digits": "-15",
	"from_collapse_limit": "1", "IntervalStyle": "sql_standard", "jit": "on", "join_collapse_limit": "1", "lo_compat_privileges": "on",
	"plan_cache_mode": "force_custom_plan", "plpgsql.extra_errors": "all", "plpgsql.extra_warnings": "all", "plpgsql.variable_conflict": "use_column",
	"quote_all_identifiers": "on", "row_security": "off", "search_path": "", "standard_conforming_strings": "off", "synchronize_seqscans": "off",
	"synchronous_commit": "off", "temp_buffers": "800kB", "TimeZone": "Pacific/Apia", "transform_null_equals": "on", "work_mem": "64kB", "xmlbinary": "hex",
}

// Whatever a role or a database has set, and when, all features work and agree.
func TestSettingsOfTheSession(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		pooler := testserver.StartPgBouncer(t, server, testserver.PgBouncerOptions{PoolSize: 4})
		plain := server.Database(t)
		name := scalar[string](t, plain, "select current_database()")
		for by, through := range map[string]func(string) string{
			"directly":          func(url string) string { return url },
			"through pgbouncer": func(url string) string { return with(pooler.Through(url), "default_query_exec_mode=exec") },
		} {
			t.Run(by, func(t *testing.T) {
				// First a store opened before, then one opened after.
				c := postgres.Config{Schema: by}
				before := openWith(t, c, through(plain))
				useAll(t, before, plain, "before")
				run(t, plain, fmt.Sprintf("do $$ begin execute format('alter database %%I set %%I = %%L', '%s', 'lc_messages', 'C'); end $$", name))
				for setting, value := range sessionSettings {
					run(t, plain, fmt.Sprintf("alter database %q set %s = '%s'", name, setting, value))
				}
				defer run(t, plain, fmt.Sprintf("alter database %q reset all", name))
				before.Pool().Reset() // its next connections have the settings
				pooler.Restart(t)
				if got := scalar[string](t, plain, "show bytea_output"); got != "escape" {
					t.Errorf("bytea_output is %s: the settings are not in force", got)
				}
				useAll(t, before, plain, "then")
				after := openWith(t, c, through(plain))
				useAll(t, after, plain, "after")
				handed := newPool(t, through(plain))
				given, err := c.New(t.Context(), handed)
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := given.Close(); err != nil {
						t.Error(err)
					}
				}()
				useAll(t, given, plain, "given")
				for i, r := range dense(t, given) {
					if other := dense(t, before)[i]; r.ID() != other.ID() || r.Meta["by"] != other.Meta["by"] {
						t.Errorf("one store reads %s by %s, the other %s by %s", r.ID(), r.Meta["by"], other.ID(), other.Meta["by"])
					}
				}
			})
		}
	})
}

// useAll uses each feature, with names that Latin-1 has in another encoding, or has not.
func useAll(t *testing.T, s *postgres.Store, plain, turn string) {
	t.Helper()
	for _, id := range []string{"rené " + turn, "日本 " + turn} {
		stream := es.Stream{Kind: "näme", ID: id}
		call := es.Append{Stream: stream, Expected: 0, Command: "é", Events: []es.Record{{Type: "clàimed", Data: []byte("\x00\xffé\\"), Meta: map[string]string{"by": id}}}}
		at := mustAppend(t, s, call)
		if _, err := s.Append(t.Context(), call); !isDuplicate(err) {
			t.Errorf("%s: the same command again: got %v, want a duplicate", id, err)
		}
		mustAppend(t, s, es.Append{Stream: stream, Expected: 1, Events: events(1)})
		mustAppend(t, s, es.Append{Stream: stream, Expected: 2, Events: events(2)})
		if got := collect(t, s.Read(t.Context(), stream, 0)); len(got) != 4 || got[0].Type != "clàimed" || string(got[0].Data) != "\x00\xffé\\" || got[0].Meta["by"] != id {
			t.Errorf("%s: read %v", id, got)
		}
		if got := collect(t, s.All(t.Context(), at-1, es.Filter{Kinds: []string{"näme"}, Types: []string{"clàimed"}})); len(got) != 1 || got[0].Stream != stream {
			t.Errorf("%s: the filter selects %v", id, got)
		}
		if err := s.SaveSnapshot(t.Context(), es.Snapshot{Stream: stream, Version: 1, Position: at, Data: []byte("\xff\\")}); err != nil {
			t.Error(err)
		}
		if n, err := s.LoadSnapshot(t.Context(), stream); err != nil || string(n.Data) != "\xff\\" {
			t.Errorf("%s: loaded the snapshot %q, %v", id, n.Data, err)
		}
		if l, err := s.AcquireLease(t.Context(), id, "hôlder", 1e9, "nöte"); err != nil || l.Note != "nöte" {
			t.Errorf("%s: the lease is %v, %v", id, l, err)
		}
		if moved, err := s.MoveCheckpoint(t.Context(), id, 0, 1); err != nil || !moved {
			t.Errorf("%s: the checkpoint was not moved: %v", id, err)
		}
		parkAll(t, s, "parks "+id, stream)
	}
	conn := connect(t, plain)
	if _, err := conn.Exec(t.Context(), "set client_encoding to 'UTF8'; set default_transaction_isolation to 'read committed'"); err != nil {
		t.Fatal(err)
	}
	tx := begin(t, conn, pgx.ReadCommitted)
	mustAppend(t, s.In(tx), es.Append{Stream: es.Stream{Kind: "in", ID: "é " + turn}, Expected: 0, Events: events(1)})
	commit(t, tx)
	// So that the fast path opens, where there is one.
	for v := range es.Version(12) {
		mustAppend(t, s, at(es.Stream{Kind: "fàst", ID: turn}, v, 1))
	}
	if err := s.Resolve(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

// parkAll runs a projection that fails on every record of a stream, reads what was parked, and drops the first.
func parkAll(t *testing.T, s *postgres.Store, name string, stream es.Stream) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := s.Project(ctx, postgres.Projection{
		Name: name, OnError: es.Park, Retries: -1,
		Handle: func(_ context.Context, _ pgx.Tx, records []es.Record) error {
			for _, r := range records {
				if r.Stream == stream {
					return errors.New("nö")
				}
			}
			return nil
		},
		OnCaughtUp: func(context.Context) error { cancel(); return nil },
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	var found []projection.Parked
	for p, err := range s.Parked(t.Context()) {
		if err != nil {
			t.Errorf("parked records: %v", err)
			return
		}
		if p.Name == name {
			found = append(found, p)
		}
	}
	if len(found) != 4 || found[0].Record.Stream != stream || string(found[0].Record.Data) != "\x00\xffé\\" || !strings.Contains(found[0].Error, "nö") {
		t.Errorf("parked: %v", found)
	}
	if _, err := s.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// The session of an application's transaction is not changed, so it must have the right encoding.
func TestInRefusesAnotherEncoding(t *testing.T) {
	server := testserver.Postgres(t, testserver.Postgres18)
	url := server.Database(t)
	s := open(t, url)
	tx := begin(t, connect(t, with(url, "client_encoding=LATIN1")), pgx.ReadCommitted)
	_, err := s.In(tx).Append(t.Context(), at(account("rené"), 0, 1))
	if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "client_encoding") {
		t.Errorf("got %v, want an error that names the setting", err)
	}
	if _, err := drain(s.In(tx).Read(t.Context(), account("rené"), 0)); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("reading: got %v, want es.ErrInvalid", err)
	}
}

func TestDatabasesThatCannotKeepPromisesAreRefused(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		t.Run("of another encoding", func(t *testing.T) {
			name := fmt.Sprintf("latin%d", victims.Add(1))
			run(t, url, fmt.Sprintf("create database %q encoding 'LATIN1' locale 'C' template template0", name))
			t.Cleanup(func() {
				c, err := pgx.Connect(context.Background(), server.URL("postgres"))
				if err == nil {
					_, err = c.Exec(context.Background(), fmt.Sprintf("drop database %q", name))
					err = errors.Join(err, c.Close(context.Background()))
				}
				if err != nil {
					t.Error(err)
				}
			})
			_, err := postgres.Open(t.Context(), server.URL(name))
			if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "UTF8") {
				t.Errorf("got %v, want an error that names the remedy", err)
			}
			if got := scalar[int](t, server.URL(name), "select count(*) from pg_namespace where nspname = 'es'"); got != 0 {
				t.Error("the schema was created nevertheless")
			}
		})
		t.Run("with row-level security", func(t *testing.T) {
			role := fmt.Sprintf("limited%d", victims.Add(1))
			mustAppend(t, open(t, url), at(account("a"), 0, 1))
			run(t, url, fmt.Sprintf("create role %s login password 'x'", role), "grant usage on schema es to public", "grant all on all tables in schema es to public",
				"alter table es.events enable row level security")
			t.Cleanup(func() {
				c, err := pgx.Connect(context.Background(), server.URL("postgres"))
				if err == nil {
					_, err = c.Exec(context.Background(), "drop role "+role)
					err = errors.Join(err, c.Close(context.Background()))
				}
				if err != nil {
					t.Error(err)
				}
			})
			for _, c := range []postgres.Config{{}, {ReadOnly: true}} {
				_, err := c.Open(t.Context(), testserver.As(url, role, "x"))
				if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "bypassrls") {
					t.Errorf("got %v, want an error that names the remedy", err)
				}
			}
		})
	})
}

// A hook of the pool may set another encoding for each connection.
func TestEncodingSetByAHook(t *testing.T) {
	server := testserver.Postgres(t, testserver.Postgres18)
	url := server.Database(t)
	a := openPool(t, newPool(t, url, func(config *pgxpool.Config) {
		config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "set client_encoding to 'LATIN1'")
			return err
		}
	}))
	b := open(t, url)
	claim := es.Append{Stream: es.Stream{Kind: "name", ID: "rené"}, Expected: 0, Command: "claim", Events: events(1)}
	mustAppend(t, a, claim)
	if _, err := b.Append(t.Context(), claim); !isDuplicate(err) {
		t.Errorf("the same claim by another store: got %v, want a duplicate", err)
	}
}
