package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/internal/tag"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

func TestConditions(t *testing.T) {
	for _, variant := range []struct {
		name       string
		version    testserver.Version
		parameters string
		collide    bool
	}{
		{"as it comes", testserver.Postgres18, "", false},
		{"colliding hashes", testserver.Postgres18, "pool_max_conns=3", true},
		{"serializable by default, without prepared statements", testserver.Postgres14, "pool_max_conns=2&default_transaction_isolation=serializable&default_query_exec_mode=exec", false},
	} {
		t.Run(variant.name, func(t *testing.T) {
			url := with(testserver.Postgres(t, variant.version).Database(t), variant.parameters)
			clause := 0
			conformance.TestConditions(t, func(t *testing.T) func() es.Log {
				clause++
				c := postgres.Config{Schema: fmt.Sprint("clause ", clause)}
				return func() es.Log {
					s := openWith(t, c, url)
					if variant.collide { // every second tag has the same hash
						s.SetHash(func(text string) int64 { return tag.Hash(text) & 1 })
					}
					return s
				}
			})
		})
	}
}

func enrolled(id string, after es.Position, unless string, tags ...string) es.Append {
	a := es.Append{Stream: es.Stream{Kind: "enrolment", ID: id}, Expected: es.AnyVersion, Events: []es.Record{{Type: "enrolled", Tags: tags}}}
	if unless != "" {
		a.Unless = es.Condition{After: after, Match: []es.Filter{{Tags: []string{unless}}}}
	}
	return a
}

// The server checks conditions before it writes a batch. A request whose condition an earlier one breaks is put aside, that one alone.
func TestConditionsWithinABatch(t *testing.T) {
	s := open(t, testserver.Postgres(t, testserver.Postgres18).Database(t))
	first := enrolled("first", 0, "", "a")
	mustAppend(t, s, first)
	withCommand := enrolled("command", 1, "a", "b")
	withCommand.Command = "c"
	repeated := enrolled("repeated", 0, "", "r")
	repeated.Command = "r"
	mustAppend(t, s, repeated)
	repeated.Unless = es.Condition{After: 1, Match: []es.Filter{{Tags: []string{"a"}}}}
	head := es.Position(2)
	positions, errs := s.WriteTogether(t.Context(),
		[]es.Append{enrolled("before", head, "a", "x")},
		[]es.Append{enrolled("breaks", head, "", "a")},
		[]es.Append{enrolled("alone", head, "a", "b")},
		[]es.Append{withCommand},
		[]es.Append{repeated},
		[]es.Append{enrolled("other", head, "b", "c")},
		[]es.Append{enrolled("type", head, "", "d"), {Stream: account("plain"), Expected: 0, Events: events(2)}},
		[]es.Append{enrolled("two", head, "d", "e"), enrolled("three", head, "nothing", "f")},
		[]es.Append{enrolled("aside", head, "c", "g")},
	)
	var conflict *es.ConflictError
	var duplicate *es.DuplicateError
	for i, accepted := range []bool{true, true, false, false, false, true, true, false, false} {
		switch {
		case accepted && errs[i] != nil:
			t.Errorf("call %d: %v; want it accepted", i, errs[i])
		case i == 4:
			if !errors.As(errs[i], &duplicate) {
				t.Errorf("the repeated command: %v; want a duplicate", errs[i])
			}
		case !accepted && (!errors.As(errs[i], &conflict) || len(conflict.Unless.Match) == 0):
			t.Errorf("call %d: %v; want the conflict of a condition", i, errs[i])
		}
	}
	if positions[0] != 3 || positions[1] != 4 || positions[5] != 5 || positions[6] != 8 {
		t.Errorf("the positions are %v; want those put aside to hold up no other", positions)
	}
}

func TestConditionsInATransaction(t *testing.T) {
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	var handled [][]string
	p := postgres.Projection{Name: "tags", Handle: func(_ context.Context, _ pgx.Tx, records []es.Record) error {
		for _, r := range records {
			handled = append(handled, r.Tags)
		}
		return nil
	}}
	for name, s := range map[string]*postgres.Store{"plain": open(t, url), "inline": openWith(t, postgres.Config{Inline: []postgres.Projection{p}}, url)} {
		conn := connect(t, url)
		tx := begin(t, conn, "")
		mustAppend(t, s.In(tx), enrolled(name, 0, name, name, "z"))
		if _, err := s.In(tx).Append(t.Context(), enrolled(name, 0, name, name)); !errors.As(err, new(*es.ConflictError)) {
			t.Errorf("%s: a condition on a record of the same transaction: %v; want a conflict", name, err)
		}
		rollback(t, tx)
		tx = begin(t, conn, "")
		mustAppend(t, s.In(tx), enrolled(name, 0, name, "z", name))
		commit(t, tx)
		if _, err := s.Append(t.Context(), enrolled(name, 0, name, name)); !errors.As(err, new(*es.ConflictError)) {
			t.Errorf("%s: a condition on a record of a transaction: %v; want a conflict", name, err)
		}
		mustAppend(t, s, enrolled(name, 0, "none", name, "y"))
		if got := len(collect(t, s.All(t.Context(), 0, es.Filter{Tags: []string{name}}))); got != 2 {
			t.Errorf("%s: %d records have the tag; want 2", name, got)
		}
	}
	if !slices.ContainsFunc(handled, func(tags []string) bool { return slices.Equal(tags, []string{"inline", "z"}) }) ||
		!slices.ContainsFunc(handled, func(tags []string) bool { return slices.Equal(tags, []string{"inline", "y"}) }) {
		t.Errorf("an inline projection handled records with tags %q", handled)
	}
}

// Batches with tags or conditions are not left for other processes.
func TestConditionsWhileCombining(t *testing.T) {
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	var stores []*postgres.Store
	postgres.CombineAlways(func() { stores = []*postgres.Store{open(t, url), open(t, url)} })
	for i := range 10 {
		mustAppend(t, stores[i%2], enrolled("x", es.Position(2*i), "a", "a"))
		mustAppend(t, stores[i%2], add(account("plain"), 1))
		if _, err := stores[(i+1)%2].Append(t.Context(), enrolled("x", es.Position(2*i), "a", "a")); !errors.As(err, new(*es.ConflictError)) {
			t.Fatalf("got %v, want a conflict", err)
		}
	}
}
