package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// Three stores on three servers publish to one topic, which feeds one read model. Each server is killed in turn: the records of the others
// arrive in that time, and in the end those of all are there, once and in order.
func TestStoresOnSeveralServersFeedOneReadModel(t *testing.T) {
	if testing.Short() {
		t.Skip("short mode: needs servers of its own")
	}
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{})
	cluster := kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": b.Bootstrap}}
	const n = 3
	var servers [n]*testserver.Server
	var stores [n]*postgres.Store
	var ids []string
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, n+1)
	for i := range n {
		servers[i] = testserver.StartPostgres(t, testserver.PostgresOptions{})
		var err error
		if stores[i], err = postgres.Open(t.Context(), servers[i].Database(t)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stores[i].Close() })
		ids = append(ids, stores[i].ID())
		relay := &kafka.Relay{Cluster: cluster, Log: stores[i], Leases: stores[i], Prefix: b.Prefix, Topics: kafka.Topics{Partitions: 4}}
		go func() { ended <- relay.Run(ctx) }()
	}

	versions := make(map[string]es.Version) // of what was acknowledged
	write := func(i int) {
		t.Helper()
		for _, name := range []string{"a", "b", "c", "d"} {
			stream := es.Stream{Kind: "account", ID: fmt.Sprint(name, i)}
			a := es.Append{Stream: stream, Expected: versions[stream.ID], Events: []es.Record{{Type: "added"}, {Type: "added"}}}
			for {
				_, err := stores[i].Append(t.Context(), a)
				if err == nil {
					break
				}
				if !errors.Is(err, es.ErrUnavailable) {
					t.Fatal(err)
				}
			}
			versions[stream.ID] += 2
		}
	}
	for i := range n {
		write(i)
	}

	model, err := sqlite.Open(filepath.Join(t.TempDir(), "model.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = model.Close() })
	var source *kafka.Source
	eventually(t, "the topic exists", func() bool {
		source, err = kafka.SourceConfig{Cluster: cluster, Topics: []string{b.Prefix + ".account"}, Stores: ids}.Open(t.Context())
		return err == nil
	})
	t.Cleanup(func() { _ = source.Close() })
	db := model.SQL()
	go func() {
		ended <- db.Project(ctx, projection.SQLProjection{
			Name: "last", Source: source,
			Prepare: func(ctx context.Context, tx projection.SQL) error {
				_, err := tx.Exec(ctx, "create table last (id text primary key, version bigint not null)")
				return err
			},
			Handle: func(ctx context.Context, tx projection.SQL, records []es.Record) error {
				for _, r := range records {
					changed, err := tx.Exec(ctx, "insert into last select $1, $2 where $2 = 1 or exists (select 1 from last where id = $1) on conflict (id) do update set version = excluded.version where last.version = excluded.version - 1",
						r.Stream.ID, r.Version)
					if err == nil && changed != 1 {
						err = fmt.Errorf("%s is not the next of its stream", r.ID())
					}
					if err != nil {
						return err
					}
				}
				return nil
			},
		})
	}()
	arrives := func(what string) {
		t.Helper()
		for id, version := range versions {
			eventually(t, fmt.Sprintf("%s: %s is at version %d", what, id, version), func() bool {
				if len(ended) > 0 {
					t.Fatalf("%s: a relay or the projection has ended: %v", what, <-ended)
				}
				var at es.Version
				err := db.QueryRow(t.Context(), "select version from last where id = $1", id).Scan(&at)
				return err == nil && at == version
			})
		}
	}
	arrives("all run")
	for down := range n {
		servers[down].Kill(t)
		for i := range n {
			if i != down {
				write(i)
			}
		}
		arrives(fmt.Sprintf("server %d is down", down))
		servers[down].Start(t)
		write(down)
		arrives(fmt.Sprintf("server %d is back", down))
	}
	end()
	for range n + 1 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
