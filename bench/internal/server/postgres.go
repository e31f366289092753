// Package server has the servers for measurements: those that environment variables name, or private ones.
package server

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/internal/test/testserver"
)

// settings are the settings of the private server. The defaults that make commits durable are kept: fsync and synchronous_commit are on.
var settings = map[string]string{"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "200"}

// Postgres is a server on which each measurement has its own database.
type Postgres struct {
	url       string
	databases atomic.Int64
	private   *testserver.Server // nil for a server that ES_TEST_POSTGRES names
}

// StartPostgres returns the server that ES_TEST_POSTGRES names, or starts a private one. Close or the end
// of the program stops a private server.
func StartPostgres() (*Postgres, error) {
	if url := os.Getenv("ES_TEST_POSTGRES"); url != "" {
		return &Postgres{url: url}, nil
	}
	private, err := testserver.Launch(testserver.PostgresOptions{Settings: settings})
	if err != nil {
		return nil, fmt.Errorf("start a private Postgres: %w; or set ES_TEST_POSTGRES", err)
	}
	return &Postgres{url: private.URL("postgres"), private: private}, nil
}

// Close stops a private server.
func (p *Postgres) Close() error {
	if p.private == nil {
		return nil
	}
	return p.private.Close()
}

//go:embed preload/slow.c
var slow []byte

// StartSlowPostgres starts a private server whose disk is slower: each flush of a file takes a given time longer. The library that slows
// it is compiled in a folder, with the C compiler cc. Linux only.
func StartSlowPostgres(ctx context.Context, folder string, flush time.Duration) (*Postgres, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("a slow disk needs LD_PRELOAD, which %s does not have: measure on Linux", runtime.GOOS)
	}
	source, library := filepath.Join(folder, "slow.c"), filepath.Join(folder, "slow.so")
	if err := os.WriteFile(source, slow, 0o600); err != nil {
		return nil, err
	}
	cc := exec.CommandContext(ctx, "cc", "-O2", "-shared", "-fPIC", fmt.Sprintf("-DDELAY=%d", flush.Microseconds()), "-o", library, source, "-ldl")
	if out, err := cc.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the library that slows the disk: %w: %s", err, out)
	}
	if err := errors.Join(os.Chmod(folder, 0o755), os.Chmod(library, 0o755)); err != nil { // the server runs as another user
		return nil, err
	}
	private, err := testserver.Launch(testserver.PostgresOptions{Settings: settings, Preload: library})
	if err != nil {
		return nil, fmt.Errorf("start a private Postgres on a slow disk: %w", err)
	}
	return &Postgres{url: private.URL("postgres"), private: private}, nil
}

// CPU returns the CPU time of all processes of a private server so far. It returns 0 if the time is not known.
func (p *Postgres) CPU() time.Duration {
	if p.private == nil {
		return 0
	}
	return measure.CPUOf(p.private.PID())
}

// Version returns the release of the server, such as 18.1.
func (p *Postgres) Version(ctx context.Context) (version string, err error) {
	conn, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return "", err
	}
	err = conn.QueryRow(ctx, "select current_setting('server_version')").Scan(&version)
	return version, errors.Join(err, conn.Close(ctx))
}

// Database creates an empty database. drop drops it and closes connections that are still open.
func (p *Postgres) Database(ctx context.Context) (url string, drop func() error, err error) {
	conn, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return "", nil, err
	}
	name := fmt.Sprintf("bench_%d_%d", os.Getpid(), p.databases.Add(1))
	if _, err := conn.Exec(ctx, "create database "+name); err != nil {
		return "", nil, errors.Join(err, conn.Close(ctx))
	}
	return in(p.url, name), func() error {
		ctx := context.WithoutCancel(ctx)
		_, err := conn.Exec(ctx, "drop database "+name+" with (force)")
		return errors.Join(err, conn.Close(ctx))
	}, nil
}

// in returns the connection string of another database of the same server. It accepts both forms of connection strings, URLs and keywords.
// Of several dbname keywords the last one counts.
func in(server, database string) string {
	if !strings.HasPrefix(server, "postgres://") && !strings.HasPrefix(server, "postgresql://") {
		return server + " dbname=" + database
	}
	u, err := url.Parse(server)
	if err != nil {
		return server // impossible, because pgx has connected with it
	}
	u.Path = "/" + database
	return u.String()
}
