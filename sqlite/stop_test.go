//go:build unix

package sqlite_test

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
)

func TestCopiedWhileStopped(t *testing.T) {
	copies := 20
	if testing.Short() {
		copies = 8
	}
	path := file(t)
	c := child.Start(t, "write", path, 3)
	c.Await(1)
	for range copies {
		time.Sleep(rand.N(20 * time.Millisecond)) // not synchronization: a random moment for the stop
		database, log, said, resume := stopped(t, c, path)
		resume()
		survived(t, copied(t, database, log), said)
	}
	t.Logf("%d copies, the last with %d acknowledged appends", copies, len(c.Lines()))
}

// stopped stops a writing process and returns copies of the two files of the database, and what was acknowledged. The process continues with resume.
func stopped(t *testing.T, c *child.Process, path string) (database, log []byte, said map[es.Position]string, resume func()) {
	t.Helper()
	if err := c.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(c.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("the other process does not stop: %v, status %x", err, status)
	}
	said = acknowledged(t, c.Lines())
	database, log = contents(t, path), contents(t, path+"-wal")
	return database, log, said, func() {
		if err := c.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
}
