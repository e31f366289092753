package kafka_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// underLoad relays a log to which records are appended all the time, feeds a read model from the topics, calls happens, and then audits both.
func underLoad(t *testing.T, bootstrap string, prefix string, replication int, happens func(moves func())) {
	t.Helper()
	log := new(es.Mem)
	r := &kafka.Relay{
		Log: log, Leases: log, Prefix: prefix, Topics: kafka.Topics{Partitions: 3, Replication: replication}, Encoding: kafka.Compact, Batch: 500,
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": bootstrap}},
	}
	run := runRelay(t, r)
	run.reaches(fill(t, log, 100))
	model := fedModel(t, bootstrap, prefix+".account", prefix+".transfer")
	stop := load(t, log)
	defer stop()
	happens(func() {
		t.Helper()
		now := r.Stats().Position
		run.reaches(now + 200)
	})
	stop()
	run.reaches(fill(t, log, 1))
	run.mustStop()
	t.Logf("%+v", r.Stats())
	audit(t, bootstrap, prefix, log, es.Filter{})
	model.await(t, int(r.Stats().Position))
}

// fedModel returns a read model in SQLite that is fed from topics until the test ends. It stops with an error at a record that is not the next of its stream.
func fedModel(t *testing.T, bootstrap string, topics ...string) model {
	t.Helper()
	store, _ := openFile(t)
	source := source(t, bank{Broker: testserver.Broker{Bootstrap: bootstrap}}, func(c *kafka.SourceConfig) { c.Topics, c.Logger = topics, nil })
	stop := start(t, func(ctx context.Context) error { return store.Project(ctx, sqliteModel("model", source, nil)) })
	t.Cleanup(func() {
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("the read model ended with %v", err)
		}
	})
	return model{"sqlite", "", func(ctx context.Context) (n int, err error) {
		err = store.DB().QueryRowContext(ctx, sumHeads).Scan(&n)
		return n, err
	}, store.Status}
}

func TestABrokerThatIsRestarted(t *testing.T) {
	t.Run("kafkatest", func(t *testing.T) {
		b := testserver.FakeBroker(t, kafkatest.Options{Folder: t.TempDir()})
		underLoad(t, b.Bootstrap, b.Prefix, 1, func(moves func()) {
			for range 2 {
				moves()
				if err := b.Fake.Restart(); err != nil {
					t.Fatal(err)
				}
				moves()
			}
		})
	})
	t.Run("kafka", func(t *testing.T) {
		b := testserver.RealBroker(t)
		k := testserver.SharedKafka(t, 1)
		t.Cleanup(func() { k.Recover(t) })
		underLoad(t, b.Bootstrap, b.Prefix, 1, func(moves func()) {
			moves()
			k.Stop(t, 1)
			k.Start(t, 1)
			moves()
			k.Kill(t, 1)
			k.Start(t, 1)
			moves()
		})
	})
}

func TestAClusterOfThreeNodes(t *testing.T) {
	k := testserver.SharedKafka(t, 3)
	prefix := func(t *testing.T) string {
		return strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	}
	t.Run("the leader is killed", func(t *testing.T) {
		t.Cleanup(func() { k.Recover(t) })
		underLoad(t, k.Bootstrap(), prefix(t), 3, func(moves func()) {
			moves()
			leader := k.Leader(t, prefix(t)+".account", 0)
			k.Kill(t, leader)
			moves()
			k.Start(t, leader)
			moves()
		})
	})
	t.Run("the coordinator moves", func(t *testing.T) {
		t.Cleanup(func() { k.Recover(t) })
		underLoad(t, k.Bootstrap(), prefix(t), 3, func(moves func()) {
			moves()
			coordinator := k.Coordinator(t, "any") // one partition has them all
			k.Stop(t, coordinator)
			moves()
			k.Start(t, coordinator)
			moves()
		})
	})
	t.Run("the network is cut and healed", func(t *testing.T) {
		bootstrap, proxies := k.Proxies(t)
		underLoad(t, bootstrap, prefix(t), 3, func(moves func()) {
			moves()
			for _, p := range proxies {
				p.Cut() // connections break; new ones succeed
			}
			moves()
			for _, p := range proxies {
				p.Refuse()
				p.Cut()
			}
			time.Sleep(time.Second)
			for _, p := range proxies {
				p.Heal(t)
			}
			moves()
			for _, p := range proxies {
				p.Stall() // packets are lost without an error
			}
			time.Sleep(2 * time.Second)
			for _, p := range proxies {
				p.Heal(t)
			}
			moves()
		})
	})
	t.Run("a node is paused", func(t *testing.T) {
		t.Cleanup(func() { k.Recover(t) })
		underLoad(t, k.Bootstrap(), prefix(t), 3, func(moves func()) {
			moves()
			coordinator := k.Coordinator(t, "any")
			k.Pause(t, coordinator)
			moves()
			k.Resume(t, coordinator)
			moves()
		})
	})
}
