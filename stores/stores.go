// Package stores opens a store of any kind by its URL. It links the drivers of both databases: a program that has one database needs
// package sqlite or postgres alone.
package stores

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/scheme"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// Usage describes a URL of [Open], for the flag of a program.
const Usage = "where to store the events: a SQLite file, mem: for memory, or postgres://user@host/database"

// Config holds the settings of [Config.Open]. Its zero value is what the function [Open] uses.
type Config struct {
	// Logger receives what no error reports, such as that Open waits for the server of Postgres. nil discards.
	Logger *slog.Logger
}

// Open opens the store that a URL names:
//
//	mem:                              SQLite in memory, which Close discards
//	bank.db, sqlite:bank.db           a file of SQLite; its folder must exist
//	postgres://user@host/database     Postgres; Open waits for the server until ctx is done
//
// Any other scheme is refused with an error that wraps [es.ErrInvalid] and does not have the rest of the URL, such as a password.
func Open(ctx context.Context, url string) (projection.Database, error) {
	return Config{}.Open(ctx, url)
}

// Open is like the function [Open], with settings.
func (c Config) Open(ctx context.Context, url string) (projection.Database, error) {
	switch {
	case url == "mem:":
		return openSQLite(":memory:")
	case strings.HasPrefix(url, "postgres:"), strings.HasPrefix(url, "postgresql:"):
		store, err := postgres.Config{Logger: c.Logger}.Open(ctx, url)
		if err != nil {
			return nil, err
		}
		return store.SQL(), nil
	case strings.HasPrefix(url, "mem:"):
		return nil, fmt.Errorf("stores: %w: memory has no name: give mem: alone", es.ErrInvalid)
	}
	path := strings.TrimPrefix(url, "sqlite:")
	if err := scheme.Refuse(path, "the path of a SQLite file, mem: for memory, or a URL of postgres:// or postgresql://"); err != nil {
		return nil, fmt.Errorf("stores: %w: %w", es.ErrInvalid, err)
	}
	return openSQLite(path)
}

func openSQLite(path string) (projection.Database, error) {
	store, err := sqlite.Open(path)
	if err != nil {
		return nil, err
	}
	return store.SQL(), nil
}
