package testserver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/thalo-go/es/kafka/kafkatest"
)

// kafkaRelease is the release of Apache Kafka that is started.
const kafkaRelease = "4.1.2"

// A Broker is what a test connects to: the in-process broker of kafkatest, or a real cluster shared by the package's
// tests.
type Broker struct {
	Bootstrap string            // for bootstrap.servers
	Prefix    string            // unique prefix for names of topics, groups and transactional ids
	Fake      *kafkatest.Broker // used by this test only; nil if Kafka is real
	Real      *Kafka            // nil if the broker is a fake, or named by ES_TEST_KAFKA
}

// EachBroker runs a test on the broker of kafkatest and on real Kafka with one node, in parallel. It returns before
// they start. With -short, or without Kafka, the real one is skipped; see the package comment.
func EachBroker(t *testing.T, test func(t *testing.T, b Broker)) {
	t.Run("kafkatest", func(t *testing.T) {
		t.Parallel()
		test(t, FakeBroker(t, kafkatest.Options{}))
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		test(t, RealBroker(t))
	})
}

// FakeBroker returns an in-process broker for this test only.
func FakeBroker(t testing.TB, o kafkatest.Options) Broker {
	t.Helper()
	fake := kafkatest.Start(t, o)
	return Broker{Bootstrap: fake.Bootstrap(), Prefix: brokerPrefix(t), Fake: fake}
}

// RealBroker returns a Kafka cluster with one node, shared by the package's tests, or the one that ES_TEST_KAFKA names.
func RealBroker(t testing.TB) Broker {
	t.Helper()
	skipShort(t)
	if external := os.Getenv("ES_TEST_KAFKA"); external != "" {
		return Broker{Bootstrap: external, Prefix: brokerPrefix(t)}
	}
	k := SharedKafka(t, 1)
	return Broker{Bootstrap: k.Bootstrap(), Prefix: brokerPrefix(t), Real: k}
}

// brokerPrefix returns a unique name that shows which test it belongs to.
func brokerPrefix(t testing.TB) string {
	readable := databaseName(t.Name())
	return strings.ReplaceAll(readable[:strings.LastIndexByte(readable, '_')], "_", "-") + "-" + strings.ToLower(rand.Text()[:8])
}

// KafkaOptions are the options of a Kafka cluster.
type KafkaOptions struct {
	Nodes    int               // 1 (0 means 1), or 3 with replication factor 3 and 2 in-sync replicas
	Secure   bool              // a further listener with TLS, SCRAM and an authorizer, and the same for Proxies; see SecureBroker
	Settings map[string]string // override the defaults below, for every node
}

// SharedKafka returns a cluster of one or three nodes, shared by the package's tests. A test that stops or pauses nodes
// must undo that before it ends, with Recover, and must not run in parallel with other tests of the cluster.
func SharedKafka(t testing.TB, nodes int) *Kafka {
	t.Helper()
	skipShort(t)
	if os.Getenv("ES_TEST_KAFKA") != "" {
		skipOrFail(t, &unavailableError{errors.New("this test stops brokers, and those of ES_TEST_KAFKA are not ours to stop: unset it")})
	}
	k, err := sharedKafka.get(cluster{nodes: nodes})
	if err != nil {
		skipOrFail(t, err)
	}
	k.logOnFailure(t)
	return k
}

// StartKafka starts a cluster for this test only. It is closed when the test ends.
func StartKafka(t testing.TB, o KafkaOptions) *Kafka {
	t.Helper()
	skipShort(t)
	k, err := LaunchKafka(o)
	if err != nil {
		skipOrFail(t, err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Errorf("testserver: close: %v", err)
		}
	})
	k.logOnFailure(t)
	return k
}

// LaunchKafka is StartKafka for a program that is not a test. The cluster ends with Close, or with the program.
func LaunchKafka(o KafkaOptions) (*Kafka, error) {
	if o.Nodes == 0 {
		o.Nodes = 1
	}
	if o.Nodes != 1 && o.Nodes != 3 {
		return nil, fmt.Errorf("a cluster of %d nodes is not supported: use 1 or 3", o.Nodes)
	}
	var failed error
	for range 3 {
		k, err := createKafka(o)
		if err != nil {
			return nil, err
		}
		if failed = k.startAll(); failed == nil {
			return k, nil
		}
		taken := slices.ContainsFunc(k.nodes, func(n *kafkaNode) bool { return strings.Contains(k.Log(n.id), "Address already in use") })
		failed = errors.Join(failed, k.Close())
		if !taken {
			break
		}
		// Another program took a port in between: the next attempt chooses others.
	}
	return nil, failed
}

// sharedKafka holds the clusters that SharedKafka has started.
var sharedKafka clusters

type clusters struct {
	mu      sync.Mutex
	started map[cluster]func() (*Kafka, error)
}

// cluster is a kind of cluster that is shared.
type cluster struct {
	nodes  int
	secure bool
}

func (s *clusters) get(of cluster) (*Kafka, error) {
	s.mu.Lock()
	start, ok := s.started[of]
	if !ok {
		start = sync.OnceValues(func() (*Kafka, error) { return LaunchKafka(KafkaOptions{Nodes: of.nodes, Secure: of.secure}) })
		if s.started == nil {
			s.started = map[cluster]func() (*Kafka, error){}
		}
		s.started[of] = start
	}
	s.mu.Unlock()
	return start()
}

func (s *clusters) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, started := range s.started {
		if k, err := started(); err == nil {
			if err := k.Close(); err != nil {
				fmt.Fprintln(os.Stderr, "testserver:", err)
			}
		}
	}
	s.started = nil
}

// A kafkaInstallation is the programs of Kafka.
type kafkaInstallation struct {
	java string
	jars string // a class path
}

// kafkaPrograms returns the programs and downloads them if necessary.
var kafkaPrograms = once(func(struct{}) (kafkaInstallation, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return kafkaInstallation{}, &unavailableError{errors.New("java is not in PATH: install a runtime, 17 or newer (Debian: apt-get install default-jre-headless)")}
	}
	if !supported {
		return kafkaInstallation{}, &unavailableError{errors.New("brokers can be started on Linux and macOS only: set ES_TEST_KAFKA to the bootstrap servers of a cluster")}
	}
	folder, err := cached("kafka-"+kafkaRelease, func(folder string) error { return fetchMaven(folder, "kafka", "release="+kafkaRelease) })
	if err != nil {
		return kafkaInstallation{}, &unavailableError{fmt.Errorf("download Apache Kafka %s: %w", kafkaRelease, err)}
	}
	return kafkaInstallation{java, filepath.Join(folder, "jars", "*")}, nil
})

// command returns the arguments for java to run a class, with little memory and a log of warnings.
func (i kafkaInstallation) command(heap, class string, args ...string) []string {
	return append([]string{
		"-Xmx" + heap, "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS", "-cp", i.jars, class,
	}, args...)
}

// kafkaTemplate returns the data folder of a node as Kafka formats it. Nodes get copies, which saves starting Java. So
// all clusters have the same id.
var kafkaTemplate = once(func(node int) (string, error) {
	programs, err := kafkaPrograms(struct{}{})
	if err != nil {
		return "", err
	}
	folder, err := cached(fmt.Sprintf("kafka-data-%s-%d", kafkaRelease, node), func(folder string) error {
		properties := filepath.Join(folder, "properties")
		// StorageTool requires a complete configuration, but uses only the node and its folder.
		text := fmt.Sprintf("process.roles=broker,controller\nnode.id=%[1]d\ncontroller.quorum.voters=%[1]d@127.0.0.1:1\nlisteners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1\n"+
			"controller.listener.names=CONTROLLER\nlog.dirs=%[2]s\n", node, filepath.Join(folder, "data"))
		if err := errors.Join(os.WriteFile(properties, []byte(text), 0o644), os.Mkdir(filepath.Join(folder, "data"), 0o755), chown(folder)); err != nil {
			return err
		}
		format := exec.Command(programs.java, programs.command("128m", "kafka.tools.StorageTool", "format", "-t", "dGhhbG8tZXMtdGVzdC0xMQ", "-c", properties)...)
		format.Dir, format.Env = "/", environment("")
		if err := runAsServerUser(format); err != nil {
			return err
		}
		_, err := run(format)
		return err
	})
	if err != nil {
		return "", &unavailableError{fmt.Errorf("format a folder for Apache Kafka: %w", err)}
	}
	return filepath.Join(folder, "data"), nil
})
