//go:build unix

package sqlite_test

import (
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestCopiedWhileStopped(t *testing.T) {
	copies := 20
	if testing.Short() {
		copies = 8
	}
	path := file(t)
	c := start(t, "write", path, 3)
	c.await(1)
	for range copies {
		time.Sleep(rand.N(20 * time.Millisecond)) // not to wait for anything: so that it is stopped at any moment
		if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(c.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
			t.Fatalf("the other process does not stop: %v, status %x", err, status)
		}
		said := acknowledged(t, c.said())
		copied := file(t)
		for _, suffix := range []string{"", "-wal"} {
			if err := os.WriteFile(copied+suffix, contents(t, path+suffix), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		survived(t, copied, said)
	}
	t.Logf("%d copies, the last with %d acknowledged appends", copies, len(c.said()))
}
