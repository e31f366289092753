// Package datum tests that a value which the database refuses fails only the append that has it, and not those that share its transaction.
package datum

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/thalo-go/es"
)

// Store is a store under test.
type Store interface {
	es.Log
	// WriteTogether writes several calls of Append in one transaction, in this order.
	WriteTogether(ctx context.Context, calls ...[]es.Append) ([]es.Position, []error)
}

// Backend is how the stores are opened.
type Backend struct {
	// Rules are statements, by name, that make an empty database refuse events of 100 bytes of data or more.
	Rules map[string]string
	// Open opens a store on an empty database with a rule, with or without an inline projection.
	Open func(t *testing.T, rule string, inline bool) Store
	// Within appends in a transaction of the application, which it rolls back. It is nil if there are none.
	Within func(t *testing.T, s Store, bad es.Append) error
}

// Run runs the test with each rule.
func Run(t *testing.T, b Backend) {
	for by, inline := range map[string]bool{"": false, "with an inline projection": true} {
		for name, rule := range b.Rules {
			t.Run(strings.TrimSpace(name+" "+by), func(t *testing.T) { b.failsAlone(t, b.Open(t, rule, inline)) })
		}
	}
}

func (b Backend) failsAlone(t *testing.T, s Store) {
	one := []es.Record{{Type: "t", Data: []byte("{}")}}
	bad := es.Append{Stream: stream("bad"), Expected: es.AnyVersion, Events: []es.Record{{Type: "t", Data: make([]byte, 100)}}}
	for turn := range es.Version(3) { // on Postgres by each of the functions
		var calls [][]es.Append
		for i := range 9 {
			calls = append(calls, []es.Append{{Stream: stream(fmt.Sprint(i)), Expected: turn, Events: one}})
		}
		calls[4] = []es.Append{bad}
		_, errs := s.WriteTogether(t.Context(), calls...)
		for i, err := range errs {
			if i == 4 && !errors.Is(err, es.ErrInvalid) {
				t.Errorf("the bad call: got %v, want an error that wraps es.ErrInvalid", err)
			}
			if i != 4 && err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		}
	}
	if _, err := s.Append(t.Context(), bad); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("alone: got %v, want an error that wraps es.ErrInvalid", err)
	}
	if b.Within != nil {
		if err := b.Within(t, s, bad); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("in a transaction: got %v, want an error that wraps es.ErrInvalid", err)
		}
	}
	if got, err := es.Head(t.Context(), s); err != nil || got != 24 {
		t.Errorf("there are %d records (%v), want 24", got, err)
	}
	for i := range 9 {
		versions := 0
		for _, err := range s.Read(t.Context(), stream(fmt.Sprint(i)), 0) {
			if err != nil {
				t.Fatal(err)
			}
			versions++
		}
		if want := 3; i != 4 && versions != want {
			t.Errorf("stream %d has %d records, want %d", i, versions, want)
		}
	}
}

func stream(id string) es.Stream { return es.Stream{Kind: "account", ID: id} }
