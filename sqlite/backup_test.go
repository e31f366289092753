package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/thalo-go/es"
)

func TestBackup(t *testing.T) {
	t.Run("is consistent while others write", func(t *testing.T) {
		s := open(t, file(t))
		add(t, s, at("a", 0, "first"))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				id := string(rune('a' + w))
				for {
					if _, err := s.Append(ctx, at(id, es.AnyVersion, "x", "y"), at("z", es.AnyVersion, id)); err != nil {
						expectError(t, err, context.Canceled)
						return
					}
				}
			})
		}
		for range 5 {
			before, err := es.Head(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			path := file(t)
			if err := s.Backup(t.Context(), path); err != nil {
				t.Fatal(err)
			}
			if names := folder(t, path); len(names) != 1 {
				t.Errorf("the folder has %q; expected the copy alone", names)
			}
			c := open(t, path)
			if c.ID() != s.ID() {
				t.Errorf("the copy has the ID %s; expected %s", c.ID(), s.ID())
			}
			records := all(t, c)
			if es.Position(len(records)) < before || len(records)%3 != 1 {
				t.Errorf("the copy has %d records; expected at least %d, and whole appends", len(records), before)
			}
			add(t, c, at("copy", 0, "goes its own way"))
		}
		cancel()
		wg.Wait()
	})
	t.Run("of a database in memory writes a file", func(t *testing.T) {
		s := open(t, ":memory:")
		add(t, s, command("a", 0, "c", "one"))
		path := file(t)
		if err := s.Backup(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		c := open(t, path)
		expectTexts(t, c, "one")
		if _, err := c.Append(t.Context(), command("a", es.AnyVersion, "c", "x")); !isDuplicate(1, 1)(err) {
			t.Errorf("a command that is there: %v", err)
		}
	})
	t.Run("accepts any file name", func(t *testing.T) {
		s := open(t, file(t))
		add(t, s, at("a", 0, "one"))
		t.Chdir(t.TempDir())
		for _, name := range []string{"a?b#%20 ü.db", "file:x.db?mode=memory", ":memory:", "it's"} {
			if err := s.Backup(t.Context(), name); err != nil {
				t.Error(err)
			}
			path, err := filepath.Abs(name)
			if err != nil {
				t.Fatal(err)
			}
			expectTexts(t, open(t, path), "one")
		}
	})
}

func TestBackupThatFails(t *testing.T) {
	t.Run("does not change an existing file", func(t *testing.T) {
		s := open(t, file(t))
		path := file(t)
		for _, text := range []string{"", "precious"} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			err := s.Backup(t.Context(), path)
			if err == nil || !strings.Contains(err.Error(), "exists: give a new name") || string(contents(t, path)) != text {
				t.Errorf("the error is %v", err)
			}
		}
	})
	t.Run("leaves no file after an error", func(t *testing.T) {
		s := open(t, file(t))
		grow(t, s, "a", 100)
		path := file(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		expectError(t, s.Backup(ctx, path), context.Canceled)
		if err := s.Backup(t.Context(), filepath.Join(filepath.Dir(path), "missing", "es.db")); err == nil {
			t.Error("a backup into a folder that does not exist")
		}
		if err := s.Backup(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "the path is empty") {
			t.Errorf("a backup to nowhere: %v", err)
		}
		if names := folder(t, path); len(names) > 0 {
			t.Errorf("the folder has %q", names)
		}
		add(t, s, at("b", 0, "goes on"))
	})
	t.Run("leaves no file if it is canceled", func(t *testing.T) {
		s := open(t, file(t))
		grow(t, s, "a", 300)
		path := file(t)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { // until the partial file exists
			for {
				if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) > 0 {
					cancel()
					return
				}
			}
		}()
		expectError(t, s.Backup(ctx, path), context.Canceled)
		if names := folder(t, path); len(names) > 0 {
			t.Errorf("the folder has %q", names)
		}
	})
}
