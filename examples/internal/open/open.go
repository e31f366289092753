// Package open turns the -store flag of the examples into a store. It is the one line in which the environments differ.
package open

import (
	"context"
	"strings"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

// Log opens a store: "mem:" for one in memory, otherwise a SQLite file. The caller calls the function that comes with it at the end.
func Log(_ context.Context, where string) (es.Log, func() error, error) {
	if strings.HasPrefix(where, "mem:") {
		return new(es.Mem), func() error { return nil }, nil
	}
	store, err := sqlite.Open(strings.TrimPrefix(where, "sqlite:"))
	if err != nil {
		return nil, nil, err
	}
	return store, store.Close, nil
}
