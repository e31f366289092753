// Package server has the servers on which stores are measured: those that variables of the environment name, or private ones.
package server

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/internal/test/testserver"
)

// settings are those of the private server. What makes commits durable is as the release has it: fsync and synchronous_commit are on.
var settings = map[string]string{"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "200"}

// Postgres is a server of which each measurement takes a database of its own.
type Postgres struct {
	url       string
	databases atomic.Int64
	private   *testserver.Server // nil if it is somebody else's
}

// StartPostgres returns the server that ES_TEST_POSTGRES names, or starts a private one, which ends with Close or with the program.
func StartPostgres() (*Postgres, error) {
	if url := os.Getenv("ES_TEST_POSTGRES"); url != "" {
		return &Postgres{url: url}, nil
	}
	private, err := testserver.Launch(testserver.PostgresOptions{Settings: settings})
	if err != nil {
		return nil, fmt.Errorf("a private Postgres cannot be started (or name one in ES_TEST_POSTGRES): %w", err)
	}
	return &Postgres{url: private.URL("postgres"), private: private}, nil
}

// Close ends a private server.
func (p *Postgres) Close() error {
	if p.private == nil {
		return nil
	}
	return p.private.Close()
}

// CPU is the time of processors that a private server has used so far, all its processes together. It is 0 if that cannot be known.
func (p *Postgres) CPU() time.Duration {
	if p.private == nil {
		return 0
	}
	return measure.CPUOf(p.private.PID())
}

// Version is the release of the server: 18.1.
func (p *Postgres) Version(ctx context.Context) (version string, err error) {
	conn, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return "", err
	}
	err = conn.QueryRow(ctx, "select current_setting('server_version')").Scan(&version)
	return version, errors.Join(err, conn.Close(ctx))
}

// Database makes an empty database, and a function that drops it, whoever is still connected.
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

// in names another database of the same server. Both forms of connection strings are known, a URL and keywords, of which the last one counts.
func in(server, database string) string {
	if !strings.HasPrefix(server, "postgres://") && !strings.HasPrefix(server, "postgresql://") {
		return server + " dbname=" + database
	}
	u, err := url.Parse(server)
	if err != nil {
		return server // pgx has connected with it, so this cannot be
	}
	u.Path = "/" + database
	return u.String()
}
