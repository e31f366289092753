package stores_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/stores"
)

// A mistyped URL must not create a file, and must not show its password.
func TestOpenRefusesOtherURLs(t *testing.T) {
	folder := t.TempDir()
	t.Chdir(folder)
	for _, test := range []struct{ url, says string }{
		{"nosuch://x", "unknown scheme nosuch://"},
		{"postgress://u:secret@host/database", "postgress://"},
		{"POSTGRES+TLS://host/database", "POSTGRES+TLS://"},
		{"file://bank.db", "give the path of a SQLite file, mem: for memory, or a URL of postgres:// or postgresql://"},
		{"sqlite:nosuch://x", "unknown scheme nosuch://"},
		{"mem:bank", "give mem: alone"},
	} {
		_, err := stores.Open(t.Context(), test.url)
		if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want es.ErrInvalid with %q and without the password", test.url, err, test.says)
		}
	}
	if made, _ := filepath.Glob(filepath.Join(folder, "*")); len(made) > 0 {
		t.Errorf("files were created: %q", made)
	}
	for _, url := range []string{"bank.db", "sqlite:bank.db", "mem:", filepath.Join(folder, "bank.db")} {
		store, err := stores.Open(t.Context(), url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if err := store.Close(); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	if made, _ := filepath.Glob(filepath.Join(folder, "*")); len(made) != 1 {
		t.Errorf("got the files %q, want bank.db", made)
	}
}

func TestOpenNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "bank.db")
	if _, err := stores.Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that names %s", err, path)
	}
}
