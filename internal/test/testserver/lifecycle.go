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

// A Shutdown is one of the ways to stop a server that PostgreSQL knows.
type Shutdown string

const (
	Smart     Shutdown = "smart"     // lets sessions end in their own time
	Fast      Shutdown = "fast"      // rolls back what is under way, and writes a checkpoint
	Immediate Shutdown = "immediate" // drops everything: the next start recovers from the log
)

// Start starts a server that was stopped, on the port and with the data it had, and returns when it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.must(t, "start", s.start)
}

// Stop stops the server and returns when it has ended.
func (s *Server) Stop(t testing.TB, how Shutdown) {
	t.Helper()
	s.must(t, "stop", func() error { return s.stop(how) })
}

// Restart is Stop and Start.
func (s *Server) Restart(t testing.TB, how Shutdown) {
	t.Helper()
	s.must(t, "restart", func() error { return errors.Join(s.stop(how), s.start()) })
}

// Kill ends all processes of the server with SIGKILL. None gets to tell its client; the kernel closes the connections.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.must(t, "kill", func() error { return s.sendAll(killed) })
}

// Pause halts all processes of the server until Resume. Connections stay open and get no answer; new ones are made by the
// kernel and get none either.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	s.must(t, "pause", func() error { return s.sendAll(pause) })
}

// Resume ends a Pause.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	s.must(t, "resume", func() error { return s.sendAll(resume) })
}

// Backup copies the data of a server that is stopped, and returns the folder for Restore. The copy is gone when the server is.
func (s *Server) Backup(t testing.TB) (folder string) {
	t.Helper()
	s.must(t, "back up", func() error {
		if s.current() != nil {
			return errors.New("stop it first: the files of a running server do not fit together")
		}
		s.copies++
		folder = filepath.Join(s.folder, fmt.Sprint("backup-", s.copies))
		return errors.Join(copyTree(s.Dir(), folder), give(folder))
	})
	return folder
}

// Restore puts a backup in place of the data of a server that is stopped, as someone does who has lost the newer data.
func (s *Server) Restore(t testing.TB, backup string) {
	t.Helper()
	s.must(t, "restore", func() error {
		if s.current() != nil {
			return errors.New("stop it first")
		}
		return errors.Join(os.RemoveAll(s.Dir()), copyTree(backup, s.Dir()), give(s.Dir()))
	})
}

// Standby starts a copy of a server that follows it by streaming replication, for Promote to make the new primary. To copy
// its data the server is stopped and started. A commit does not wait for the standby; after
// "alter system set synchronous_standby_names = '*'" and "select pg_reload_conf()" it does.
func (s *Server) Standby(t testing.TB) *Server {
	t.Helper()
	var standby *Server
	s.must(t, "make a standby", func() error {
		if err := s.stop(Fast); err != nil {
			return err
		}
		folder, err := scratch()
		if err != nil {
			return err
		}
		standby = &Server{version: s.version, folder: folder, settings: s.settings, programs: s.programs}
		closeAfter(t, standby)
		primary := fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=%s password=%s'\n", s.port, superuser, password)
		if err := errors.Join(copyTree(s.Dir(), standby.Dir()), s.start(),
			os.WriteFile(filepath.Join(standby.Dir(), "standby.signal"), nil, 0o600),
			appendTo(filepath.Join(standby.Dir(), "postgresql.auto.conf"), primary), give(standby.Dir())); err != nil {
			return err
		}
		return standby.start()
	})
	return standby
}

// Promote makes a standby a primary and returns when it takes writes.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.must(t, "promote", func() error { return s.exec("select pg_promote()") })
}

// CaughtUp returns when a standby has applied all that its primary has written up to now.
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

// must does something to a server, which has to be the test's own, or ends the test.
func (s *Server) must(t testing.TB, what string, do func() error) {
	t.Helper()
	if s.shared {
		t.Fatalf("testserver: %s: other tests use this server too: take one from StartPostgres", what)
	}
	if err := do(); err != nil {
		t.Fatalf("testserver: %s: %v", what, err)
	}
}

func (s *Server) stop(how Shutdown) error {
	by, ok := map[Shutdown]signal{Smart: terminate, Fast: interrupt, Immediate: quit}[how]
	if !ok {
		return fmt.Errorf("%q is no way to stop a server: take smart, fast or immediate", how)
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
