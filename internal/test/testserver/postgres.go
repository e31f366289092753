package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Version is a release of PostgreSQL.
type Version string

const (
	Postgres14 Version = "14.20.0" // the oldest supported release
	Postgres18 Version = "18.1.0"  // the newest release

	// System is the release that the operating system packages (15 on Debian 12). Only this one has pg_dump and the
	// other programs of Tool, which usually do not support servers newer than themselves.
	System Version = "system"

	external Version = "external" // the server that ES_TEST_POSTGRES names
)

// Each runs a test on a shared server of the oldest and of the newest release, one after the other, or once on the server
// that ES_TEST_POSTGRES names.
func Each(t *testing.T, test func(t *testing.T, server *Server)) {
	if os.Getenv("ES_TEST_POSTGRES") != "" {
		test(t, Postgres(t, Postgres18))
		return
	}
	for _, version := range []Version{Postgres14, Postgres18} {
		t.Run(fmt.Sprintf("postgres %.2s", version), func(t *testing.T) { test(t, Postgres(t, version)) })
	}
}

// Postgres returns the server of this version that the tests of a process share. It cannot be stopped; every test
// creates a Database on it. If ES_TEST_POSTGRES is set, it is that server, whatever the version.
func Postgres(t testing.TB, version Version) *Server {
	t.Helper()
	skipShort(t)
	if os.Getenv("ES_TEST_POSTGRES") != "" {
		version = external
	}
	s, err := shared.get(version)
	if err != nil {
		skipOrFail(t, err)
	}
	s.logOnFailure(t)
	return s
}

// PostgresOptions are the options of a server.
type PostgresOptions struct {
	Version  Version           // Postgres18 if empty
	Settings map[string]string // override the defaults of the release: "max_connections": "20"

	// Scram makes the server require passwords, as a production server does. Otherwise it trusts every local
	// connection, so that a role created by a test can log in at once.
	Scram bool

	// Preload is the path of a shared library that every process of the server loads first (LD_PRELOAD). "" means none.
	Preload string
}

// StartPostgres starts a server that only this test uses, and may stop, kill or fill. It is closed when the test ends.
func StartPostgres(t testing.TB, options PostgresOptions) *Server {
	t.Helper()
	skipShort(t)
	if os.Getenv("ES_TEST_POSTGRES") != "" {
		skipOrFail(t, &unavailableError{errors.New("this test stops its server, and that of ES_TEST_POSTGRES is not ours to stop: unset it")})
	}
	s, err := Launch(options)
	if err != nil {
		skipOrFail(t, err)
	}
	closeAfter(t, s)
	return s
}

// Launch is StartPostgres for a program that is not a test. The server ends with Close, or with the program.
func Launch(options PostgresOptions) (*Server, error) {
	s, err := create(options)
	if err != nil {
		return nil, err
	}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Run runs the tests of a package and then stops their shared servers. Without Run the servers stop shortly after the
// process has ended.
func Run(m *testing.M) int {
	defer shared.close()
	defer sharedKafka.close()
	return m.Run()
}

// shared holds the servers that Postgres has started.
var shared servers

type servers struct {
	mu      sync.Mutex
	started map[Version]func() (*Server, error)
}

func (s *servers) get(version Version) (*Server, error) {
	s.mu.Lock()
	start, ok := s.started[version]
	if !ok {
		start = sync.OnceValues(func() (*Server, error) { return startShared(version) })
		if s.started == nil {
			s.started = map[Version]func() (*Server, error){}
		}
		s.started[version] = start
	}
	s.mu.Unlock()
	return start()
}

func startShared(version Version) (*Server, error) {
	var s *Server
	var err error
	if version == external {
		s, err = connectExternal(os.Getenv("ES_TEST_POSTGRES"))
	} else {
		// Twice the default, because tests run in parallel.
		s, err = Launch(PostgresOptions{Version: version, Settings: map[string]string{"max_connections": "200"}})
	}
	if err != nil {
		return nil, err
	}
	s.shared = true
	return s, nil
}

func (s *servers) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, started := range s.started {
		if server, err := started(); err == nil {
			if err := server.Close(); err != nil {
				fmt.Fprintln(os.Stderr, "testserver:", err)
			}
		}
	}
	s.started = nil
}

// connectExternal returns a Server for a server that is already running.
func connectExternal(url string) (*Server, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("ES_TEST_POSTGRES: %w", err)
	}
	s := &Server{version: external, url: url, port: int(config.Port)}
	if err := s.exec("select 1"); err != nil {
		return nil, &unavailableError{fmt.Errorf("ES_TEST_POSTGRES: %w", err)}
	}
	return s, nil
}

// An unavailableError reports that a server is not available here, which is not a fault of the test.
type unavailableError struct{ err error }

func (e *unavailableError) Error() string { return e.err.Error() }
func (e *unavailableError) Unwrap() error { return e.err }

// skipOrFail ends a test whose server is unavailable: it skips the test, or fails it if servers are required.
func skipOrFail(t testing.TB, err error) {
	t.Helper()
	if unavailable := (*unavailableError)(nil); errors.As(err, &unavailable) && !required() {
		t.Skipf("no server for this test: %v", err)
	}
	t.Fatalf("no server for this test: %v%s", err, diskFull(err))
}

// diskFull returns a hint if an error, or the server's log in its text, says that there is no disk space: then the machine is
// at fault and not the test.
func diskFull(err error) string {
	if !strings.Contains(err.Error(), "o space left on device") {
		return ""
	}
	return fmt.Sprintf("\nThe disk of %s is full: free space, or set TMPDIR to a folder with more.", os.TempDir())
}

func required() bool {
	for _, name := range []string{"ES_TEST_REQUIRE", "CI"} {
		if is, err := strconv.ParseBool(os.Getenv(name)); err == nil && is {
			return true
		}
	}
	return false
}

func skipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a server: run without -short")
	}
}

// startLimit is how long a server may take to start: after a kill it recovers first, and the machine may be busy.
const startLimit = 5 * time.Minute

// background returns a context that does not depend on the test's context, which may have ended.
func background() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), startLimit)
}
