package testserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Kafka is a cluster of Apache Kafka on 127.0.0.1, whose nodes are numbered from 1. Its methods that take a t fail that test if they cannot do
// what they say, and so belong in the test's goroutine.
type Kafka struct {
	programs kafkaInstallation
	settings map[string]string
	nodes    []*kafkaNode
}

type kafkaNode struct {
	id     int
	folder string
	ports  struct{ client, proxied, proxy, controller int }

	mu      sync.Mutex
	process *process // nil while stopped
}

func createKafka(o KafkaOptions) (*Kafka, error) {
	programs, err := kafkaPrograms(struct{}{})
	if err != nil {
		return nil, err
	}
	k := &Kafka{programs: programs, settings: o.Settings}
	taken := map[int]bool{}
	for id := 1; id <= o.Nodes; id++ {
		n := &kafkaNode{id: id}
		k.nodes = append(k.nodes, n)
		for _, port := range []*int{&n.ports.client, &n.ports.proxied, &n.ports.proxy, &n.ports.controller} {
			for *port == 0 || taken[*port] {
				if *port, err = freePort(); err != nil {
					return nil, errors.Join(err, k.Close())
				}
			}
			taken[*port] = true
		}
	}
	for _, n := range k.nodes {
		pristine, err := kafkaTemplate(n.id)
		if err == nil {
			n.folder, err = scratch()
		}
		if err == nil {
			err = copyTree(pristine, n.dir())
		}
		if err == nil {
			err = os.WriteFile(n.properties(), []byte(k.configuration(n)), 0o644)
		}
		if err = errors.Join(err, give(n.folder)); err != nil {
			return nil, errors.Join(err, k.Close())
		}
	}
	return k, nil
}

func (n *kafkaNode) dir() string        { return filepath.Join(n.folder, "data") }
func (n *kafkaNode) properties() string { return filepath.Join(n.folder, "properties") }
func (n *kafkaNode) logFile() string    { return filepath.Join(n.folder, "log") }

// configuration is a node's server.properties. Clients that come by the listener PROXIED are sent to the ports of Proxies ever after.
func (k *Kafka) configuration(n *kafkaNode) string {
	var voters []string
	for _, voter := range k.nodes {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", voter.id, voter.ports.controller))
	}
	replicas := strconv.Itoa(len(k.nodes))
	inSync := strconv.Itoa(len(k.nodes)/2 + 1)
	settings := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        strconv.Itoa(n.id),
		"controller.quorum.voters":       strings.Join(voters, ","),
		"listeners":                      fmt.Sprintf("CLIENT://127.0.0.1:%d,PROXIED://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", n.ports.client, n.ports.proxied, n.ports.controller),
		"advertised.listeners":           fmt.Sprintf("CLIENT://127.0.0.1:%d,PROXIED://127.0.0.1:%d", n.ports.client, n.ports.proxy),
		"listener.security.protocol.map": "CLIENT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"controller.listener.names":      "CONTROLLER",
		"inter.broker.listener.name":     "CLIENT",
		"log.dirs":                       n.dir(),
		"auto.create.topics.enable":      "false",
		"default.replication.factor":     replicas,
		"min.insync.replicas":            inSync,

		"offsets.topic.num.partitions":                     "1",
		"offsets.topic.replication.factor":                 replicas,
		"transaction.state.log.num.partitions":             "1",
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    inSync,
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            inSync,
		"group.initial.rebalance.delay.ms":                 "0",

		// A node that is killed is missed after three seconds, not nine.
		"broker.heartbeat.interval.ms": "500",
		"broker.session.timeout.ms":    "3000",
		// A transaction past its time is ended within a second, not ten.
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
	}
	maps.Copy(settings, k.settings)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s=%s\n", name, settings[name])
	}
	return text.String()
}

// Nodes is how many nodes there are.
func (k *Kafka) Nodes() int { return len(k.nodes) }

// Release is the release of Kafka that runs.
func (k *Kafka) Release() string { return kafkaRelease }

// Bootstrap is the cluster's bootstrap.servers.
func (k *Kafka) Bootstrap() string {
	var list []string
	for _, n := range k.nodes {
		list = append(list, fmt.Sprintf("127.0.0.1:%d", n.ports.client))
	}
	return strings.Join(list, ",")
}

// Proxies starts a proxy before each node, in their order, for as long as the test runs, and returns the bootstrap.servers with which a client
// goes through them always.
func (k *Kafka) Proxies(t testing.TB) (bootstrap string, proxies []*Proxy) {
	t.Helper()
	var list []string
	for _, n := range k.nodes {
		p := startProxy(t, n.ports.proxy, fmt.Sprintf("127.0.0.1:%d", n.ports.proxied))
		proxies, list = append(proxies, p), append(list, p.Addr())
	}
	return strings.Join(list, ","), proxies
}

// Log is what a node has written to its log.
func (k *Kafka) Log(node int) string {
	text, err := os.ReadFile(k.nodes[node-1].logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Start starts a node that was stopped, and returns when the cluster is whole.
func (k *Kafka) Start(t testing.TB, node int) {
	t.Helper()
	k.must(t, "start", node, func(n *kafkaNode) error { return errors.Join(k.launch(n), k.ready()) })
}

// Stop ends a node in order: it hands over what it leads first, and returns when it has ended.
func (k *Kafka) Stop(t testing.TB, node int) {
	t.Helper()
	k.must(t, "stop", node, func(n *kafkaNode) error { return n.end(terminate) })
}

// Kill ends a node with SIGKILL.
func (k *Kafka) Kill(t testing.TB, node int) {
	t.Helper()
	k.must(t, "kill", node, func(n *kafkaNode) error { return n.end(killed) })
}

// Pause halts a node until Resume. Its connections stay open and get no answer.
func (k *Kafka) Pause(t testing.TB, node int) {
	t.Helper()
	k.must(t, "pause", node, func(n *kafkaNode) error { return n.halt(pause) })
}

// Resume ends a Pause.
func (k *Kafka) Resume(t testing.TB, node int) {
	t.Helper()
	k.must(t, "resume", node, func(n *kafkaNode) error { return n.halt(resume) })
}

// Recover starts and resumes all nodes that are down, and returns when the cluster is whole.
func (k *Kafka) Recover(t testing.TB) {
	t.Helper()
	for _, n := range k.nodes {
		k.must(t, "recover", n.id, func(n *kafkaNode) error {
			if n.current() == nil {
				return k.launch(n)
			}
			return n.halt(resume)
		})
	}
	if err := k.ready(); err != nil {
		t.Fatalf("testserver: recover: %v", err)
	}
}

// Leader returns the node that leads a partition, when there is one.
func (k *Kafka) Leader(t testing.TB, topic string, partition int) int {
	t.Helper()
	var leader int32
	err := k.wait(func(ctx context.Context, c *kgo.Client) error {
		answer, err := metadata(ctx, c)
		if err != nil {
			return err
		}
		for _, at := range answer.Topics {
			for _, p := range at.Partitions {
				if at.Topic != nil && *at.Topic == topic && int(p.Partition) == partition && p.Leader > 0 {
					leader = p.Leader
					return nil
				}
			}
		}
		return fmt.Errorf("partition %d of %s has no leader", partition, topic)
	})
	if err != nil {
		t.Fatalf("testserver: leader: %v", err)
	}
	return int(leader)
}

// Coordinator returns the node that coordinates the transactions of a transactional id, when there is one.
func (k *Kafka) Coordinator(t testing.TB, transactionalID string) int {
	t.Helper()
	var node int32
	err := k.wait(func(ctx context.Context, c *kgo.Client) error {
		request := kmsg.NewFindCoordinatorRequest()
		request.CoordinatorType = 1
		request.CoordinatorKey = transactionalID
		answer, err := request.RequestWith(ctx, c)
		if err != nil {
			return err
		}
		node = answer.NodeID
		if len(answer.Coordinators) > 0 {
			node = answer.Coordinators[0].NodeID
			return kerr.ErrorForCode(answer.Coordinators[0].ErrorCode)
		}
		return kerr.ErrorForCode(answer.ErrorCode)
	})
	if err != nil {
		t.Fatalf("testserver: coordinator: %v", err)
	}
	return int(node)
}

// Close ends the cluster and removes its data.
func (k *Kafka) Close() error {
	var failed error
	for _, n := range k.nodes {
		if n.current() != nil {
			failed = errors.Join(failed, n.end(killed))
		}
		if n.folder != "" {
			failed = errors.Join(failed, os.RemoveAll(n.folder))
		}
	}
	return failed
}

func (k *Kafka) must(t testing.TB, what string, node int, do func(*kafkaNode) error) {
	t.Helper()
	if node < 1 || node > len(k.nodes) {
		t.Fatalf("testserver: %s: no node %d", what, node)
	}
	if err := do(k.nodes[node-1]); err != nil {
		t.Fatalf("testserver: %s node %d: %v", what, node, err)
	}
}

func (k *Kafka) startAll() error {
	for _, n := range k.nodes {
		if err := k.launch(n); err != nil {
			return err
		}
	}
	return k.ready()
}

func (k *Kafka) launch(n *kafkaNode) error {
	if n.current() != nil {
		return errors.New("the node is running already")
	}
	p, err := launch(command{
		path: k.programs.java, args: k.programs.command("512m", "kafka.Kafka", n.properties()), env: environment(""),
		folder: n.folder, log: n.logFile(), end: killed,
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.process = p
	n.mu.Unlock()
	return nil
}

// ready waits until all nodes that run are in the cluster, every partition has all its replicas on them, and a transaction can begin.
func (k *Kafka) ready() error {
	for end := time.Now().Add(startLimit); ; time.Sleep(20 * time.Millisecond) {
		running := 0
		for _, n := range k.nodes {
			n.mu.Lock()
			p := n.process
			n.mu.Unlock()
			switch {
			case p == nil:
			case p.hasEnded(time.Millisecond):
				return fmt.Errorf("node %d of Kafka ended with code %s:\n%s", n.id, p.code, tail(k.Log(n.id), 30))
			default:
				running++
			}
		}
		err := k.ask(func(ctx context.Context, c *kgo.Client) error { return answers(ctx, c, running) })
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("kafka is not ready after %v: %w\n%s", startLimit, err, tail(k.Log(1), 30))
		}
	}
}

func answers(ctx context.Context, c *kgo.Client, nodes int) error {
	answer, err := metadata(ctx, c)
	if err != nil {
		return err
	}
	if len(answer.Brokers) != nodes {
		return fmt.Errorf("%d nodes of %d are in the cluster", len(answer.Brokers), nodes)
	}
	for _, topic := range answer.Topics {
		for _, p := range topic.Partitions {
			if p.Leader < 0 || len(p.ISR) < min(len(p.Replicas), nodes) {
				return fmt.Errorf("partition %d of a topic is on %v of %v", p.Partition, p.ISR, p.Replicas)
			}
		}
	}
	request := kmsg.NewInitProducerIDRequest()
	request.TransactionalID = new("testserver")
	request.TransactionTimeoutMillis = 10_000
	started, err := request.RequestWith(ctx, c)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(started.ErrorCode)
}

func metadata(ctx context.Context, c *kgo.Client) (*kmsg.MetadataResponse, error) {
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = nil // all
	return request.RequestWith(ctx, c)
}

// wait asks until there is an answer.
func (k *Kafka) wait(question func(ctx context.Context, c *kgo.Client) error) error {
	for end := time.Now().Add(startLimit); ; time.Sleep(20 * time.Millisecond) {
		err := k.ask(question)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// ask connects a client for one question.
func (k *Kafka) ask(question func(ctx context.Context, c *kgo.Client) error) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(k.Bootstrap(), ",")...), kgo.RequestRetries(0), kgo.DialTimeout(2*time.Second))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return question(ctx, c)
}

func (n *kafkaNode) current() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil && n.process.hasEnded(time.Millisecond) {
		n.process = nil
	}
	return n.process
}

func (n *kafkaNode) end(by signal) error {
	p := n.current()
	if p == nil {
		return errors.New("the node is not running")
	}
	if err := p.end(by); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process = nil
	return nil
}

func (n *kafkaNode) halt(by signal) error {
	p := n.current()
	if p == nil {
		return errors.New("the node is not running")
	}
	return p.send(by)
}

// logOnFailure shows what the nodes logged during a test that failed.
func (k *Kafka) logOnFailure(t testing.TB) {
	before := make([]int, len(k.nodes))
	for i := range k.nodes {
		before[i] = len(k.Log(i + 1))
	}
	t.Cleanup(func() {
		for i := range k.nodes {
			if log := k.Log(i + 1); t.Failed() && len(log) > before[i] {
				t.Logf("log of node %d of Kafka:\n%s", i+1, tail(log[before[i]:], 50))
			}
		}
	})
}
