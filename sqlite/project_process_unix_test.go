//go:build unix

package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

func init() { //nolint:gochecknoinits // a role beside those of child_test.go
	roles["project"] = workProject
}

// workProject runs a projection with so many partitions and a lease, and says how far it has come. If it is to be led, it waits for a line
// after each transaction before it goes on.
func workProject(ctx context.Context, s *sqlite.Store, args []string) error {
	l := lists(func() *sqlite.Store { return s })
	lease, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	led := args[2] == "led"
	in := bufio.NewReader(os.Stdin)
	return s.Project(ctx, sqlite.Projection{
		Name: "work", Partitions: number(args[0]), Batch: 5, Lease: lease,
		Prepare: func(ctx context.Context, tx *sql.Tx) error { return l.Empty(ctx, tx, "work") },
		Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
			for _, r := range records {
				if err := l.Add(ctx, tx, "work", r.ID()); err != nil {
					return err
				}
			}
			return nil
		},
		OnProgress: func(p es.Progress) {
			say("at", int64(p.Cursor))
			if led {
				_, _ = in.ReadString('\n') // also when it was closed
			}
		},
	})
}

// applied fails the test unless each record is in the read model once, and those of each stream in order.
func applied(t *testing.T, s *sqlite.Store) {
	t.Helper()
	lines, err := lists(func() *sqlite.Store { return s }).Lines(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	versions := make(map[string]int)
	for _, line := range lines {
		i := strings.LastIndexByte(line, '/')
		versions[line[:i]]++
		if line[i+1:] != strconv.Itoa(versions[line[:i]]) {
			t.Fatalf("%s is applied where version %d of its stream should be", line, versions[line[:i]])
		}
	}
	if n := len(all(t, s)); len(lines) != n {
		t.Errorf("%d records are applied of %d", len(lines), n)
	}
}

func waitFor(t *testing.T, s *sqlite.Store, position es.Position) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := s.WaitFor(ctx, "work", position); err != nil {
		status, _ := s.Status(t.Context())
		t.Fatalf("%v\n%+v", err, status)
	}
}

func TestProjectingProcesses(t *testing.T) {
	t.Run("that are killed, again and again, apply every record once", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		var children []*child
		var last es.Position
		for i := range 8 {
			c := start(t, "project", path, 3, "500ms", "free")
			children = append(children, c)
			c.await(1)
			for k := range 25 {
				last = add(t, s, at(fmt.Sprint(k%7), es.AnyVersion, make([]string, 1+k%3)...))
			}
			if i >= 2 {
				children[i-2].kill()
			}
		}
		waitFor(t, s, last)
		applied(t, s)
	})
	t.Run("of which one is paused, and another takes its place, apply every record once", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		last := add(t, s, at("a", 0, make([]string, 100)...))
		paused := start(t, "project", path, 1, "500ms", "led")
		// It stands between two transactions, and has read the records of the next one.
		if lines := paused.await(1); !slices.Equal(lines, []string{"at 5"}) {
			t.Fatal(lines)
		}
		if err := paused.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		other := start(t, "project", path, 1, "500ms", "free")
		waitFor(t, s, last)
		if err := paused.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if err := paused.stdin.Close(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, s, add(t, s, at("a", 100, make([]string, 50)...)))
		other.kill()
		waitFor(t, s, add(t, s, at("b", 0, make([]string, 50)...)))
		applied(t, s)
	})
}
