package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Kafka is an Apache Kafka cluster on 127.0.0.1. Its nodes are numbered from 1. Methods with a parameter t end that
// test if they fail, so call them from the test's goroutine.
type Kafka struct {
	programs kafkaInstallation
	settings map[string]string
	secure   bool
	nodes    []*kafkaNode
}

func createKafka(o KafkaOptions) (*Kafka, error) {
	programs, err := kafkaPrograms(struct{}{})
	if err != nil {
		return nil, err
	}
	k := &Kafka{programs: programs, settings: o.Settings, secure: o.Secure}
	for id := 1; id <= o.Nodes; id++ {
		n := &kafkaNode{id: id}
		k.nodes = append(k.nodes, n)
		for _, port := range n.ports.all() {
			if *port, err = freePort(); err != nil {
				return nil, errors.Join(err, k.Close())
			}
		}
	}
	for _, n := range k.nodes {
		pristine, err := kafkaTemplate(n.id)
		if err == nil {
			n.folder, err = tempFolder()
		}
		if err == nil {
			err = copyTree(pristine, n.dir())
		}
		var properties string
		if err == nil {
			properties, err = k.configuration(n)
		}
		if err == nil {
			err = os.WriteFile(n.properties(), []byte(properties), 0o644)
		}
		if err = errors.Join(err, chown(n.folder)); err != nil {
			return nil, errors.Join(err, k.Close())
		}
	}
	return k, nil
}

// Nodes returns the number of nodes.
func (k *Kafka) Nodes() int { return len(k.nodes) }

// Release returns the release of Kafka.
func (k *Kafka) Release() string { return kafkaRelease }

// Bootstrap returns the cluster's bootstrap.servers.
func (k *Kafka) Bootstrap() string {
	var list []string
	for _, n := range k.nodes {
		list = append(list, fmt.Sprintf("127.0.0.1:%d", n.ports.client))
	}
	return strings.Join(list, ",")
}

// Proxies starts one proxy for each node, in their order, until the test ends. It returns bootstrap.servers with which
// a client always connects through them.
func (k *Kafka) Proxies(t testing.TB) (bootstrap string, proxies []*Proxy) {
	t.Helper()
	var list []string
	for _, n := range k.nodes {
		p := startProxy(t, n.ports.proxy, fmt.Sprintf("127.0.0.1:%d", n.ports.proxied))
		proxies, list = append(proxies, p), append(list, p.Addr())
	}
	return strings.Join(list, ","), proxies
}

// Log returns the log of a node.
func (k *Kafka) Log(node int) string {
	text, err := os.ReadFile(k.nodes[node-1].logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Start starts a stopped node and returns when the cluster is complete.
func (k *Kafka) Start(t testing.TB, node int) {
	t.Helper()
	k.must(t, "start", node, func(n *kafkaNode) error { return errors.Join(k.launch(n), k.ready()) })
}

// Stop shuts a node down: the node hands over its partitions first. Stop returns when it has ended.
func (k *Kafka) Stop(t testing.TB, node int) {
	t.Helper()
	k.must(t, "stop", node, func(n *kafkaNode) error { return n.end(terminate) })
}

// Kill ends a node with SIGKILL.
func (k *Kafka) Kill(t testing.TB, node int) {
	t.Helper()
	k.must(t, "kill", node, func(n *kafkaNode) error { return n.end(killed) })
}

// Pause stops a node until Resume. Its connections stay open and get no answer.
func (k *Kafka) Pause(t testing.TB, node int) {
	t.Helper()
	k.must(t, "pause", node, func(n *kafkaNode) error { return n.halt(pause) })
}

// Resume continues a paused node.
func (k *Kafka) Resume(t testing.TB, node int) {
	t.Helper()
	k.must(t, "resume", node, func(n *kafkaNode) error { return n.halt(resume) })
}

// Recover starts and resumes all nodes that are down, and returns when the cluster is complete.
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

// Leader waits until a partition has a leader and returns its node.
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

// Coordinator waits until a transactional id has a coordinator and returns its node.
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

// Close kills the nodes and removes their data.
func (k *Kafka) Close() error {
	var failed error
	for _, n := range k.nodes {
		if n.current() != nil {
			failed = errors.Join(failed, n.end(killed))
		}
		if n.folder != "" {
			failed = errors.Join(failed, os.RemoveAll(n.folder))
		}
		for _, port := range n.ports.all() {
			releasePort(*port)
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
		return errors.New("the node is already running")
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

// ready waits until all running nodes are in the cluster, every partition has all its replicas on them, and a
// transaction can begin.
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
				return fmt.Errorf("partition %d of a topic is on replicas %v of %v", p.Partition, p.ISR, p.Replicas)
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

// wait repeats the question until it succeeds.
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

// logOnFailure logs what the nodes wrote during a test that failed.
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
