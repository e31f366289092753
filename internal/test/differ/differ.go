// Package differ tests the comparison of read models.
package differ

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/eventually"
	"github.com/thalo-go/es/projection"
)

// Store is a store that compares read models.
type Store[Tx any] interface {
	es.Log
	projection.Projections[Tx]
	Diff(ctx context.Context, before, after projection.Table) iter.Seq2[projection.Difference, error] // Diff compares two tables.
}

// Test compares two read models of an empty store. exec runs a statement with placeholders $1 and so on.
func Test[Tx any](t *testing.T, s Store[Tx], exec func(ctx context.Context, tx Tx, query string, args ...any) error) {
	write := func(id string) {
		t.Helper()
		account := es.Stream{Kind: "account", ID: id}
		if _, err := s.Append(t.Context(), es.Append{Stream: account, Expected: es.AnyVersion, Events: []es.Record{{Type: "deposited"}}}); err != nil {
			t.Fatal(err)
		}
	}
	state := `{"Owner":"ann"}`
	old := model(exec, 1, ", owner text", func(id string) []any {
		if id != "extra" {
			return []any{id, 7, state}
		}
		return nil
	})
	fixed := model(exec, 2, "", func(id string) []any {
		switch id {
		case "extra", "a", "fine":
			return []any{id, 7, state}
		case "less":
			return []any{id, 6, state}
		case "null":
			return []any{id, nil, state}
		case "state":
			return []any{id, 7, `{"Owner":"bob"}`}
		}
		return nil // missing
	})
	for _, id := range []string{"a", "fine", "extra", "less", "missing", "null", "state", "less"} {
		write(id)
	}
	run := func(p projection.Projection[Tx]) {
		if err := s.Project(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	run(old)
	run(fixed)
	before := projection.Table{Projection: "balances", Version: 1, Table: "balances_1", Key: []string{"id"}}
	after := projection.Table{Projection: "balances", Version: 2, Table: "balances_2", Key: []string{"id"}}
	var found []string
	for d, err := range s.Diff(t.Context(), before, after) {
		if err != nil {
			t.Fatal(err)
		}
		if d.Last.Stream != (es.Stream{Kind: "account", ID: fmt.Sprint(d.Key["id"])}) || d.Last.Type != "deposited" || d.Last.Time.IsZero() || time.Since(d.Last.Time) > time.Hour {
			t.Errorf("key %v has the last event %+v", d.Key, d.Last)
		}
		found = append(found, fmt.Sprintf("%v: %v, %v; %d", d.Key["id"], balance(d.Old), balance(d.New), d.Last.Version))
		if _, compared := d.New["owner"]; compared {
			t.Error("the column owner, which only one table has, was compared")
		}
	}
	want := []string{"extra: none, 7; 1", "less: 7, 6; 2", "missing: 7, none; 1", "null: 7, <nil>; 1", "state: 7, 7; 1"}
	if strings.Join(found, "\n") != strings.Join(want, "\n") {
		t.Errorf("the differences are\n%s\nwant\n%s", strings.Join(found, "\n"), strings.Join(want, "\n"))
	}
	for _, err := range s.Diff(t.Context(), before, after) {
		if err != nil {
			t.Error(err)
		}
		break // the rest is not read
	}
	refusals(t, s, before, after)

	write("a")
	run(old)
	eventually.True(t, "Diff says that one projection is behind", func() bool {
		brief, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // too brief on a busy machine for a first look
		defer cancel()
		err := failure(s.Diff(brief, before, after))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("with one projection behind, Diff returned %v", err)
		}
		return strings.Contains(err.Error(), "at [9]") && strings.Contains(err.Error(), "at [8]")
	})
	caughtUp := make(chan error, 1)
	go func() { caughtUp <- s.Project(t.Context(), fixed) }()
	if err := failure(s.Diff(t.Context(), before, after)); err != nil {
		t.Errorf("once the other has caught up, Diff returned %v", err)
	}
	if err := <-caughtUp; err != nil {
		t.Error(err)
	}
}

// model returns a projection whose read model has the rows that row returns; nil leaves one out.
func model[Tx any](exec func(ctx context.Context, tx Tx, query string, args ...any) error, version int, columns string, row func(id string) []any) projection.Projection[Tx] {
	table := fmt.Sprint("balances_", version)
	return projection.Projection[Tx]{
		Name: "balances", Version: version, Once: true, Filter: es.Filter{Kinds: []string{"account"}},
		Prepare: func(ctx context.Context, tx Tx) error {
			return exec(ctx, tx, fmt.Sprintf("create table %s (id text primary key, balance bigint, state json%s)", table, columns))
		},
		Handle: func(ctx context.Context, tx Tx, records []es.Record) error {
			for _, r := range records {
				args := row(r.Stream.ID)
				if args == nil {
					continue
				}
				err := exec(ctx, tx, fmt.Sprintf("insert into %s (id, balance, state) values ($1, $2, $3) on conflict (id) do update set balance = excluded.balance", table), args...)
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func balance(row map[string]any) any {
	if row == nil {
		return "none"
	}
	return row["balance"]
}

func failure(differences iter.Seq2[projection.Difference, error]) error {
	for _, err := range differences {
		if err != nil {
			return err
		}
	}
	return nil
}

func refusals[Tx any](t *testing.T, s Store[Tx], before, after projection.Table) {
	for name, change := range map[string]func(old, other *projection.Table){
		"lost":     func(_, other *projection.Table) { other.Table = "lost" },
		"color":    func(old, other *projection.Table) { old.Key, other.Key = []string{"color"}, []string{"color"} },
		"keys":     func(_, other *projection.Table) { other.Key = []string{"balance"} },
		"one":      func(old, other *projection.Table) { *other = *old },
		"never":    func(_, other *projection.Table) { other.Projection = "never" },
		"columns":  func(old, other *projection.Table) { old.Key, other.Key = nil, nil },
		`a"; drop`: func(_, other *projection.Table) { other.Table = `a"; drop table balances_1; --` },
	} {
		old, other := before, after
		change(&old, &other)
		if err := failure(s.Diff(t.Context(), old, other)); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), strings.Split(name, `"`)[0]) {
			t.Errorf("%s: Diff returned %v, want an error that wraps es.ErrInvalid and says what is wrong", name, err)
		}
	}
}
