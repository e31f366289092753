package sqlite_test

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mattn/go-sqlite3"
	"github.com/thalo-go/es"
)

func TestFullDisk(t *testing.T) {
	folder := t.TempDir()
	if err := syscall.Mount("none", folder, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("a small disk is not available: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(folder, "es.db")
	s := open(t, path)
	add(t, s, at("a", 0, "first"))
	ballast := filepath.Join(folder, "ballast")
	for _, size := range []int{2_000_000, 1_000_000, 300_000} {
		if err := os.WriteFile(ballast, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		before := len(all(t, s))
		acknowledged := fill(t, s, fmt.Sprint(size), func(err error) {
			if errors.Is(err, es.ErrUnknownOutcome) || !isCode(err, sqlite3.ErrFull) || !strings.Contains(err.Error(), "nothing was written; free disk space and try again") {
				t.Errorf("the error is %v", err)
			}
		})
		if n := len(all(t, s)); n != before+2*len(acknowledged) {
			t.Errorf("%d records, %d before, %d acknowledged appends of two", n, before, len(acknowledged))
		}
		t.Logf("%d acknowledged", len(acknowledged))
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		add(t, s, at("a", es.AnyVersion, "goes on"))
	}
	copied := file(t)
	if err := s.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	if n := len(all(t, open(t, copied))); n != len(all(t, s)) {
		t.Errorf("the copy has %d records", n)
	}
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := s.Backup(t.Context(), filepath.Join(folder, "copy.db")); !isCode(err, sqlite3.ErrFull) {
		t.Errorf("a backup to the full disk: %v", err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); name != "ballast" && !strings.HasPrefix(name, "es.db") {
			t.Errorf("it left %s behind", name)
		}
	}
}

// A limit on the size of files makes writes fail with another error than a full disk.
func TestDiskFails(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	path := file(t)
	s := open(t, path)
	add(t, s, at("a", 0, "first"))
	var unlimited syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &unlimited); err != nil {
		t.Fatal(err)
	}
	limited := unlimited
	limited.Cur = 1 << 20
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limited); err != nil {
		t.Skip(err)
	}
	acknowledged := fill(t, s, "", func(err error) {
		expectError(t, err, es.ErrUnavailable)
		if errors.Is(err, es.ErrUnknownOutcome) || !isCode(err, sqlite3.ErrIoErr) || !strings.Contains(err.Error(), "file too large") || !strings.Contains(err.Error(), "nothing was written") {
			t.Errorf("the error is %v", err)
		}
	})
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &unlimited); err != nil {
		t.Fatal(err)
	}
	if n := len(all(t, s)); n != 1+2*len(acknowledged) || len(acknowledged) == 0 {
		t.Errorf("%d records, %d acknowledged appends of two", n, len(acknowledged))
	}
	// What the failed commits left in the files does not reappear after a crash.
	crashed := file(t)
	for _, ending := range []string{"", "-wal"} {
		if err := os.WriteFile(crashed+ending, contents(t, path+ending), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(all(t, open(t, crashed))); n != 1+2*len(acknowledged) {
		t.Errorf("%d records after a crash, %d acknowledged appends of two", n, len(acknowledged))
	}
	add(t, s, at("a", 1, "goes on"))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	records := all(t, open(t, path))
	if last := records[len(records)-1]; string(last.Data) != "goes on" {
		t.Errorf("the log ends with %s", last.ID())
	}
}
