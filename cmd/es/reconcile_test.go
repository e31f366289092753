package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// A side is a database with a log and read models, whatever its backend is.
type side[Tx any] interface {
	es.Log
	es.Checkpoints
	projection.Projections[Tx]
	Close() error
}

// A recovery is what the test needs of a backend.
type recovery[Tx any] struct {
	fresh  func(t *testing.T) string               // an empty database
	copied func(t *testing.T, store string) string // a copy of one, which no store has open
	open   func(t *testing.T, store string) side[Tx]
}

func TestReconcile(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { reconciles(t, inSQLite()) })
	t.Run("Postgres", func(t *testing.T) { reconciles(t, inPostgres(testserver.Postgres(t, testserver.Postgres18))) })
}

// with runs work on a store.
func (b recovery[Tx]) with(t *testing.T, store string, work func(s side[Tx])) {
	t.Helper()
	s := b.open(t, store)
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	work(s)
}

// add appends events to a stream of the log.
func (b recovery[Tx]) add(t *testing.T, store, id string, n int) {
	t.Helper()
	b.with(t, store, func(s side[Tx]) {
		for range n {
			if _, err := s.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: id}, Expected: es.AnyVersion, Events: []es.Record{{Type: "noted", Data: []byte("{}")}}}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// follow runs a projection and a reaction to the log of another database, until both are at its end.
func (b recovery[Tx]) follow(t *testing.T, store, log string) {
	t.Helper()
	b.with(t, log, func(source side[Tx]) {
		b.with(t, store, func(s side[Tx]) {
			head, err := es.Head(t.Context(), source)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 2)
			go func() {
				done <- s.Project(ctx, projection.Projection[Tx]{
					Name: "balances", Source: projection.FromLog(source), Partitions: 2,
					Prepare: func(context.Context, Tx) error { return nil }, Handle: func(context.Context, Tx, []es.Record) error { return nil },
				})
			}()
			go func() {
				done <- s.React(ctx, projection.Reaction{Name: "mail", Source: projection.FromLog(source), From: projection.Beginning(), Handle: func(context.Context, es.Record) error { return nil }})
			}()
			await(t, func() bool {
				shards, err := s.Status(t.Context())
				if err != nil {
					t.Error(err)
				}
				for _, p := range shards {
					if p.Cursor != projection.Cursor(head) {
						return false
					}
				}
				return len(shards) == 3
			})
			cancel()
			for range 2 {
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
			}
		})
	})
}

// relayFile writes what the relays' checkpoint topic would have.
func relayFile(t *testing.T, id string, position es.Position, last es.Record) string {
	t.Helper()
	line := func(store, relay string, position es.Position) []byte {
		text, err := json.Marshal(map[string]any{
			"store": store, "relay": relay, "position": position, "holder": "host/1/x", "at": time.Now(),
			"last": map[string]any{"position": last.Position, "id": last.ID(), "time": last.Time},
		})
		if err != nil {
			t.Fatal(err)
		}
		return append(text, '\n')
	}
	file := filepath.Join(t.TempDir(), "checkpoints")
	text := append(line(id, "relay", 1), line("ANOTHER", "relay", 1000)...)
	if err := os.WriteFile(file, append(text, line(id, "relay", position)...), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func reconciles[Tx any](t *testing.T, b recovery[Tx]) {
	log, models := b.fresh(t), b.fresh(t)
	b.with(t, models, func(side[Tx]) {}) // an identity of its own
	b.add(t, log, "ann", 5)
	restored := b.copied(t, log)
	b.add(t, log, "ann", 3) // which the copy does not have
	b.with(t, log, func(s side[Tx]) {
		if moved, err := s.MoveCheckpoint(t.Context(), "poller", 0, 8); err != nil || !moved {
			t.Fatal(moved, err)
		}
	})
	b.follow(t, models, log)
	var id string
	var last es.Record
	b.with(t, log, func(s side[Tx]) {
		id = s.ID()
		for r, err := range s.All(t.Context(), 0, es.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			last = r
		}
	})
	relays := relayFile(t, id, 8, last)

	reconcile := func(code int, args []string, says ...string) string {
		t.Helper()
		got, stdout, stderr := program(t, append([]string{"-s"}, append(args, "--relays", relays)...)...)
		if got != code || stderr != "" {
			t.Fatalf("exit code %d, want %d; on standard error:\n%s\n%s", got, code, stderr, stdout)
		}
		for _, text := range says {
			if !strings.Contains(stdout, text) {
				t.Errorf("it does not say %q:\n%s", text, stdout)
			}
		}
		return stdout
	}
	// Without a restore, nothing is ahead.
	reconcile(exitOK, []string{log, "reconcile", "--with", models}, "No reader is ahead of the log.", "it publishes another log, ANOTHER")
	// The log ends at 5, and its readers have read 8.
	out := reconcile(exitDamage, []string{restored, "reconcile", "--with", models},
		"position 5", "ahead", "its checkpoint is 3 records after the end of the log", "4 of 5 readers", "rebuild balances --yes", "replay mail --after 5 --yes", "Relay.Reset to 5")
	if strings.Contains(out, "poller") {
		t.Errorf("the checkpoint in the restored database is not ahead:\n%s", out)
	}
	// It has grown past them since, with other records.
	b.add(t, restored, "bob", 4)
	reconcile(exitDamage, []string{restored, "reconcile", "--with", models}, "parted", "it has handled a record of", "Give a copy that has them --with", "4 of 5 readers")
	out = reconcile(exitDamage, []string{restored, "reconcile", "--with", models, "--with", log},
		"has the same log up to position 5, and 3 records after it", "checkpoint", "replay mail --after 5 --yes", "Relay.Reset to 5")
	// The commands that it proposes bring the readers back.
	for _, verb := range []string{"rebuild balances --yes", "replay mail --after 5 --yes"} {
		line := regexp.MustCompile(`es -s (\S+) ` + verb).FindStringSubmatch(out)
		if line == nil {
			t.Fatalf("it does not propose %s:\n%s", verb, out)
		}
		if code, _, stderr := program(t, append([]string{"-s", models}, strings.Fields(verb)...)...); code != exitOK {
			t.Fatalf("%s: %s", verb, stderr)
		}
	}
	b.follow(t, models, restored)
	reconcile(exitDamage, []string{restored, "reconcile", "--with", models}, "1 of 5 readers", "Relay.Reset") // the relay is left
	if out := reconcile(exitDamage, []string{restored, "reconcile", "--with", models, "-json"}, `"verdict":"parted"`, fmt.Sprintf(`"head":%d`, 9)); len(strings.Split(strings.TrimSpace(out), "\n")) != 6 {
		t.Errorf("want an object of the log and one of each reader:\n%s", out)
	}
}

func inSQLite() recovery[*sql.Tx] {
	open := func(t *testing.T, store string) side[*sql.Tx] {
		s, err := sqlite.Open(store)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return recovery[*sql.Tx]{
		fresh: func(t *testing.T) string { return filepath.Join(t.TempDir(), "es.db") },
		copied: func(t *testing.T, store string) string {
			to := filepath.Join(t.TempDir(), "copy.db")
			s := open(t, store).(*sqlite.Store)
			if err := errors.Join(s.Backup(t.Context(), to), s.Close()); err != nil {
				t.Fatal(err)
			}
			return to
		},
		open: open,
	}
}

func inPostgres(server *testserver.Server) recovery[pgx.Tx] {
	return recovery[pgx.Tx]{
		fresh: func(t *testing.T) string { return server.Database(t) },
		copied: func(t *testing.T, store string) string {
			to := server.Database(t)
			name := func(url string) string {
				config, err := pgx.ParseConfig(url)
				if err != nil {
					t.Fatal(err)
				}
				return pgx.Identifier{config.Database}.Sanitize()
			}
			conn, err := pgx.Connect(t.Context(), server.URL("postgres"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			for _, statement := range []string{"drop database " + name(to), "create database " + name(to) + " template " + name(store)} {
				await(t, func() bool { // until the last session has ended
					_, err = conn.Exec(t.Context(), statement)
					return err == nil
				})
			}
			return to
		},
		open: func(t *testing.T, store string) side[pgx.Tx] {
			s, err := postgres.Open(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
}
