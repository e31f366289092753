package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

func TestReadOnly(t *testing.T) {
	server := testserver.Postgres(t, testserver.Postgres18)
	url := server.Database(t)
	readOnly := postgres.Config{ReadOnly: true}
	refused := func(name string, says string) {
		t.Helper()
		s, err := readOnly.Open(t.Context(), url)
		if err == nil {
			_ = s.Close()
			t.Errorf("%s was opened", name)
		} else if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v\nexpected it to say %q", name, err, says)
		}
	}
	conn := connect(t, url)
	refused("a database without a store", "no store in schema")
	var schemas int
	if err := conn.QueryRow(t.Context(), "select count(*) from pg_namespace where nspname = 'es'").Scan(&schemas); err != nil || schemas != 0 {
		t.Errorf("opening it to be read has made %d schemas: %v", schemas, err)
	}

	writer := open(t, url)
	mustAppend(t, writer, add(account("a"), 1))
	s := openWith(t, readOnly, url)
	if s.ID() != writer.ID() || len(dense(t, s)) != 1 {
		t.Errorf("%s has %d records", s.ID(), len(dense(t, s)))
	}
	_, err := s.Append(t.Context(), add(account("a"), 1))
	_, leaseErr := s.AcquireLease(t.Context(), "relay", "me", time.Second, "")
	_, moveErr := s.MoveCheckpoint(t.Context(), "relay", 0, 1)
	for _, err := range []error{
		err, s.SaveSnapshot(t.Context(), es.Snapshot{Stream: account("a"), Version: 1}), leaseErr, s.ReleaseLease(t.Context(), "relay", "me"), moveErr,
		s.Rebuild(t.Context(), "balances", 0), s.Project(t.Context(), postgres.Projection{Name: "p", Handle: func(context.Context, pgx.Tx, []es.Record) error { return nil }}),
	} {
		if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "without Config.ReadOnly") {
			t.Errorf("writing: %v", err)
		}
	}
	mustAppend(t, writer, add(account("a"), 1))
	if head, err := s.Changed(t.Context(), 1); head != 2 || err != nil {
		t.Errorf("the log changed to %d, %v; want 2", head, err)
	}

	if _, err := conn.Exec(t.Context(), "delete from es.meta where key = 'schema'"); err != nil {
		t.Fatal(err)
	}
	refused("a schema without a version", "no store in schema")
}
