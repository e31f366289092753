package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/sqlite"
)

// childVariable makes this test binary run the bank on a file.
const childVariable = "ES_BANK_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		if err := run(context.Background(), path, 1_000_000, ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(testserver.Run(m))
}

// The bank is killed repeatedly while it runs. The next run completes the transfers in flight, and its audit checks that no money was created or lost.
func TestTheBankIsKilledAnywhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bank.db")
	kills := 5
	if testing.Short() {
		kills = 1
	}
	for range kills {
		before := events(t, path)
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), childVariable+"="+path)
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		for events(t, path) < before+100 { // until the child appends
			select {
			case <-time.After(time.Millisecond):
			case <-t.Context().Done():
				t.Fatal("the child does not append")
			}
		}
		time.Sleep(rand.N(50 * time.Millisecond)) // not synchronization: a random moment for the kill
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait() // reports the kill
	}
	if err := run(t.Context(), path, 20, ""); err != nil {
		t.Fatal(err)
	}
}

// events returns the number of events in the file.
func events(t *testing.T, path string) es.Position {
	t.Helper()
	s, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	head, err := es.Head(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return head
}
