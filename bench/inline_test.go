package bench_test

import (
	"path/filepath"
	"testing"

	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sqlite"
)

// BenchmarkInline measures writers that append one event at a time to a log with an inline projection, against the same log without it. The
// projection upserts a row for each account of a batch.
func BenchmarkInline(b *testing.B) {
	eachDurable(b, func(b *testing.B, s backend) {
		callers(b, "writers", []int{1, 128}, func(b *testing.B, writers int) {
			bed := s.open(b)
			inline := inlined(b, s.name)
			compare(b, bed.server, work.Appends("inline", work.To(inline), writers, 1, payload),
				rival{"without", work.Appends("without", work.To(bed), writers, 1, payload)})
		})
	})
}

// inlined opens a log with an inline projection in a new database.
func inlined(b *testing.B, backend string) log {
	b.Helper()
	var store log
	var err error
	if backend == "sqlite" {
		store, err = sqlite.Config{Inline: []sqlite.Projection{
			{Name: "sums", Prepare: work.PrepareSQLite, Handle: work.SQLiteSums(false)},
		}}.Open(filepath.Join(b.TempDir(), "inline.db"))
	} else {
		url, drop, failed := servers.pg.Database(b.Context())
		check(b, failed)
		b.Cleanup(func() { check(b, drop()) })
		store, err = postgres.Config{Inline: []postgres.Projection{
			{Name: "sums", Prepare: work.PreparePostgres, Handle: work.PostgresSums(false)},
		}}.Open(b.Context(), url)
	}
	check(b, err)
	b.Cleanup(func() { check(b, store.Close()) })
	return store
}
