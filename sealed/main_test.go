package sealed_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the drivers
	_ "github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/sealed"
)

func TestMain(m *testing.M) { os.Exit(testserver.Run(m)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var master = [32]byte{1, 2, 3}

// keyDatabase is a database for keys.
type keyDatabase struct{ driver, name string }

func (d keyDatabase) connect(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open(d.driver, d.name)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func (d keyDatabase) keys(t testing.TB) sealed.Keys {
	t.Helper()
	keys, err := sealed.SQLKeys(t.Context(), d.connect(t), master)
	must(t, err)
	return keys
}

func sqliteKeys(t testing.TB) keyDatabase {
	return keyDatabase{"sqlite3", filepath.Join(t.TempDir(), "keys.db") + "?_journal_mode=wal&_busy_timeout=60000"}
}

// databases runs a test on an empty database of each kind.
func databases(t *testing.T, test func(t *testing.T, d keyDatabase)) {
	t.Run("SQLite", func(t *testing.T) { test(t, sqliteKeys(t)) })
	t.Run("Postgres", func(t *testing.T) {
		test(t, keyDatabase{"pgx", testserver.Postgres(t, testserver.Postgres18).Database(t)})
	})
	t.Run("Postgres, serializable by default", func(t *testing.T) {
		test(t, keyDatabase{"pgx", testserver.Postgres(t, testserver.Postgres14).Database(t) + "&default_transaction_isolation=serializable"})
	})
}
