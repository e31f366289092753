package testserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Server is a PostgreSQL server. Its methods that take a t fail that test if they cannot do what they say, and so belong
// in the test's goroutine; the others may be called from any.
type Server struct {
	version  Version
	shared   bool
	url      string // if it is not ours
	folder   string
	port     int
	settings map[string]string
	programs installation
	copies   int

	mu      sync.Mutex
	process *process // nil while stopped
}

// create makes the data folder of a server.
func create(options PostgresOptions) (*Server, error) {
	version := options.Version
	if version == "" {
		version = Postgres18
	}
	programs, err := installed(version)
	if err != nil {
		return nil, err
	}
	pristine, err := template(version)
	if err != nil {
		return nil, err
	}
	folder, err := scratch()
	if err != nil {
		return nil, err
	}
	s := &Server{version: version, folder: folder, settings: options.Settings, programs: programs}
	method := "trust"
	if options.Scram {
		method = "scram-sha-256"
	}
	access := fmt.Sprintf("host all all 127.0.0.1/32 %[1]s\nhost replication all 127.0.0.1/32 %[1]s\n", method)
	err = copyTree(pristine, s.Dir())
	if err == nil {
		err = os.WriteFile(filepath.Join(s.Dir(), "pg_hba.conf"), []byte(access), 0o600)
	}
	if err == nil {
		err = give(s.Dir())
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Version is the version it was asked for as, and "external" for the one that ES_TEST_POSTGRES names.
func (s *Server) Version() Version { return s.version }

// Port is where it listens on 127.0.0.1. It stays the same when it is started again.
func (s *Server) Port() int { return s.port }

// Dir is its data folder.
func (s *Server) Dir() string { return filepath.Join(s.folder, "data") }

// PID is the process id of the postmaster, 0 while it is stopped.
func (s *Server) PID() int {
	if p := s.current(); p != nil {
		return p.pid
	}
	return 0
}

func (s *Server) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil && s.process.hasEnded(time.Millisecond) {
		s.process = nil
	}
	return s.process
}

// Log is what it has written to its log.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (s *Server) logFile() string { return filepath.Join(s.folder, "log") }

// URL returns the URL of a database as the superuser sees it.
func (s *Server) URL(database string) string {
	if s.url != "" {
		external, err := url.Parse(s.url)
		if err != nil {
			return s.url // never: connectExternal has parsed it
		}
		external.Path = "/" + database
		return external.String()
	}
	return databaseURL(s.port, database)
}

func databaseURL(port int, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(superuser, password), Host: "127.0.0.1:" + strconv.Itoa(port), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// As returns the URL with another user and password in it.
func As(rawURL, user, password string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL // whoever connects to it hears why
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

// start starts the postmaster and waits until it answers. The first start finds a port, the later ones keep it.
func (s *Server) start() error {
	if s.port != 0 {
		return s.startOnce()
	}
	var failed error
	for range 5 {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.port = port
		if failed = s.startOnce(); failed == nil || !strings.Contains(s.Log(), "could not bind") {
			return failed
		}
	}
	return failed
}

func (s *Server) startOnce() error {
	if s.current() != nil {
		return errors.New("the server is running already")
	}
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "",
		"fsync":                   "on",
		"synchronous_commit":      "on",
		// Shared memory as files of the data folder goes away with it, also after a SIGKILL.
		"dynamic_shared_memory_type": "mmap",
		"log_line_prefix":            "%m [%p] %q%a ",
		"logging_collector":          "off",
	}
	maps.Copy(settings, s.settings)
	args := []string{"-D", s.Dir()}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	p, err := launch(command{
		path: filepath.Join(s.programs.bin, "postgres"), args: args, env: environment(s.programs.libraries),
		folder: s.folder, log: s.logFile(), end: quit,
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.process = p
	s.mu.Unlock()
	return s.ready(p)
}

// ready waits until the server lets a session in.
func (s *Server) ready(p *process) error {
	ctx, cancel := background()
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			return c.Close(ctx)
		}
		if p.hasEnded(5 * time.Millisecond) {
			return fmt.Errorf("postgres ended with code %s:\n%s", p.code, tail(s.Log(), 20))
		}
		if ctx.Err() != nil {
			return fmt.Errorf("postgres does not answer after %v: %w\n%s", startLimit, err, tail(s.Log(), 20))
		}
	}
}

// Close stops the server and removes its data.
func (s *Server) Close() error {
	if s.url != "" {
		return nil
	}
	var err error
	if p := s.current(); p != nil {
		// One that is paused would not hear.
		err = errors.Join(p.sendAll(resume), p.end(quit))
	} else {
		s.removeSegment()
	}
	return errors.Join(err, os.RemoveAll(s.folder))
}

// removeSegment removes the piece of System V shared memory that a postmaster which was killed leaves behind. Its id is in the
// seventh line of postmaster.pid, which such a one leaves too.
func (s *Server) removeSegment() {
	text, err := os.ReadFile(filepath.Join(s.Dir(), "postmaster.pid"))
	if err != nil {
		return
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 7 {
		return
	}
	if fields := strings.Fields(lines[6]); len(fields) == 2 {
		// Left behind it costs 56 bytes, so a machine without ipcrm is no fault.
		_ = exec.Command("ipcrm", "-m", fields[1]).Run()
	}
}

// exec runs one statement as the superuser in the database postgres, or in the one that ES_TEST_POSTGRES names.
func (s *Server) exec(sql string) error {
	at := s.url
	if at == "" {
		at = s.URL("postgres")
	}
	return session(at, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, sql)
		return err
	})
}

// session connects, works and disconnects, although the test's own context may have ended.
func session(url string, work func(ctx context.Context, c *pgx.Conn) error) error {
	ctx, cancel := background()
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	return errors.Join(work(ctx, c), c.Close(ctx))
}

// logOnFailure shows what the server logged during a test that failed.
func (s *Server) logOnFailure(t testing.TB) {
	if s.url != "" {
		return
	}
	before := len(s.Log())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of PostgreSQL %s:\n%s", s.version, tail(s.Log()[before:], 100))
		}
	})
}

// closeAfter ends a server with the test it belongs to.
func closeAfter(t testing.TB, s *Server) {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("testserver: close: %v", err)
		}
	})
	s.logOnFailure(t)
}

// freePort finds a port below those that the system hands out for outgoing connections: one of these could take it while the
// server is down, and a client that tries again and again could even find itself at its other end.
func freePort() (int, error) {
	for range 100 {
		port := 15000 + rand.IntN(32768-15000)
		var config net.ListenConfig
		l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port on 127.0.0.1 in a hundred tries")
}
