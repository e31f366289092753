package bench_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// consumed returns the number of records that the benchmarks of consumers read.
func consumed() int { return few(50_000, 1000) }

// BenchmarkConsumer reads a topic with a new group and a handler that does nothing, against a bare consumer that does not decode. An
// operation is the whole topic, and includes joining the group on both sides.
func BenchmarkConsumer(b *testing.B) {
	eachBroker(b, func(b *testing.B, c cluster) {
		records := consumed()
		c.publish(b, records, kafka.CloudEvents)
		ours := measure.Side{Name: "Consumer", Callers: 1, Units: records, Op: func(ctx context.Context, _ int) error {
			return consume(ctx, c, records)
		}}
		theirs := measure.Side{Name: "bare consumer", Callers: 1, Units: records, Op: func(ctx context.Context, _ int) error {
			return c.join(ctx, records)
		}}
		compare(b, nil, ours, rival{"bare", theirs})
	})
}

// join reads the topic with a new group and the bare client.
func (c cluster) join(ctx context.Context, records int) (err error) {
	reader, err := confluent.NewConsumer(c.reading("bench-" + rand.Text()[:8]))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	if err := reader.Subscribe(c.topic(), nil); err != nil {
		return err
	}
	return readAll(ctx, reader, records, func(*confluent.Message) {})
}

// bare returns a rival that only reads.
func (c cluster) bare(b *testing.B, records int) rival {
	reader := c.reader(b)
	return rival{"bare", measure.Side{Name: "bare consumer", Callers: 1, Units: records, Op: func(ctx context.Context, _ int) error {
		if err := c.rewind(reader); err != nil {
			return err
		}
		return readAll(ctx, reader, records, func(*confluent.Message) {})
	}}}
}

func consume(ctx context.Context, c cluster, records int) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	var left atomic.Int64
	left.Store(int64(records))
	consumer := &kafka.Consumer{Cluster: kafka.Cluster{Config: c.config()}, Group: "bench-" + rand.Text()[:8], Topics: []string{c.topic()}}
	err := consumer.Run(running, func(context.Context, es.Record) error {
		if left.Add(-1) == 0 {
			cancel()
		}
		return nil
	})
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return nil
	}
	return err
}

// BenchmarkSource builds a read model from a topic with exactly-once delivery, against a bare consumer that only reads. An operation is the
// whole topic.
func BenchmarkSource(b *testing.B) {
	eachBroker(b, func(b *testing.B, c cluster) {
		records := consumed()
		c.publish(b, records, kafka.CloudEvents)
		for _, s := range models() {
			b.Run("model="+s.name, func(b *testing.B) {
				model := s.open(b, c.source(b))
				ours := work.Rebuilds("Source", model.count, records, model.build)
				compare(b, model.server, ours, c.bare(b, records))
			})
		}
	})
}

func (c cluster) source(b *testing.B) projection.Source {
	b.Helper()
	source, err := kafka.SourceConfig{Cluster: kafka.Cluster{Config: c.config()}, Topics: []string{c.topic()}}.Open(b.Context())
	check(b, err)
	b.Cleanup(func() { check(b, source.Close()) })
	return source
}

// A model is a read model in its own database that a source feeds.
type model struct {
	count   work.ReadModel
	server  func() time.Duration
	build   func(ctx context.Context) error                                       // rebuilds the whole read model
	project func(ctx context.Context, progress func(p projection.Progress)) error // runs until the context ends
}

type modelKind struct {
	name string
	open func(b *testing.B, source projection.Source) model
}

func models() []modelKind {
	all := []modelKind{{"sqlite", sqliteModel}}
	if servers.pg != nil {
		all = append(all, modelKind{"postgres", postgresModel})
	}
	return all
}

func sqliteModel(b *testing.B, source projection.Source) model {
	path := filepath.Join(b.TempDir(), "model.db")
	store, err := sqlite.Open(path)
	check(b, err)
	b.Cleanup(func() { check(b, store.Close()) })
	db, err := sql.Open("sqlite3", "file:"+path+"?_query_only=true&_busy_timeout=10000")
	check(b, err)
	b.Cleanup(func() { check(b, db.Close()) })
	p := sqlite.Projection{Name: "sums", Source: source, Prepare: work.PrepareSQLite, Handle: work.SQLiteSums(false)}
	return model{work.SQLiteModel{DB: db}, nil, work.Projecting(store.Project, p), func(ctx context.Context, progress func(projection.Progress)) error {
		p.OnProgress = progress
		return store.Project(ctx, p)
	}}
}

func postgresModel(b *testing.B, source projection.Source) model {
	bed := openPostgres(b)
	store := bed.log.(*postgres.Store)
	p := postgres.Projection{Name: "sums", Source: source, Prepare: work.PreparePostgres, Handle: work.PostgresSums(false)}
	return model{bed.plain.(work.ReadModel), bed.server, work.Projecting(store.Project, p), func(ctx context.Context, progress func(projection.Progress)) error {
		p.OnProgress = progress
		return store.Project(ctx, p)
	}}
}

// BenchmarkEndToEnd measures the delay from the return of Execute to the commit of the read model in another service's database. The events
// pass through a relay, a topic and a source, one command at a time.
func BenchmarkEndToEnd(b *testing.B) {
	eachBroker(b, func(b *testing.B, c cluster) {
		for _, s := range models() {
			b.Run("store="+s.name+"/model="+s.name, func(b *testing.B) {
				c := c
				c.prefix += "-" + s.name
				endToEnd(b, c, s)
			})
		}
	})
}

func endToEnd(b *testing.B, c cluster, s modelKind) {
	opener := map[string]func(*testing.B) bed{"sqlite": openSQLite, "postgres": openPostgres}[s.name]
	store := opener(b)
	accounts := work.NewRepo(store)
	_, err := accounts.Execute(b.Context(), "a", account.Open{Owner: "Ada"})
	check(b, err)
	check(b, published(b.Context(), c.relay(b, store, kafka.CloudEvents), 1))
	ctx, cancel := context.WithCancel(b.Context())
	applied, ended := make(chan time.Time, 1), make(chan error, 1)
	model := s.open(b, c.source(b))
	go func() {
		ended <- model.project(ctx, func(p projection.Progress) {
			if p.Records > 0 {
				applied <- time.Now()
			}
		})
	}()
	defer func() {
		cancel()
		<-ended //nolint:errcheck // the error of the context that has just ended
	}()
	next := func() time.Time {
		select {
		case at := <-applied:
			return at
		case err := <-ended:
			b.Fatal(err)
		}
		return time.Time{}
	}
	next() // the opening of the account
	var delays []time.Duration
	for b.Loop() {
		_, err := accounts.Execute(ctx, "a", account.Deposit{Amount: 1})
		check(b, err)
		returned := time.Now()
		delays = append(delays, max(0, next().Sub(returned)))
	}
	reportDelays(b, delays)
}
