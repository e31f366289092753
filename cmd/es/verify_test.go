package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// damages are ways to damage a store, each with what verify must say. {events} and the like are the tables.
var damages = []struct {
	name       string
	statements []string
	says       []string
}{{
	name:       "a record that is gone",
	statements: []string{"delete from {events} where position = 3"},
	says:       []string{"positions  1 FOUND", "position 3 is missing", "account/ann/1 is followed by account/ann/3, at position 4: version 2 is missing"},
}, {
	name:       "records that are gone",
	statements: []string{"delete from {events} where position in (1, 2, 3)"},
	says:       []string{"positions 1 to 3 are missing", "the beginning of account/ann is followed by account/ann/3", "versions 1 to 2 are missing"},
}, {
	name:       "the end of the log that is gone",
	statements: []string{"delete from {events} where position >= 4"},
	says:       []string{`command "transfer-1" on account/ann is noted for version 3, and the stream ends at 2`, "the snapshot of account/ann is of position 4, which is not there"},
}, {
	name:       "a version that comes twice",
	statements: []string{"{drop index}", "update {events} set version = 1 where position = 5"},
	says:       []string{"account/bob/1 comes again, at position 5, after version 1"},
}, {
	name:       "a version that was skipped",
	statements: []string{"update {events} set version = 9 where position = 5"},
	says:       []string{"account/bob/1 is followed by account/bob/9, at position 5: versions 2 to 8 are missing"},
}, {
	name:       "a record in another stream's name",
	statements: []string{"update {events} set id = 'eve' where position = 4"},
	says:       []string{"the beginning of account/eve is followed by account/eve/3", "the snapshot of account/ann is of version 3 at position 4, where the log has account/eve/3"},
}, {
	name:       "time that runs backwards",
	statements: []string{"update {events} set time = {long ago} where position = 5"},
	says:       []string{"time       1 FOUND", "position 5 was written at 1970-01-01T00:00:01.000000Z, before the one ahead of it"},
}, {
	name:       "data that was changed after a snapshot of it",
	statements: []string{"update {events} set data = {million} where position = 4"},
	says:       []string{"the snapshot of account/ann was taken when version 3, at position 4, had other content"},
}, {
	name:       "a snapshot of a version that is not there",
	statements: []string{"update {snapshots} set version = 4, position = 400"},
	says:       []string{"the snapshot of account/ann is of position 400, which is not there"},
}, {
	name:       "a command that is noted for nothing",
	statements: []string{"update {commands} set first = 0, last = -1 where command = 'salary'"},
	says:       []string{`command "salary" on account/ann is noted for versions 0 to -1`},
}, {
	name:       "a command of a stream that is not there",
	statements: []string{"update {commands} set id = 'eve' where command = 'salary'"},
	says:       []string{`command "salary" on account/eve is noted for version 2, and the stream ends at 0`},
}}

// expectDamage runs verify on a damaged store.
func expectDamage(t *testing.T, store string, says []string) {
	t.Helper()
	code, stdout, stderr := program(t, "-s", store, "verify")
	if code != exitDamage || stderr != "" {
		t.Errorf("exit code %d, want %d; on standard error:\n%s", code, exitDamage, stderr)
	}
	for _, text := range append(says, "DAMAGE was found") {
		if !strings.Contains(stdout, text) {
			t.Errorf("it does not say %q:\n%s", text, stdout)
		}
	}
}

func TestVerifyFinds(t *testing.T) {
	for _, damage := range damages {
		t.Run(damage.name, func(t *testing.T) {
			path := bank(t)
			change(t, path, "drop trigger es_events_update; drop trigger es_events_delete")
			names := strings.NewReplacer("{events}", "es_events", "{snapshots}", "es_snapshots", "{commands}", "es_commands",
				"{drop index}", "drop index es_events_stream", "{long ago}", "1000000", "{million}", `cast('{"Amount":100000000}' as blob)`)
			for _, statement := range damage.statements {
				change(t, path, names.Replace(statement))
			}
			expectDamage(t, path, damage.says)
		})
	}
	t.Run("a file with a damaged page", func(t *testing.T) {
		path := bank(t)
		var page, size int64
		db, err := sql.Open("sqlite3", path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.QueryRowContext(t.Context(), "select rootpage, (select page_size from pragma_page_size) from sqlite_schema where name = 'es_events_stream'").Scan(&page, &size); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte(strings.Repeat("\xaa", 64)), (page-1)*size); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		expectDamage(t, path, []string{"files      ", "SQLite says: "})
	})
}

func TestVerifyFindsInPostgres(t *testing.T) {
	server := testserver.Postgres(t, testserver.Postgres14)
	for _, damage := range damages {
		t.Run(damage.name, func(t *testing.T) {
			url := postgresBank(t, server)
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.WithoutCancel(t.Context()))
			names := strings.NewReplacer("{events}", "es.events", "{snapshots}", "es.snapshots", "{commands}", "es.commands",
				"{drop index}", "alter table es.events drop constraint events_stream", "{long ago}", "to_timestamp(1)", "{million}", `convert_to('{"Amount":100000000}', 'UTF8')`)
			for _, statement := range append([]string{"set es.change_history = 'on'"}, damage.statements...) {
				if _, err := conn.Exec(t.Context(), names.Replace(statement)); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
			expectDamage(t, url, damage.says)
		})
	}
}

// An index that differs from its table is hard to make, so this one is made up.
func TestVerifyFindsHeadsThatDiffer(t *testing.T) {
	for name, lie := range map[string]struct {
		change func(h head) head
		says   string
	}{
		"behind the log": {func(h head) head { h.version--; return h }, "has version 2 by its index and 3 in the log"},
		"beyond the log": {func(h head) head { h.version++; return h }, "has version 4 by its index and 3 in the log"},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := openSQLite(bank(t), true)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			var out strings.Builder
			s := &session{ctx: t.Context(), cli: new(cli), out: newOutput(&out, false), stderr: io.Discard}
			c := newVerification(s, liar{db, lie.change})
			if err := c.run(); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(c.heads.Findings); !strings.Contains(got, "account/ann "+lie.says) {
				t.Errorf("found: %s", got)
			}
		})
	}
}

type liar struct {
	database
	change func(h head) head
}

func (l liar) streams(ctx context.Context, kind string) iter.Seq2[head, error] {
	return func(yield func(head, error) bool) {
		for h, err := range l.database.streams(ctx, kind) {
			if !yield(l.change(h), err) {
				return
			}
		}
	}
}

func TestVerifyBearsWritersAtWork(t *testing.T) {
	db, err := openSQLite(bank(t), false)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	store := writerWithin{db}
	c := newVerification(&session{ctx: t.Context(), cli: new(cli), stderr: io.Discard}, store)
	if err := c.run(); err != nil {
		t.Fatal(err)
	}
	for _, check := range c.checks() {
		if len(check.Findings) > 0 {
			t.Errorf("%s: %q", check.Name, check.Findings)
		}
	}
	if c.end <= c.begin {
		t.Errorf("the log was read to %d, and had %d when the look began", c.end, c.begin)
	}
}

// A writerWithin appends to old and new streams between any two steps of a verification.
type writerWithin struct{ database }

func (w writerWithin) append(ctx context.Context) {
	head, err := es.Head(ctx, w.database)
	for i := 0; i < 2 && err == nil; i++ {
		_, err = w.Append(ctx, es.Append{Stream: es.Stream{Kind: "account", ID: "bob"}, Expected: es.AnyVersion, Events: []es.Record{{Type: "t"}}, Command: fmt.Sprint(head, i)},
			es.Append{Stream: es.Stream{Kind: "note", ID: fmt.Sprint(head, i)}, Events: []es.Record{{Type: "t"}}, Command: "c"})
	}
	if err != nil {
		panic(err)
	}
}

func (w writerWithin) streams(ctx context.Context, kind string) iter.Seq2[head, error] {
	w.append(ctx)
	return func(yield func(head, error) bool) {
		w.database.streams(ctx, kind)(yield)
		w.append(ctx)
	}
}

func (w writerWithin) commands(ctx context.Context) iter.Seq2[command, error] {
	return func(yield func(command, error) bool) {
		w.database.commands(ctx)(yield)
		w.append(ctx)
	}
}

// postgresBank makes a Postgres store with something in it and returns its URL.
func postgresBank(t testing.TB, server *testserver.Server) string {
	t.Helper()
	url := server.Database(t)
	store, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, store)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return url
}
