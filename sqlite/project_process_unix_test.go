//go:build unix

package sqlite_test

import (
	"context"
	"database/sql"
	"syscall"
	"testing"

	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/processtest"
	"github.com/thalo-go/es/sqlite"
)

func init() { //nolint:gochecknoinits // adds a role to those of child_test.go
	roles["project"] = func(ctx context.Context, s *sqlite.Store, args []string) error {
		l := lists(func() *sqlite.Store { return s })
		p, err := processtest.Projection(args,
			func(ctx context.Context, tx *sql.Tx) error { return l.Empty(ctx, tx, "work") },
			func(ctx context.Context, tx *sql.Tx, line string) error { return l.Add(ctx, tx, "work", line) })
		if err != nil {
			return err
		}
		return s.Project(ctx, p)
	}
}

func TestProjectingProcesses(t *testing.T) {
	processtest.Run(t, processtest.Backend{
		Database: func(t *testing.T) (processtest.Store, func(arguments ...string) processtest.Process) {
			path := file(t)
			return open(t, path), func(arguments ...string) processtest.Process {
				c := child.Start(t, "project", path, arguments[0], arguments[1], arguments[2])
				paused := make(chan struct{})
				go func() {
					// The process prints a line and stops itself. It may stop late and print a second line before, or stop while another of its
					// goroutines is in a transaction. Then it is continued to its next pause.
					for n := 1; len(c.Await(n)) >= n; n++ {
						var status syscall.WaitStatus
						if _, err := syscall.Wait4(c.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
							return
						}
						if free(t, path) {
							close(paused)
							return
						}
						_ = c.Signal(syscall.SIGCONT) // the process may have ended
					}
				}()
				return processtest.Process{Process: c.Process, Paused: paused}
			}
		},
		Lines: func(t *testing.T, s processtest.Store) []string {
			lines, err := lists(func() *sqlite.Store { return s.(*sqlite.Store) }).Lines(t.Context(), "work")
			if err != nil {
				t.Fatal(err)
			}
			return lines
		},
		// A process paused within a transaction would hold the write lock, so no other could replace it.
		Pauses: []processtest.Pause{processtest.Between},
	})
}

// free reports whether no stopped process holds the write lock.
func free(t *testing.T, path string) bool {
	db, err := sql.Open("sqlite3", "file:"+path+"?_busy_timeout=2000&_txlock=immediate")
	if err != nil {
		t.Error(err)
		return false
	}
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		return false
	}
	return tx.Rollback() == nil
}
