// Package open turns the -store flag of the examples into a store. It is the one line in which the environments differ.
package open

import (
	"context"
	"strings"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/scheme"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sqlite"
)

// Usage says what Log takes.
const Usage = "where the events are kept: a SQLite file, mem: for memory, or postgres://user@host/database"

// Log opens a store: "mem:" for one in memory, a postgres:// URL, otherwise a SQLite file; any other URL is refused. The function that comes with it closes it.
func Log(ctx context.Context, where string) (es.Log, func() error, error) {
	switch {
	case strings.HasPrefix(where, "mem:"):
		return new(es.Mem), func() error { return nil }, nil
	case strings.HasPrefix(where, "postgres:"), strings.HasPrefix(where, "postgresql:"):
		store, err := postgres.Open(ctx, where)
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
