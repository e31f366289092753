// Package open opens the store that the -store flag of the examples names.
package open

import (
	"context"
	"log/slog"
	"strings"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/scheme"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sqlite"
)

// Usage describes the argument of Log.
const Usage = "where to store the events: a SQLite file, mem: for memory, or postgres://user@host/database"

// Log opens a store: "mem:" is in memory, a postgres:// URL is a database, and anything else is a SQLite file, except that other URLs are refused.
// The returned function closes it.
func Log(ctx context.Context, where string) (es.Log, func() error, error) {
	switch {
	case strings.HasPrefix(where, "mem:"):
		return new(es.Mem), func() error { return nil }, nil
	case strings.HasPrefix(where, "postgres:"), strings.HasPrefix(where, "postgresql:"):
		store, err := postgres.Config{Logger: slog.Default()}.Open(ctx, where) // it says what it waits for
		if err != nil {
			return nil, nil, err
		}
		return store, store.Close, nil
	}
	path := strings.TrimPrefix(where, "sqlite:")
	if err := scheme.Refuse(path, "the path of a SQLite file, mem: for memory, or a URL of postgres:// or postgresql://"); err != nil {
		return nil, nil, err
	}
	store, err := sqlite.Open(path)
	if err != nil {
		return nil, nil, err
	}
	return store, store.Close, nil
}
