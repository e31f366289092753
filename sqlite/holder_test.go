package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// busy is the BusyTimeout of the tests of this file.
const busy = 200 * time.Millisecond

// ownCalls are calls of a store that wait for its writing connection, or for a handler that has it.
func ownCalls(t *testing.T, s *sqlite.Store) map[string]func() error {
	ctx := context.Background() // on purpose: it does not say that the call comes from a handler
	return map[string]func() error{
		"Append":         func() error { _, err := s.Append(ctx, at("b", es.AnyVersion, "by the handler")); return err },
		"SaveSnapshot":   func() error { return s.SaveSnapshot(ctx, es.Snapshot{Stream: stream("a"), Version: 1, Position: 1}) },
		"AcquireLease":   func() error { _, err := s.AcquireLease(ctx, "lease", "holder", time.Minute, ""); return err },
		"MoveCheckpoint": func() error { _, err := s.MoveCheckpoint(ctx, "relay", 0, 1); return err },
		"Replay":         func() error { return s.Replay(ctx, "selfish", 0, projection.After(0)) },
		"Project": func() error {
			return s.Project(ctx, sqlite.Projection{Name: "another", Handle: func(context.Context, *sql.Tx, []es.Record) error { return nil }})
		},
		"WaitFor": func() error { return s.WaitFor(ctx, "selfish", 1) },
	}
}

// memoryCalls are those that wait in a database in memory, which has one connection.
func memoryCalls(t *testing.T, s *sqlite.Store) map[string]func() error {
	ctx, calls := context.Background(), ownCalls(t, s)
	delete(calls, "Project") // it retries to join for as long as its context lasts
	calls["Read"] = func() error {
		for _, err := range s.Read(ctx, stream("a"), 0) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	calls["LoadSnapshot"] = func() error { _, err := s.LoadSnapshot(ctx, stream("a")); return err }
	calls["ListLeases"] = func() error { _, err := s.ListLeases(ctx); return err }
	calls["Status"] = func() error { _, err := s.Status(ctx); return err }
	calls["Backup"] = func() error { return s.Backup(ctx, filepath.Join(t.TempDir(), "copy.db")) }
	return calls
}

// A handler that calls its own store with a context other than its own waits for its own transaction. That ends after BusyTimeout with an
// error that says so. Until then other appends wait, and afterwards they fail or succeed, but do not hang.
func TestAHandlerThatCallsItsOwnStoreEnds(t *testing.T) {
	for where, c := range map[string]struct {
		path  func() string
		calls func(*testing.T, *sqlite.Store) map[string]func() error
	}{
		"in a file": {func() string { return file(t) }, ownCalls},
		"in memory": {func() string { return ":memory:" }, memoryCalls},
	} {
		names := c.calls(t, nil)
		delete(names, "Project") // it retries to join for as long as its context lasts
		for name := range names {
			t.Run(name+" "+where, func(t *testing.T) {
				t.Parallel()
				s, err := sqlite.Config{BusyTimeout: busy}.Open(c.path())
				if err != nil {
					t.Fatal(err)
				}
				add(t, s, at("a", 0, "first"))
				call, entered := c.calls(t, s)[name], make(chan struct{}, 1)
				ended := make(chan error, 1)
				go func() {
					ended <- s.Project(context.Background(), sqlite.Projection{Name: "selfish", OnError: es.Park, Retries: -1, Handle: func(context.Context, *sql.Tx, []es.Record) error {
						entered <- struct{}{}
						return call()
					}})
				}()
				<-entered
				_, err = s.Append(context.Background(), at("c", es.AnyVersion, "by another caller"))
				if err != nil && (!errors.Is(err, es.ErrUnavailable) || !strings.Contains(err.Error(), "projection selfish has been in Handle for over 200ms")) {
					t.Errorf("the append of another caller: %v", err)
				}
				if err := <-ended; !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "projection selfish: ") || !strings.Contains(err.Error(), "calls its own store") {
					t.Errorf("Project returned %v, want an error that says what the handler does", err)
				}
				add(t, s, at("c", es.AnyVersion, "afterwards"))
				for p, err := range s.Parked(t.Context()) {
					t.Errorf("%s is parked: %s; %v", p.Record.ID(), p.Error, err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// The handler of an inline projection runs within an append, and another append would wait for that one.
func TestAnInlineHandlerThatCallsItsOwnStoreEnds(t *testing.T) {
	for where, calls := range map[string]func(*testing.T, *sqlite.Store) map[string]func() error{"in a file": ownCalls, "in memory": memoryCalls} {
		names := calls(t, nil)
		delete(names, "Replay") // of an inline projection: refused
		delete(names, "Project")
		for name := range names {
			t.Run(name+" "+where, func(t *testing.T) {
				t.Parallel()
				path := ":memory:"
				if where == "in a file" {
					path = file(t)
				}
				var s *sqlite.Store
				entered := make(chan struct{}, 1)
				s, err := sqlite.Config{BusyTimeout: busy, Inline: []sqlite.Projection{{Name: "selfish", Handle: func(_ context.Context, _ *sql.Tx, records []es.Record) error {
					if string(records[0].Data) != "call" {
						return nil
					}
					entered <- struct{}{}
					return calls(t, s)[name]()
				}}}}.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				refused := make(chan error, 1)
				go func() {
					_, err := s.Append(context.Background(), at("a", 0, "call"))
					refused <- err
				}()
				<-entered
				_, err = s.Append(context.Background(), at("c", es.AnyVersion, "by another caller"))
				if err != nil && (!errors.Is(err, es.ErrUnavailable) || !strings.Contains(err.Error(), "projection selfish has been in Handle for over 200ms")) {
					t.Errorf("the append of another caller: %v", err)
				}
				if err := <-refused; !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "projection selfish refused the append") || !strings.Contains(err.Error(), "calls its own store") {
					t.Errorf("the append returned %v, want an error that says what the handler does", err)
				}
				add(t, s, at("c", es.AnyVersion, "afterwards"))
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A handler that waits for something else does not keep Close from ending, nor other callers waiting.
func TestCloseEndsWhileAHandlerHangs(t *testing.T) {
	for _, path := range []string{file(t), ":memory:"} {
		s, err := sqlite.Config{BusyTimeout: busy}.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		add(t, s, at("a", 0, "first"))
		entered, release, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- s.Project(t.Context(), sqlite.Projection{Name: "hangs", Handle: func(context.Context, *sql.Tx, []es.Record) error {
				close(entered)
				<-release
				return nil
			}})
		}()
		<-entered
		for range 2 { // the second one does not wait any more
			_, err := s.Append(context.Background(), at("b", es.AnyVersion, "x"))
			if !errors.Is(err, es.ErrUnavailable) || !strings.Contains(err.Error(), "projection hangs has been in Handle") {
				t.Errorf("the append of another caller: %v", err)
			}
		}
		if err := s.Close(); !errors.Is(err, es.ErrUnavailable) || !strings.Contains(err.Error(), "projection hangs has been in Handle") {
			t.Errorf("Close returned %v, want an error that names the projection", err)
		}
		close(release)
		if err := <-ended; !errors.Is(err, es.ErrClosed) {
			t.Errorf("Project returned %v, want es.ErrClosed", err)
		}
	}
}
