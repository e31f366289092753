// Package kafkatest is a Kafka broker within the process: it starts in milliseconds, on a free port of 127.0.0.1, and needs nothing installed.
// It is for tests, examples and first steps, not for production: one process has it all, by default in memory alone.
//
// The broker is franz-go's kfake, which does transactions, fencing, read_committed, consumer groups and compaction as Apache Kafka does.
// What is added here is a way to start it that fits a test, and faults: requests that fail, answers that are lost or late, networks that are cut.
//
//	broker := kafkatest.Start(t, kafkatest.Options{Topics: map[string]int{"bank.account": 6}})
//	relay := kafka.Relay{Config: kafka.ConfigMap{"bootstrap.servers": broker.Bootstrap()}, ...}
package kafkatest

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TB is what Start needs of a test: a [*testing.T] or [*testing.B]. So programs that are no tests do not link package testing.
type TB interface {
	Helper()                           // as in package testing
	Fatalf(format string, args ...any) // likewise
	Cleanup(f func())                  // likewise
}

// Options describe a broker. Their zero value is one broker without topics, in memory.
type Options struct {
	// Topics are made at the start, with so many partitions, unless Folder has topics already.
	Topics map[string]int

	// Brokers is how many there are, each with a port of its own. 0 means 1.
	Brokers int

	// Folder keeps the data from one start to the next, also if the process is killed. "" means in memory alone.
	Folder string

	// Port is where the first broker listens; the others take the next ones. 0 means free ports.
	Port int

	// Settings are those of a broker, such as "message.max.bytes" or "transaction.max.timeout.ms".
	Settings map[string]string
}

// A Broker is a cluster within this process. Its methods may be called from any goroutine.
type Broker struct {
	options Options
	ports   []int
	faults  faults

	mu      sync.Mutex
	cluster *kfake.Cluster // nil while it is stopped
}

// Start starts a broker for as long as the test runs.
func Start(t TB, o Options) *Broker {
	t.Helper()
	b, err := New(o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(b.Close)
	return b
}

// New starts a broker, which the caller must close.
func New(o Options) (*Broker, error) {
	o.Brokers = max(o.Brokers, 1)
	o.Topics, o.Settings = maps.Clone(o.Topics), maps.Clone(o.Settings)
	b := &Broker{options: o}
	for i := range o.Brokers {
		port := 0
		if o.Port != 0 {
			port = o.Port + i
		}
		b.ports = append(b.ports, port)
	}
	return b, b.start()
}

func (b *Broker) start() error {
	b.faults.start()
	options := []kfake.Opt{
		kfake.Ports(b.ports...),
		kfake.ListenFn(b.faults.listen),
		kfake.DefaultNumPartitions(1),
		kfake.BrokerConfigs(b.options.Settings),
	}
	for _, topic := range slices.Sorted(maps.Keys(b.options.Topics)) {
		options = append(options, kfake.SeedTopics(int32(b.options.Topics[topic]), topic))
	}
	if b.options.Folder != "" {
		options = append(options, kfake.DataDir(b.options.Folder))
	}
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		return fmt.Errorf("kafkatest: start a broker: %w", err)
	}
	b.cluster = cluster
	for i, addr := range cluster.ListenAddrs() {
		_, port, err := net.SplitHostPort(addr)
		if err == nil {
			b.ports[i], err = strconv.Atoi(port)
		}
		if err != nil {
			cluster.Close()
			return fmt.Errorf("kafkatest: start a broker: %w", err)
		}
	}
	return nil
}

// Bootstrap is what clients call bootstrap.servers. It stays the same after a restart.
func (b *Broker) Bootstrap() string {
	var list []string
	for _, port := range b.ports {
		list = append(list, "127.0.0.1:"+strconv.Itoa(port))
	}
	return strings.Join(list, ",")
}

// Cluster is the broker as kfake has it, for what is not offered here: moving leaders, adding and removing nodes, looking at groups.
// It is another one after a Restart, and nil after a Stop.
func (b *Broker) Cluster() *kfake.Cluster {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cluster
}

// CreateTopic makes a topic, with settings such as "cleanup.policy", of which there may be none.
func (b *Broker) CreateTopic(topic string, partitions int, settings map[string]string) error {
	c := b.Cluster()
	if c == nil {
		return errStopped
	}
	if err := c.CreateTopic(topic, int32(partitions), settings); err != nil {
		return fmt.Errorf("kafkatest: create topic %s: %w", topic, err)
	}
	return nil
}

// DeleteTopic deletes a topic with all that is in it.
func (b *Broker) DeleteTopic(topic string) error {
	c := b.Cluster()
	if c == nil {
		return errStopped
	}
	if err := c.DeleteTopic(topic); err != nil {
		return fmt.Errorf("kafkatest: delete topic %s: %w", topic, err)
	}
	return nil
}

var errStopped = errors.New("kafkatest: the broker is stopped: start it with Restart")

// Stop ends the broker and its connections. Without a Folder all that it had is gone.
func (b *Broker) Stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cluster == nil {
		return
	}
	b.cluster.Close()
	b.cluster = nil
	b.faults.stop()
}

// Restart ends the broker, if it runs, and starts it again where it listened before.
func (b *Broker) Restart() error {
	b.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.start()
}

// Close ends the broker for good.
func (b *Broker) Close() { b.Stop() }

// Fail lets the next requests of a kind fail with an error of the protocol, so many times, or until the handle's Remove if that is negative.
// As a rule the broker does nothing of what it was asked. Do not combine it with a Restart, which forgets it.
func (b *Broker) Fail(request kmsg.Key, with *kerr.Error, times int) *kfake.FaultHandle {
	return b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{request}, Err: with, Count: times})
}
