package sqlite_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/counted"
	"github.com/thalo-go/es/sqlite"
)

func TestStats(t *testing.T) {
	refuse := sqlite.Projection{Name: "refuses", Handle: func(_ context.Context, _ *sql.Tx, records []es.Record) error { return counted.Refuse(records) }}
	s, err := sqlite.Config{Inline: []sqlite.Projection{refuse}}.Open(filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	counted.Test(t, s)
}
