package sqlite_test

import (
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/thalo-go/es/sqlite"
)

// A user who may read a database but not write to its folder must learn what is missing, because SQLite's own text speaks of a write.
func TestReadOnlyInAFolderThatCannotBeWritten(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "es.db")
	s := open(t, path)
	add(t, s, at("a", 0, "one"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Dir(folder), folder, path} {
		mode := uint32(0o555)
		if name == path {
			mode = 0o444
		}
		if err := syscall.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Chmod(name, 0o700) })
	}
	opened := make(chan error)
	go func() {
		runtime.LockOSThread() // which ends with the goroutine, because it is another user's now
		const nobody = 65534
		if err := syscall.Setfsuid(nobody); err != nil {
			opened <- err
			return
		}
		s, err := sqlite.Config{ReadOnly: true}.Open(path)
		if err == nil {
			_ = s.Close()
		}
		opened <- err
	}()
	if err := <-opened; err == nil || !strings.Contains(err.Error(), "allow writing to its folder, or open a copy") {
		t.Errorf("got %v, want an error with the remedy", err)
	}
	for _, name := range []string{filepath.Dir(folder), folder, path} {
		if err := syscall.Chmod(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	readers := openWith(t, path, sqlite.Config{ReadOnly: true})
	expectTexts(t, readers, "one")
}
