package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

// A file of the database is removed or replaced while a store has it open. Whatever the store writes afterwards would be gone with it.
func TestRemovedWhileOpen(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not remove a file that is open")
	}
	remove := func(t *testing.T, name string) {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	replace := func(t *testing.T, name string) {
		data := contents(t, name)
		if err := os.WriteFile(name+".new", data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		ending string
		do     func(t *testing.T, name string)
	}{
		"the database is removed":             {"", remove},
		"the database is replaced":            {"", replace},
		"the write-ahead log is removed":      {"-wal", remove},
		"the write-ahead log is replaced":     {"-wal", replace},
		"the shared memory is removed":        {"-shm", remove},
		"the database is renamed":             {"", func(t *testing.T, name string) { rename(t, name, name+".old") }},
		"another database is in its place":    {"", func(t *testing.T, name string) { rename(t, another(t), name) }},
		"a folder of the same name was moved": {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t)
			s, err := sqlite.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() }) // it may return an error
			add(t, s, at("a", 0, "one"))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			waiting, running := make(chan error, 1), make(chan error, 1)
			go func() {
				_, err := s.Changed(ctx, 1)
				waiting <- err
			}()
			caughtUp := make(chan struct{}, 1)
			go func() {
				running <- s.Project(ctx, sqlite.Projection{
					Name: "p", Handle: func(context.Context, *sql.Tx, []es.Record) error { return nil },
					OnCaughtUp: func(context.Context) error {
						caughtUp <- struct{}{}
						return nil
					},
				})
			}()
			<-caughtUp
			if test.do == nil {
				folder := path[:strings.LastIndex(path, string(os.PathSeparator))]
				rename(t, folder, folder+".moved")
				t.Cleanup(func() { rename(t, folder+".moved", folder) })
			} else {
				test.do(t, path+test.ending)
			}
			_, appendErr := s.Append(ctx, at("a", 1, "two"))
			_, leaseErr := s.AcquireLease(ctx, "l", "me", time.Second, "")
			_, moveErr := s.MoveCheckpoint(ctx, "c", 0, 1)
			_, headErr := es.Head(ctx, s)
			for what, err := range map[string]error{
				"an append": appendErr, "a lease": leaseErr, "a checkpoint": moveErr, "the head": headErr, "a waiting reader": <-waiting, "a projection": <-running,
				"a snapshot": s.SaveSnapshot(ctx, es.Snapshot{Stream: stream("a"), Version: 1}),
			} {
				if !errors.Is(err, es.ErrClosed) || errors.Is(err, es.ErrUnknownOutcome) || !strings.Contains(err.Error(), path+test.ending+" was removed or replaced") || !strings.Contains(err.Error(), "open it again") {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
	t.Run("during a commit", func(t *testing.T) {
		for _, inline := range []bool{false, true} {
			path := file(t)
			var c sqlite.Config
			if inline {
				c.Inline = []sqlite.Projection{{Name: "p", Handle: func(context.Context, *sql.Tx, []es.Record) error { return nil }}}
			}
			s, err := c.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			tx, err := s.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			remove(t, path)
			if _, err := tx([]es.Append{at("a", 0, "one")}); !errors.Is(err, es.ErrUnknownOutcome) || !strings.Contains(err.Error(), "was removed or replaced") {
				t.Errorf("an append: %v", err)
			}
		}
	})
	t.Run("a connection that is opened later does not read another file", func(t *testing.T) {
		path := file(t)
		s, err := sqlite.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		rename(t, another(t), path)
		if _, err := s.DB().ExecContext(t.Context(), "select 1"); !errors.Is(err, es.ErrClosed) {
			t.Errorf("a query returned %v", err)
		}
	})
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// another returns the path of the database of another store.
func another(t *testing.T) string {
	t.Helper()
	path := file(t)
	s := open(t, path)
	add(t, s, at("a", 0, "another"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
