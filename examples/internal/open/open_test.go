package open_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/thalo-go/es/examples/internal/open"
)

// A mistyped URL must not create a file.
func TestLogRejectsOtherURLs(t *testing.T) {
	folder := t.TempDir()
	t.Chdir(folder)
	for _, test := range []struct{ where, says string }{
		{"nosuch://x", "unknown scheme nosuch://"},
		{"postgress://u:secret@host/database", "postgress://"},
		{"POSTGRES+TLS://host/database", "POSTGRES+TLS://"},
		{"file://bank.db", "give the path of a SQLite file, mem: for memory, or a URL of postgres:// or postgresql://"},
	} {
		_, _, err := open.Log(t.Context(), test.where)
		if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want an error with %q and without the password", test.where, err, test.says)
		}
	}
	if made, _ := filepath.Glob(filepath.Join(folder, "*")); len(made) > 0 {
		t.Errorf("files were created: %q", made)
	}
	for _, where := range []string{"bank.db", "sqlite:bank.db", "mem:", filepath.Join(folder, "bank.db")} {
		_, closeLog, err := open.Log(t.Context(), where)
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		if err := closeLog(); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
}
