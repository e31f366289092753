package testserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// A Server is a PostgreSQL server. Methods with a parameter t end that test if they fail, so call them from the test's
// goroutine. The other methods may be called from any goroutine.
type Server struct {
	version  Version
	shared   bool
	url      string // set if ES_TEST_POSTGRES names the server
	folder   string
	port     int
	settings map[string]string
	programs installation
	preload  string // a shared library, or ""
	copies   int

	mu      sync.Mutex
	process *process // nil while stopped
}

// create creates the data folder of a server.
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
	folder, err := tempFolder()
	if err != nil {
		return nil, err
	}
	s := &Server{version: version, folder: folder, settings: options.Settings, programs: programs, preload: options.Preload}
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
		err = chown(s.Dir())
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Version returns the requested version, or "external" for the server that ES_TEST_POSTGRES names.
func (s *Server) Version() Version { return s.version }

// Port returns the port on 127.0.0.1. It stays the same after a restart.
func (s *Server) Port() int { return s.port }

// Dir returns the data folder.
func (s *Server) Dir() string { return filepath.Join(s.folder, "data") }

// PID returns the process id of the postmaster, or 0 while the server is stopped.
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

// Log returns the server's log.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (s *Server) logFile() string { return filepath.Join(s.folder, "log") }

// URL returns the URL of a database for the superuser.
func (s *Server) URL(database string) string {
	if s.url != "" {
		external, err := url.Parse(s.url)
		if err != nil {
			return s.url // does not happen: connectExternal has parsed it
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

// As returns the URL with another user and password.
func As(rawURL, user, password string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL // connecting to it reports the error
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

// start starts the postmaster and waits until it accepts sessions. The first start chooses a port; later ones keep it.
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
		releasePort(port)
	}
	return failed
}

func (s *Server) startOnce() error {
	if s.current() != nil {
		return errors.New("the server is already running")
	}
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "",
		"fsync":                   "on",
		"synchronous_commit":      "on",
		// Shared memory as files in the data folder is removed with it, also after SIGKILL.
		"dynamic_shared_memory_type": "mmap",
		"log_line_prefix":            "%m [%p] %q%a ",
		"logging_collector":          "off",
	}
	maps.Copy(settings, s.settings)
	args := []string{"-D", s.Dir()}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	env := environment(s.programs.libraries)
	if s.preload != "" {
		env = append(env, "LD_PRELOAD="+s.preload)
	}
	p, err := launch(command{
		path: filepath.Join(s.programs.bin, "postgres"), args: args, env: env,
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

// ready waits until the server accepts a session. It compares the data folder, because a server of another test that
// took the port first would accept a session too.
func (s *Server) ready(p *process) error {
	ctx, cancel := background()
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			var folder string
			err = errors.Join(c.QueryRow(ctx, "select current_setting('data_directory')").Scan(&folder), c.Close(ctx))
			if err == nil && folder == s.Dir() {
				return nil
			}
		}
		if p.hasEnded(5 * time.Millisecond) {
			return fmt.Errorf("postgres ended with code %s:\n%s", p.code, tail(s.Log(), 20))
		}
		if ctx.Err() != nil {
			return fmt.Errorf("postgres did not accept a session within %v: %w\n%s", startLimit, err, tail(s.Log(), 20))
		}
	}
}

// Close stops the server and removes its data.
func (s *Server) Close() error {
	if s.url != "" {
		return nil
	}
	defer releasePort(s.port)
	var err error
	if p := s.current(); p != nil {
		// A paused process does not receive other signals.
		err = errors.Join(p.sendAll(resume), p.end(quit))
		if err != nil && s.current() != nil {
			err = errors.Join(err, p.sendAll(killed))
		}
	} else {
		s.removeSegment()
	}
	return errors.Join(err, os.RemoveAll(s.folder))
}

// removeSegment removes the System V shared memory that a killed postmaster leaves behind. Its id is in the seventh
// line of postmaster.pid, which a killed postmaster leaves behind too.
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
		// What is left behind is 56 bytes, so a machine without ipcrm is acceptable.
		_ = exec.Command("ipcrm", "-m", fields[1]).Run()
	}
}

// exec runs one statement as the superuser in the database postgres, or in the database of ES_TEST_POSTGRES.
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

// session connects, calls work and disconnects. It does not use the test's context, which may have ended.
func session(url string, work func(ctx context.Context, c *pgx.Conn) error) error {
	ctx, cancel := background()
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	return errors.Join(work(ctx, c), c.Close(ctx))
}

// logOnFailure logs what the server wrote during a test that failed.
func (s *Server) logOnFailure(t testing.TB) {
	if s.url != "" {
		return
	}
	before := len(s.Log())
	t.Cleanup(func() {
		if t.Failed() {
			log := s.Log()
			t.Logf("log of PostgreSQL %s:\n%s", s.version, tail(log[min(before, len(log)):], 100))
		}
	})
}

// closeAfter closes the server at the end of the test.
func closeAfter(t testing.TB, s *Server) {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("testserver: close: %v", err)
		}
	})
	s.logOnFailure(t)
}
