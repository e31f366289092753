package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/logged"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// A projection runs inline or in Project. Both at once would wait for each other's checkpoint.
func TestAnInlineProjectionIsRefusedByProject(t *testing.T) {
	p := sqlite.Projection{Name: "both", Handle: func(context.Context, *sql.Tx, []es.Record) error { return nil }}
	s, err := sqlite.Config{Inline: []sqlite.Projection{p}}.Open(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Project(t.Context(), p); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "projection both is inline") {
		t.Errorf("Project returned %v, want it refused", err)
	}
	p.Version++ // another read model
	p.Once = true
	if err := s.Project(t.Context(), p); err != nil {
		t.Errorf("Project of another version: %v", err)
	}
}

// A run with Once returns although Park never parks an event of unknown type, because no other worker may come that knows it.
func TestARunOnceEndsAtAnUnknownType(t *testing.T) {
	s, err := sqlite.Open(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	add(t, s, at("a", 0, "first"))
	err = s.Project(t.Context(), sqlite.Projection{Name: "old", OnError: es.Park, Once: true, Handle: func(context.Context, *sql.Tx, []es.Record) error {
		return &es.UnknownEventError{Type: "noted"}
	}})
	var unknown *es.UnknownEventError
	if !errors.As(err, &unknown) || !strings.Contains(err.Error(), "or exclude it by Filter") || strings.Contains(err.Error(), "es.Park") {
		t.Errorf("Project returned %v, want an error that names the type and the remedy", err)
	}
}

// awayLog is a log whose database is away for the first calls.
type awayLog struct {
	*es.Mem
	calls atomic.Int64
}

func (l *awayLog) Changed(ctx context.Context, after es.Position) (es.Position, error) {
	if l.calls.Add(1) <= 3 {
		return 0, fmt.Errorf("head of the log: %w", es.ErrUnavailable)
	}
	return l.Mem.Changed(ctx, after)
}

// A new reaction looks where the log of another store ends. It waits while that store is away, as it does later.
func TestAReactionBeginsWhenItsLogIsBack(t *testing.T) {
	s, err := sqlite.Open(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, from := range map[string]projection.Start{"without From": {}, "head": projection.Head()} {
		err = s.React(t.Context(), projection.Reaction{Name: "nudge " + name, Source: projection.FromLog(&awayLog{Mem: new(es.Mem)}), From: from, Once: true,
			Handle: func(context.Context, es.Record) error { return nil }})
		if err != nil {
			t.Errorf("%s: React returned %v", name, err)
		}
	}
}

// A URL is no path, and its password is not repeated.
func TestOpenRefusesAURL(t *testing.T) {
	_, err := sqlite.Open("postgres://ann:secret@localhost/bank")
	if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "postgres.Open") || strings.Contains(err.Error(), "secret") {
		t.Errorf("Open returned %v, want an error with the remedy and without the password", err)
	}
}

// A misspelt kind selects nothing. The log says so, and says when a run begins anew, as it does under another name.
func TestTheLogSaysThatAFilterSelectsNothing(t *testing.T) {
	s, err := sqlite.Open(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const hint, begins = "filter has selected no record so far", "begins without checkpoints"
	run := func(name, kind string) string {
		var log logged.Text
		p := sqlite.Projection{Name: name, Once: true, Logger: log.Logger(), Handle: func(context.Context, *sql.Tx, []es.Record) error { return nil }}
		if kind != "" {
			p.Filter.Kinds = []string{kind}
		}
		if err := s.Project(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		return log.String()
	}
	if text := run("early", "acount"); strings.Contains(text, hint) || !strings.Contains(text, begins) {
		t.Errorf("with an empty log, the log has:\n%s", text)
	}
	add(t, s, at("a", 0, "first"))
	kind := at("a", 0, "first").Stream.Kind
	for _, test := range []struct {
		name, kind string
		hint, anew bool
	}{{"early", "acount", true, false}, {"wrong", "acount", true, true}, {"right", kind, false, true}, {"right", kind, false, false}, {"all", "", false, true}} {
		text := run(test.name, test.kind)
		if strings.Contains(text, hint) != test.hint || strings.Contains(text, begins) != test.anew {
			t.Errorf("projection %s of kind %q: hint %v and begin %v are wanted, but the log has:\n%s", test.name, test.kind, test.hint, test.anew, text)
		}
	}
}
