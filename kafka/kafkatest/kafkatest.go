// Package kafkatest runs a Kafka broker within the process. It starts in milliseconds, on a free port of 127.0.0.1,
// and requires no installation. It is meant for tests, examples and first steps, not for production: all data is in
// one process, by default in memory.
//
// The broker is franz-go's kfake, which implements transactions, fencing, read_committed, consumer groups and
// compaction. This package adds a constructor for tests, and faults: failing requests, lost or late responses, and
// broken networks.
//
//	broker := kafkatest.Start(t, kafkatest.Options{Topics: map[string]int{"bank.account": 6}})
//	relay := kafka.Relay{Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": broker.Bootstrap()}}, ...}
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

// TB is the part of [testing.TB] that Start uses. With it, programs that are not tests need not link package testing.
type TB interface {
	Helper()                           // as in package testing
	Fatalf(format string, args ...any) // as in package testing
	Cleanup(f func())                  // as in package testing
}

// Options are the settings of a broker. The zero value starts one broker without topics, in memory.
type Options struct {
	// Topics are created at the start unless Folder contains topics already: name to number of partitions.
	Topics map[string]int

	// Brokers is the number of brokers, each on its own port. 0 means 1.
	Brokers int

	// Folder keeps the data across restarts, even if the process is killed. "" means in memory.
	Folder string

	// Port is the port of the first broker; the others use the ports that follow. 0 means free ports.
	Port int

	// Settings are broker settings, such as "message.max.bytes" or "transaction.max.timeout.ms".
	Settings map[string]string
}

// Broker is a cluster within this process. Its methods may be called from any goroutine.
type Broker struct {
	options Options
	ports   []int
	faults  faults

	mu      sync.Mutex
	cluster *kfake.Cluster // nil while stopped
}

// Start starts a broker and closes it when the test ends.
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

// Bootstrap returns the value for a client's bootstrap.servers. It does not change when the broker restarts.
func (b *Broker) Bootstrap() string {
	var list []string
	for _, port := range b.ports {
		list = append(list, "127.0.0.1:"+strconv.Itoa(port))
	}
	return strings.Join(list, ",")
}

// Cluster returns kfake's cluster, for operations that Broker lacks, such as moving leaders, adding and removing
// nodes, and inspecting groups. Restart replaces it, and it is nil while the broker is stopped.
func (b *Broker) Cluster() *kfake.Cluster {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cluster
}

// CreateTopic creates a topic. The settings, such as "cleanup.policy", may be nil.
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

// DeleteTopic deletes a topic and its messages.
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

// Stop stops the broker and closes its connections. Without a Folder its data is lost.
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

// Restart stops the broker, if it is running, and starts it again on the same ports.
func (b *Broker) Restart() error {
	b.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.start()
}

// Close stops the broker.
func (b *Broker) Close() { b.Stop() }

// Fail makes requests of a kind fail with a protocol error: the next times requests, or all until the handle's Remove
// if times is negative. The broker usually does not execute them. A Restart ends it.
func (b *Broker) Fail(request kmsg.Key, with *kerr.Error, times int) *kfake.FaultHandle {
	return b.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{request}, Err: with, Count: times})
}
