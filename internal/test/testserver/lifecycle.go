package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A Shutdown is a PostgreSQL shutdown mode.
type Shutdown string

const (
	Smart     Shutdown = "smart"     // waits for sessions to end
	Fast      Shutdown = "fast"      // rolls back open transactions and writes a checkpoint
	Immediate Shutdown = "immediate" // ends at once; the next start recovers from the write-ahead log
)

// Start starts a stopped server on its port and with its data, and returns when it accepts sessions.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.must(t, "start", s.start)
}

// Stop stops the server and returns when it has ended.
func (s *Server) Stop(t testing.TB, how Shutdown) {
	t.Helper()
	s.must(t, "stop", func() error { return s.stop(how) })
}

// Restart stops and starts the server.
func (s *Server) Restart(t testing.TB, how Shutdown) {
	t.Helper()
	s.must(t, "restart", func() error { return errors.Join(s.stop(how), s.start()) })
}

// Kill ends all processes of the server with SIGKILL. They send nothing to their clients; the kernel closes the
// connections.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.must(t, "kill", func() error { return s.sendAll(killed) })
}

// Pause stops all processes of the server until Resume. Connections stay open and get no answer. The kernel accepts new
// connections, which get no answer either.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	s.must(t, "pause", func() error { return s.sendAll(pause) })
}

// Resume continues a paused server.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	s.must(t, "resume", func() error { return s.sendAll(resume) })
}

// Backup copies the data of a stopped server and returns the folder for Restore. The copy is removed with the server.
func (s *Server) Backup(t testing.TB) (folder string) {
	t.Helper()
	s.must(t, "back up", func() error {
		if s.current() != nil {
			return errors.New("the server is running: stop it first")
		}
		s.copies++
		folder = filepath.Join(s.folder, fmt.Sprint("backup-", s.copies))
		return errors.Join(copyTree(s.Dir(), folder), chown(folder))
	})
	return folder
}

// Restore replaces the data of a stopped server by a backup, which loses what was written since.
func (s *Server) Restore(t testing.TB, backup string) {
	t.Helper()
	s.must(t, "restore", func() error {
		if s.current() != nil {
			return errors.New("the server is running: stop it first")
		}
		return errors.Join(os.RemoveAll(s.Dir()), copyTree(backup, s.Dir()), chown(s.Dir()))
	})
}

// Standby starts a copy that follows the server by streaming replication, and that Promote can make the new primary.
// The server is stopped and started to copy its data. Commits do not wait for the standby; after "alter system set
// synchronous_standby_names = '*'" and "select pg_reload_conf()" they do.
func (s *Server) Standby(t testing.TB) *Server {
	t.Helper()
	var standby *Server
	s.must(t, "make a standby", func() error {
		if err := s.stop(Fast); err != nil {
			return err
		}
		folder, err := tempFolder()
		if err != nil {
			return err
		}
		standby = &Server{version: s.version, folder: folder, settings: s.settings, programs: s.programs}
		closeAfter(t, standby)
		primary := fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=%s password=%s'\n", s.port, superuser, password)
		if err := errors.Join(copyTree(s.Dir(), standby.Dir()), s.start(),
			os.WriteFile(filepath.Join(standby.Dir(), "standby.signal"), nil, 0o600),
			appendTo(filepath.Join(standby.Dir(), "postgresql.auto.conf"), primary), chown(standby.Dir())); err != nil {
			return err
		}
		return standby.start()
	})
	return standby
}

// Promote makes a standby a primary and returns when it accepts writes.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.must(t, "promote", func() error { return s.exec("select pg_promote()") })
}

// CaughtUp returns when a standby has applied everything that its primary has written so far.
func (s *Server) CaughtUp(t testing.TB, primary *Server) {
	t.Helper()
	s.must(t, "catch up", func() error {
		var written string
		err := session(primary.URL("postgres"), func(ctx context.Context, c *pgx.Conn) error {
			return c.QueryRow(ctx, "select pg_current_wal_lsn()::text").Scan(&written)
		})
		if err != nil {
			return err
		}
		return session(s.URL("postgres"), func(ctx context.Context, c *pgx.Conn) error {
			for {
				var applied bool
				err := c.QueryRow(ctx, "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", written).Scan(&applied)
				if err != nil || applied {
					return err
				}
			}
		})
	})
}

// must changes a server, which must belong to this test, and ends the test on an error.
func (s *Server) must(t testing.TB, what string, do func() error) {
	t.Helper()
	if s.shared {
		t.Fatalf("testserver: %s: the server is shared with other tests: use StartPostgres", what)
	}
	if err := do(); err != nil {
		t.Fatalf("testserver: %s: %v%s", what, err, diskFull(err))
	}
}

func (s *Server) stop(how Shutdown) error {
	by, ok := map[Shutdown]signal{Smart: terminate, Fast: interrupt, Immediate: quit}[how]
	if !ok {
		return fmt.Errorf("unknown shutdown mode %q: use smart, fast or immediate", how)
	}
	p := s.current()
	if p == nil {
		return errors.New("the server is not running")
	}
	if err := p.end(by); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(s.Log(), 20))
	}
	return nil
}

func (s *Server) sendAll(by signal) error {
	p := s.current()
	if p == nil {
		return errors.New("the server is not running")
	}
	return p.sendAll(by)
}

func appendTo(file, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(strings.TrimRight(string(old), "\n")+"\n"+text), 0o600)
}
