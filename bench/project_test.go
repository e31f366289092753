package bench_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// BenchmarkRebuild measures the build of a count-and-sum read model of a whole log. An operation is one rebuild.
func BenchmarkRebuild(b *testing.B) {
	const records = 10_000
	eachDurable(b, func(b *testing.B, s backend) {
		for _, upserts := range []string{"batch", "record"} {
			b.Run(fmt.Sprintf("records=%d/upsert-per=%s", records, upserts), func(b *testing.B) {
				rebuild(b, s.open(b), few(records, 1000), upserts == "record")
			})
		}
	})
}

func rebuild(b *testing.B, s bed, records int, each bool) {
	check(b, work.FillAccounts(b.Context(), s, records/10, 10))
	var ours, theirs measure.Side
	switch plain := s.plain.(type) {
	case *baseline.SQLite:
		check(b, work.FillPlain(b.Context(), plain.Insert, records/10, 10))
		path, _ := cutPlace(s.place, sqlitePlace)
		db, err := sql.Open("sqlite3", "file:"+path+"?_query_only=true&_busy_timeout=10000")
		check(b, err)
		b.Cleanup(func() { check(b, db.Close()) })
		ours = work.Rebuilds("Project", work.SQLiteModel{DB: db}, records, projecting(s, each))
		theirs = work.Rebuilds("bare loop", plain, records, func(ctx context.Context) error {
			return plain.Project(ctx, 1000, work.PrepareSQLite, work.SQLiteSums(each))
		})
	case *baseline.Postgres:
		check(b, work.FillPlain(b.Context(), plain.Copy, records/10, 10))
		ours = work.Rebuilds("Project", plain, records, projecting(s, each))
		theirs = work.Rebuilds("bare loop", plain, records, func(ctx context.Context) error {
			return plain.Project(ctx, 1000, work.PreparePostgres, work.PostgresSums(each))
		})
	}
	compare(b, s.server, ours, rival{"bare", theirs})
}

func projecting(s bed, each bool) func(context.Context) error {
	switch store := s.log.(type) {
	case *sqlite.Store:
		return work.Projecting(store.Project, sqlite.Projection{Name: "sums", Prepare: work.PrepareSQLite, Handle: work.SQLiteSums(each)})
	case *postgres.Store:
		return work.Projecting(store.Project, postgres.Projection{Name: "sums", Prepare: work.PreparePostgres, Handle: work.PostgresSums(each)})
	}
	return nil
}

// BenchmarkRebuildShards measures the same with one upsert per batch, in several partitions that share reads of the log. In the rival apart
// each partition reads the log separately.
func BenchmarkRebuildShards(b *testing.B) {
	records := few(50_000, 1000)
	eachDurable(b, func(b *testing.B, s backend) {
		for _, shards := range []int{1, 2, 4, 8} {
			b.Run(fmt.Sprintf("records=%d/shards=%d", records, shards), func(b *testing.B) { rebuildShards(b, s.open(b), records, shards) })
		}
	})
}

func rebuildShards(b *testing.B, s bed, records, shards int) {
	check(b, work.FillAccounts(b.Context(), s, records/10, 10))
	side := func(what string, source func() projection.Source) measure.Side {
		switch store := s.log.(type) {
		case *sqlite.Store:
			path, _ := cutPlace(s.place, sqlitePlace)
			db, err := sql.Open("sqlite3", "file:"+path+"?_query_only=true&_busy_timeout=10000")
			check(b, err)
			b.Cleanup(func() { check(b, db.Close()) })
			p := sqlite.Projection{Name: what, Source: source(), Partitions: shards, Prepare: work.PrepareSQLite, Handle: work.SQLiteSums(false)}
			return work.Rebuilds(what, work.SQLiteModel{DB: db}, records, work.Projecting(store.Project, p))
		case *postgres.Store:
			p := postgres.Projection{Name: what, Source: source(), Partitions: shards, Prepare: work.PreparePostgres, Handle: work.PostgresSums(false)}
			return work.Rebuilds(what, s.plain.(*baseline.Postgres), records, work.Projecting(store.Project, p))
		}
		return measure.Side{}
	}
	compare(b, s.server, side("together", func() projection.Source { return projection.FromLog(s.log) }), rival{"apart", side("apart", func() projection.Source { return apart{projection.FromLog(s.log), s.log} })})
}

// apart is a source whose feeds do not share reads of the log.
type apart struct {
	projection.Source
	log es.Log
}

func (a apart) Feed(ctx context.Context, shard string, after projection.Cursor, filter es.Filter) (projection.Feed, error) {
	return projection.FromLog(a.log).Feed(ctx, shard, after, filter)
}

// BenchmarkProject measures the delay from the return of Append to the commit of the read model by another store value, one event at a time.
func BenchmarkProject(b *testing.B) {
	eachDurable(b, func(b *testing.B, s backend) {
		bed := s.open(b)
		projectOne(b, bed, bed.again(b))
	})
}

func projectOne(b *testing.B, writer es.Store, reader log) {
	ctx, cancel := context.WithCancel(b.Context())
	committed, ended := make(chan time.Time, 1), make(chan error, 1)
	progress := func(p projection.Progress) {
		if p.Records > 0 {
			committed <- time.Now()
		}
	}
	go func() {
		switch store := reader.(type) {
		case *sqlite.Store:
			ended <- store.Project(ctx, sqlite.Projection{Name: "sums", Prepare: work.PrepareSQLite, Handle: work.SQLiteSums(false), OnProgress: progress})
		case *postgres.Store:
			ended <- store.Project(ctx, postgres.Projection{Name: "sums", Prepare: work.PreparePostgres, Handle: work.PostgresSums(false), OnProgress: progress})
		}
	}()
	defer func() {
		cancel()
		<-ended //nolint:errcheck // the error of the context that has just ended
	}()
	history, err := work.History(2)
	check(b, err)
	to, stream := work.To(writer), es.Stream{Kind: "account", ID: "a"}
	var delays []time.Duration
	for b.Loop() {
		check(b, to(ctx, stream, es.Version(len(delays)), history[1:]))
		returned := time.Now()
		select {
		case at := <-committed:
			delays = append(delays, max(0, at.Sub(returned)))
		case err := <-ended:
			b.Fatal(err)
		}
	}
	b.ReportMetric(ms(measure.Percentile(delays, 50)), "p50-ms")
	b.ReportMetric(ms(measure.Percentile(delays, 99)), "p99-ms")
}
