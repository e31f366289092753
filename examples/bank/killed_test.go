package main

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/sqlite"
)

func TestMain(m *testing.M) {
	child.Main(map[string]child.Func{
		"bank": func(ctx context.Context, args []string) error { return run(ctx, args[0], 1_000_000, "") },
	})
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
		p := child.Start(t, "bank", path)
		for events(t, path) < before+100 { // until the child appends
			select {
			case <-time.After(time.Millisecond):
			case <-t.Context().Done():
				t.Fatal("the child does not append")
			}
		}
		time.Sleep(rand.N(50 * time.Millisecond)) // not synchronization: a random moment for the kill
		p.Stop()
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
