package kafka_test

import (
	"cmp"
	"errors"
	"flag"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"go.uber.org/goleak"

	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
	"github.com/thalo-go/es/sqlite"
)

func TestMain(m *testing.M) {
	child.Main(map[string]child.Func{
		"project": playProjection,
		"consume": playConsumer,
		"books":   playBooks,
		"relay":   relayInChild,
	})
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		// These tests wait for brokers, leases and timeouts most of the time. Those that stop a broker which others use are not among them.
		if err := parallel.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(servers{m})
}

// servers stops the servers before goleak looks for what was left behind.
type servers struct{ m *testing.M }

// Run runs the tests.
func (s servers) Run() int { return testserver.Run(s.m) }

// A bank is a broker with a topic of accounts that no other test uses.
type bank struct {
	testserver.Broker
	topic string
}

// each runs a test on the in-process broker and on real Kafka, with a topic that has a number of partitions.
func each(t *testing.T, partitions int, test func(t *testing.T, b bank)) {
	testserver.EachBroker(t, func(t *testing.T, broker testserver.Broker) { test(t, newBank(t, broker, partitions)) })
}

// fake returns a bank on the in-process broker.
func fake(t testing.TB, partitions int) bank {
	t.Helper()
	return newBank(t, testserver.FakeBroker(t, kafkatest.Options{}), partitions)
}

func newBank(t testing.TB, broker testserver.Broker, partitions int) bank {
	t.Helper()
	b := bank{broker, broker.Prefix + ".account"}
	b.createTopic(t, b.topic, partitions)
	return b
}

func (b bank) config() kafka.ConfigMap {
	return kafka.ConfigMap{"bootstrap.servers": b.Bootstrap}
}

func (b bank) admin(t testing.TB) *confluent.AdminClient {
	t.Helper()
	a, err := confluent.NewAdminClient(&confluent.ConfigMap{"bootstrap.servers": b.Bootstrap, "enable.metrics.push": false})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func (b bank) createTopic(t testing.TB, topic string, partitions int) {
	t.Helper()
	makeTopic(t, b.Bootstrap, topic, int32(partitions), map[string]string{"retention.ms": "-1"}) // the records of publisher are old
}

func (b bank) deleteTopic(t testing.TB) {
	t.Helper()
	deleteTopic(t, b.Bootstrap, b.topic)
}

func (b bank) deleteBefore(t testing.TB, partition int32, offset int64) {
	t.Helper()
	a := b.admin(t)
	insist(t, "messages are deleted", func() error {
		results, err := a.DeleteRecords(t.Context(), []confluent.TopicPartition{{Topic: &b.topic, Partition: partition, Offset: confluent.Offset(offset)}})
		if err == nil {
			err = results.DeleteRecordsResults[0].TopicPartition.Error
		}
		return err
	})
}

func (b bank) grow(t testing.TB, to int) {
	t.Helper()
	a := b.admin(t)
	insist(t, "a topic grows", func() error {
		described, err := a.DescribeTopics(t.Context(), confluent.NewTopicCollectionOfTopicNames([]string{b.topic}))
		if err == nil && len(described.TopicDescriptions[0].Partitions) == to {
			return nil
		}
		made, again := a.CreatePartitions(t.Context(), []confluent.PartitionsSpecification{{Topic: b.topic, IncreaseTo: to}})
		if again == nil && made[0].Error.Code() != confluent.ErrNoError {
			again = made[0].Error
		}
		return cmp.Or(err, again, errors.New("not yet"))
	})
}

// openFile opens a store in a file of its own, which is closed when the test ends.
func openFile(t testing.TB) (store *sqlite.Store, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "es.db")
	store, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store, path
}

// insist retries f until it succeeds.
func insist(t testing.TB, what string, try func() error) {
	t.Helper()
	limit := time.After(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-limit:
			t.Fatalf("%s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
