package limits_test

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers{m}) }

// servers stops the servers before goleak checks for leaks.
type servers struct{ m *testing.M }

func (s servers) Run() int { return testserver.Run(s.m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openSQLite(t testing.TB) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(filepath.Join(t.TempDir(), "es.db"))
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func openPostgres(t testing.TB) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), testserver.Postgres(t, testserver.Postgres18).Database(t))
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// stores runs a test on each backend.
func stores(t *testing.T, test func(t *testing.T, log es.Log)) {
	t.Helper()
	t.Run("Mem", func(t *testing.T) { test(t, new(es.Mem)) })
	t.Run("SQLite", func(t *testing.T) { test(t, openSQLite(t)) })
	t.Run("Postgres", func(t *testing.T) { test(t, openPostgres(t)) })
}
