// Package powercut simulates power cuts: it takes from the files of processes what they have not synced.
//
// It builds a library that the processes load before others. The library follows what they write, sync, rename and remove below a
// folder, and keeps what a disk may have lost at any time; see powercut.c. A cut kills nothing: the caller kills the processes, calls
// [Disk.Cut], which puts back what was durable, and starts them again.
//
// It needs Linux and a C compiler. Only files that are written by system calls through the C library are followed: those of a Go
// program are not, but those of SQLite and Postgres are. Shared memory, such as SQLite's -shm file, is lost if it is not synced.
package powercut

import (
	"os"
	"path/filepath"
	"testing"
)

// Disk is the files below a folder.
type Disk struct {
	folder string // of the library and the images
	root   string // empty before Attach
}

// Start returns a Disk for a test, or skips the test and says why. Its folder is removed at the end of the test.
func Start(t testing.TB) *Disk {
	t.Helper()
	folder, err := os.MkdirTemp("", "powercut-") //nolint:usetesting // other users must be able to enter it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	d, err := New(t.Context(), folder)
	if err != nil {
		t.Skip(err)
	}
	return d
}

// Library returns the path of the library, for LD_PRELOAD.
func (d *Disk) Library() string { return filepath.Join(d.folder, "powercut.so") }
