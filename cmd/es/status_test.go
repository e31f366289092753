package main

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
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

// refuse is a handler that fails for bob's deposit.
func refuse(records []es.Record) error {
	for _, r := range records {
		if r.ID() == "account/bob/2" {
			return errors.New("bob is not welcome\x1b[31m")
		}
	}
	return nil
}

// project runs a projection until a condition is met.
func project(t *testing.T, path string, handle func([]es.Record) error, enough func(*sqlite.Store) bool) {
	t.Helper()
	store, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- store.Project(ctx, sqlite.Projection{
			Name: "balances", Version: 2, OnError: es.Park, Retries: -1, Prepare: func(context.Context, *sql.Tx) error { return nil },
			Handle: func(_ context.Context, _ *sql.Tx, records []es.Record) error { return handle(records) },
		})
	}()
	await(t, func() bool { return enough(store) })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func await(t *testing.T, enough func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !enough(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the condition was not met within a minute")
		}
	}
}

func parked(t *testing.T, store *sqlite.Store) (n int) {
	for _, err := range store.Parked(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		n++
	}
	return n
}

// at returns a condition: the projection has applied the log up to a position, and n records are parked.
func at(t *testing.T, position projection.Cursor, n int) func(*sqlite.Store) bool {
	return func(store *sqlite.Store) bool {
		shards, err := store.Status(t.Context())
		if err != nil {
			t.Error(err)
		}
		return len(shards) == 1 && shards[0].Cursor == position && shards[0].Parked == n && parked(t, store) == n
	}
}

func TestStatusParkAndRebuild(t *testing.T) {
	path := bank(t)
	expect(t, "status-none.txt", path, "status")
	expect(t, "park-none.txt", path, "park", "list")
	project(t, path, refuse, at(t, 7, 1))
	store, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: "bob"}, Expected: 2, Events: []es.Record{{Type: "noted", Data: []byte("{}")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.AcquireLease(t.Context(), "relay", "host 1", time.Hour, `{"position":7}`); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, "status-behind.txt", path, "status")
	project(t, path, refuse, at(t, 8, 2))
	expect(t, "status.txt", path, "status")
	expect(t, "status.json", path, "status", "-json")
	expect(t, "park-list.txt", path, "park", "list")
	expect(t, "park-list.json", path, "park", "list", "balances@2", "-json")
	expect(t, "park-none.txt", path, "park", "list", "balances")

	expect(t, "park-drop.txt", path, "park", "drop", "balances@2", "account/bob")
	project(t, path, refuse, at(t, 8, 0))
	expect(t, "rebuild.json", path, "rebuild", "balances@2", "--yes", "-json")
	project(t, path, refuse, at(t, 8, 2)) // bob's two, anew
	expect(t, "park-retry.txt", path, "park", "retry", "balances@2", "account/bob")
	project(t, path, func([]es.Record) error { return nil }, at(t, 8, 0))
	expect(t, "verify-readers.txt", path, "verify")

	for _, test := range []struct {
		says string
		args []string
	}{
		{"confirm with --yes", []string{"forget", "balances@2"}},
		{"it does not exist", []string{"forget", "balances", "--yes"}},
		{"confirm with --yes", []string{"rebuild", "balances@2"}},
		{"it does not exist", []string{"rebuild", "balances", "--yes"}},
		{"no record of account/bob is parked", []string{"park", "retry", "balances@2", "account/bob"}},
		{"use kind/id", []string{"park", "drop", "balances@2", "bob"}},
	} {
		if code, _, stderr := program(t, append([]string{"-s", path}, test.args...)...); code != exitFailed || !strings.Contains(stderr, test.says) {
			t.Errorf("es %q: exit code %d, and it should say %q:\n%s", test.args, code, test.says, stderr)
		}
	}
	expect(t, "forget.txt", path, "forget", "balances@2", "--yes")
	if _, stdout, _ := program(t, "-s", path, "status"); strings.Contains(stdout, "balances") {
		t.Errorf("after forget, status has the projection:\n%s", stdout)
	}
	project(t, path, refuse, at(t, 8, 2)) // from the beginning
	expect(t, "forget.json", path, "-json", "forget", "balances@2", "--yes")
	nowhere := filepath.Join(t.TempDir(), "none.db")
	if code, _, stderr := program(t, "-s", nowhere, "rebuild", "balances", "--yes"); code != exitFailed || !strings.Contains(stderr, "must exist") {
		t.Errorf("in a database that is not there: exit code %d: %s", code, stderr)
	}
}

// An inline projection has no worker and needs none.
func TestStatusOfAnInlineProjection(t *testing.T) {
	path := bank(t)
	store, err := sqlite.Config{Inline: []sqlite.Projection{{
		Name: "names", Prepare: func(context.Context, *sql.Tx) error { return nil }, Handle: func(context.Context, *sql.Tx, []es.Record) error { return nil },
	}}}.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, "status-inline.txt", path, "status")
	expect(t, "rebuild-inline.txt", path, "rebuild", "names", "--yes")
	if store, err = sqlite.Open(path); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: "bob"}, Expected: 2, Events: []es.Record{{Type: "noted", Data: []byte("{}")}}}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, "status-inline-behind.txt", path, "status")
}

func TestVerifyFindsReadersBeyondTheEnd(t *testing.T) {
	path := bank(t)
	project(t, path, func([]es.Record) error { return nil }, at(t, 7, 0))
	change(t, path, "drop trigger es_events_delete", "delete from es_events where position = 7", "insert into es_checkpoints values ('relay', 9)")
	expectDamage(t, path, []string{"projection balances@2 shard 0/1 is at position 7, beyond the end of the log, 6", "checkpoint relay is at position 9"})
	if _, stdout, _ := program(t, "-s", path, "status"); !strings.Contains(stdout, "beyond the end of the log") {
		t.Errorf("status does not say so:\n%s", stdout)
	}
}

func TestStatusOfPostgres(t *testing.T) {
	url := postgresBank(t, testserver.Postgres(t, testserver.Postgres18))
	store, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- store.Project(ctx, postgres.Projection{Name: "balances", Version: 2, OnError: es.Park, Retries: -1,
			Prepare: func(context.Context, pgx.Tx) error { return nil },
			Handle:  func(_ context.Context, _ pgx.Tx, records []es.Record) error { return refuse(records) }})
	}()
	await(t, func() bool {
		code, stdout, stderr := program(t, "-s", url, "-json", "park", "list")
		if code != exitOK {
			t.Fatal(stderr)
		}
		return strings.Contains(stdout, `"stream":"account/bob","version":2`)
	})
	if _, stdout, stderr := program(t, "-s", url, "-json", "rebuild", "balances@2", "--yes"); !strings.Contains(stdout, `"running":true`) {
		t.Errorf("a rebuild was asked for:\n%s%s", stdout, stderr)
	}
	await(t, func() bool {
		_, stdout, _ := program(t, "-s", url, "-json", "status")
		return strings.Contains(stdout, `"cursor":7`) && strings.Contains(stdout, `"parked":1`)
	})
	if _, err := store.MoveCheckpoint(t.Context(), "relay", 0, 9); err != nil {
		t.Fatal(err)
	}
	expectDamage(t, url, []string{"checkpoint relay is at position 9, beyond the end of the log, 7"})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
