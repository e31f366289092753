package sqlite_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thalo-go/es/sqlite"
)

// FuzzPath looks for file names that SQLite interprets as something else, such as an option or another file.
func FuzzPath(f *testing.F) {
	for _, name := range []string{"es.db", "a?mode=memory", "a#b", "%41", "file:x", ":memory:x", " ", "ü\n", "a&b=c", `a\b`, "-wal"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if strings.ContainsAny(name, "/\x00") || name == "" || name == "." || name == ".." || len(name) > 200 {
			return
		}
		folder := t.TempDir()
		path := filepath.Join(folder, name)
		for range 2 {
			s, err := sqlite.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			add(t, s, at("a", -1, "x"))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		entries, err := os.ReadDir(folder)
		if err != nil || len(entries) != 1 || entries[0].Name() != name {
			t.Errorf("the folder has %v, want %q alone: %v", entries, name, err)
		}
		if n := len(all(t, open(t, path))); n != 2 {
			t.Errorf("%d records, want 2", n)
		}
	})
}
