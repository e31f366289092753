package postgres_test

import (
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/internal/testserver"
)

func TestLog(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		estest.TestLog(t, func(t *testing.T) func() es.Log {
			url := server.Database(t)
			return func() es.Log { return open(t, url) }
		})
	})
}
