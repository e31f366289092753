package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// The compare-and-set that moves the checkpoint makes delivery exactly-once. Here another worker takes the shard, or moves its checkpoint, between
// two transactions, and only the compare-and-set can notice.
func TestAWorkerThatWasReplacedAppliesNothing(t *testing.T) {
	for name, theft := range map[string]string{
		"by one who took the shard and went on":        "update es_shards set cursor = 10, claim = claim + 1",
		"by one who went on, with the claim as it was": "update es_shards set cursor = 10",
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t)
			s := open(t, path)
			last := add(t, s, at("a", 0, make([]string, 40)...))
			other := connect(t, path)
			l := lists(func() *sqlite.Store { return s })
			stolen := false
			p := sqlite.Projection{
				Name: "work", Batch: 5, Lease: time.Hour,
				Prepare: func(ctx context.Context, tx *sql.Tx) error { return l.Empty(ctx, tx, "work") },
				Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
					for _, r := range records {
						if err := l.Add(ctx, tx, "work", r.ID()); err != nil {
							return err
						}
					}
					return nil
				},
				OnProgress: func(g projection.Progress) {
					if g.Cursor == 5 && !stolen {
						stolen = true
						do(t, other, `begin immediate;
							insert into lists (list, line) select 'work', kind || '/' || id || '/' || version from es_events where position between 6 and 10;
							`+theft+`; commit`)
					}
				},
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Project(ctx, p) }()
			lines := func() []string {
				lines, err := l.Lines(t.Context(), "work")
				if err != nil {
					t.Fatal(err)
				}
				return lines
			}
			for len(lines()) == 0 { // until the first record is applied
				time.Sleep(time.Millisecond)
			}
			soon, giveUp := context.WithTimeout(ctx, 30*time.Second)
			defer giveUp()
			if err := s.WaitFor(soon, "work", last); err != nil {
				t.Error(err)
			}
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("the run ended with %v", err)
			}
			var expected []string
			for _, r := range all(t, s) {
				expected = append(expected, r.ID())
			}
			if found := lines(); !slices.Equal(found, expected) || !stolen {
				t.Errorf("the read model has %q; expected each record once, in order", found)
			}
		})
	}
}

// A handler that called the store would wait for its own transaction.
func TestAHandlerThatCallsTheStoreIsRefused(t *testing.T) {
	for _, path := range []string{":memory:", file(t)} {
		s := open(t, path)
		add(t, s, at("a", 0, "x"))
		err := s.Project(t.Context(), sqlite.Projection{Name: "calls", Retries: -1, Handle: func(ctx context.Context, _ *sql.Tx, _ []es.Record) error {
			if path == ":memory:" {
				for _, err := range s.All(ctx, 0, es.Filter{}) {
					if err != nil {
						return err
					}
				}
			}
			_, err := s.Append(ctx, at("b", 0, "y"))
			return err
		}})
		var stopped *projection.Error
		if !errors.As(err, &stopped) || !errors.Is(err, es.ErrInvalid) {
			t.Errorf("in %s the run ended with %v; expected a *projection.Error that wraps es.ErrInvalid", path, err)
		}
	}
}

// Appends share the connection with projections, so a slow handler gets smaller batches.
func TestSlowHandlerGetsSmallerBatches(t *testing.T) {
	s := open(t, file(t))
	last := add(t, s, at("a", 0, make([]string, 400)...))
	var sizes []int
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- s.Project(ctx, sqlite.Projection{Name: "slow", Batch: 128, Handle: func(_ context.Context, _ *sql.Tx, records []es.Record) error {
			sizes = append(sizes, len(records))
			time.Sleep(time.Duration(len(records)) * 5 * time.Millisecond) // simulates a slow handler
			return nil
		}, OnProgress: func(g projection.Progress) {
			if g.Cursor == projection.Cursor(last) {
				cancel()
			}
		}})
	}()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the run ended with %v", err)
	}
	if slices.Max(sizes) != 128 || slices.Min(sizes[:len(sizes)-1]) > 20 {
		t.Errorf("it was given %d records at a time; expected about 20 of 5 ms each, once it was known to be slow", sizes)
	}
}

func TestThePanicOfAHandlerIsLoggedWithItsStack(t *testing.T) {
	s := open(t, file(t))
	add(t, s, at("a", 0, ""))
	var log bytes.Buffer
	err := s.Project(t.Context(), sqlite.Projection{
		Name: "panics", Retries: -1, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Handle: func(context.Context, *sql.Tx, []es.Record) error { panic("first\nsecond") },
	})
	var panicked *es.PanicError
	if !errors.As(err, &panicked) || strings.Contains(err.Error(), "\n") {
		t.Errorf("Project returned %v; want a panic on one line", err)
	}
	if !strings.Contains(log.String(), "project_test.go") {
		t.Errorf("the log does not have the stack:\n%s", log.String())
	}
	all, err := s.Status(t.Context())
	if err != nil || len(all) != 1 || !strings.Contains(all[0].Error, "panic: first second") || strings.Contains(all[0].Error, "\n") {
		t.Errorf("the status is %+v, %v; want the panic on one line", all, err)
	}
}
