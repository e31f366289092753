package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Version is a release of PostgreSQL.
type Version string

const (
	Postgres14 Version = "14.20.0" // the oldest that is supported
	Postgres18 Version = "18.1.0"  // the newest

	// System is the release that the operating system packages (15 on Debian 12), the only one that comes with pg_dump and
	// the other programs of Tool, which as a rule serve no server newer than themselves.
	System Version = "system"

	external Version = "external" // what ES_TEST_POSTGRES names
)

// Each runs a test on a shared server of the oldest and of the newest release, one after the other; on the one server that
// ES_TEST_POSTGRES names, if it does.
func Each(t *testing.T, test func(t *testing.T, server *Server)) {
	if os.Getenv("ES_TEST_POSTGRES") != "" {
		test(t, Postgres(t, Postgres18))
		return
	}
	for _, version := range []Version{Postgres14, Postgres18} {
		t.Run(fmt.Sprintf("postgres %.2s", version), func(t *testing.T) { test(t, Postgres(t, version)) })
	}
}

// Postgres returns the server of this version that the tests of a process share. It cannot be stopped; every test takes a
// Database of its own on it. If ES_TEST_POSTGRES is set, it is that server whatever the version.
func Postgres(t testing.TB, version Version) *Server {
	t.Helper()
	skipShort(t)
	if os.Getenv("ES_TEST_POSTGRES") != "" {
		version = external
	}
	s, err := shared.get(version)
	if err != nil {
		fault(t, err)
	}
	s.logOnFailure(t)
	return s
}

// PostgresOptions describe a server of a test's own.
type PostgresOptions struct {
	Version  Version           // Postgres18 if empty
	Settings map[string]string // over the defaults of the release, as on the server's command line: "max_connections": "20"

	// Scram makes the server ask for passwords, as a production server does. Otherwise it trusts any local connection
	// to be whom it says, so that a role made by a test can log in at once.
	Scram bool
}

// StartPostgres starts a server that only this test uses and may stop, kill or fill. It is gone when the test ends.
func StartPostgres(t testing.TB, options PostgresOptions) *Server {
	t.Helper()
	skipShort(t)
	if os.Getenv("ES_TEST_POSTGRES") != "" {
		fault(t, &unavailableError{errors.New("this test stops its server, and ES_TEST_POSTGRES names one that is not ours to stop: run it without")})
	}
	s, err := Launch(options)
	if err != nil {
		fault(t, err)
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

// Run runs the tests of a package and then stops the servers they share. Without it they are stopped as well, a little after
// the process has ended.
func Run(m *testing.M) int {
	defer shared.close()
	defer sharedKafka.close()
	return m.Run()
}

// shared are the servers that Postgres has started.
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
		// Twice the default, as tests run in parallel.
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

// connectExternal makes a Server of one that is there already.
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

// An unavailableError says that a server cannot be had here, which is no fault of the test.
type unavailableError struct{ err error }

func (e *unavailableError) Error() string { return e.err.Error() }
func (e *unavailableError) Unwrap() error { return e.err }

// fault ends a test whose server cannot be had: it is skipped, unless this is a place where all tests must run.
func fault(t testing.TB, err error) {
	t.Helper()
	if unavailable := (*unavailableError)(nil); errors.As(err, &unavailable) && !required() {
		t.Skipf("no server for this test: %v", err)
	}
	t.Fatalf("no server for this test: %v", err)
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

// startLimit is how long a server may take to answer: after a kill it recovers first, and the machine may be busy.
const startLimit = 5 * time.Minute

// background returns a context for work that must be done although the test's own context has ended.
func background() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), startLimit)
}
