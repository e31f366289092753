package testserver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/thalo-go/es/kafka/kafkatest"
)

// kafkaRelease is the release of Apache Kafka that is started.
const kafkaRelease = "4.1.2"

// A Broker is where a test finds Kafka: kafkatest's broker within the process, or a real cluster that it shares with the package's other tests.
type Broker struct {
	Bootstrap string            // for bootstrap.servers
	Prefix    string            // for names of topics, groups and transactional ids: nobody else uses it
	Fake      *kafkatest.Broker // the test's own, nil if Kafka is real
	Real      *Kafka            // nil if it is a fake, or ES_TEST_KAFKA names it
}

// EachBroker runs a test on kafkatest's broker and on real Kafka of one node, in parallel: it returns before they have begun. Without -short and where
// Kafka can be had, that is; see the package's comment.
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

// FakeBroker returns a broker within the process that only this test uses.
func FakeBroker(t testing.TB, o kafkatest.Options) Broker {
	t.Helper()
	fake := kafkatest.Start(t, o)
	return Broker{Bootstrap: fake.Bootstrap(), Prefix: brokerPrefix(t), Fake: fake}
}

// RealBroker returns Kafka of one node, shared by the package's tests, or what ES_TEST_KAFKA names.
func RealBroker(t testing.TB) Broker {
	t.Helper()
	skipShort(t)
	if external := os.Getenv("ES_TEST_KAFKA"); external != "" {
		return Broker{Bootstrap: external, Prefix: brokerPrefix(t)}
	}
	k := SharedKafka(t, 1)
	return Broker{Bootstrap: k.Bootstrap(), Prefix: brokerPrefix(t), Real: k}
}

// brokerPrefix is a name in which whoever looks at the cluster finds the test.
func brokerPrefix(t testing.TB) string {
	readable := databaseName(t.Name())
	return strings.ReplaceAll(readable[:strings.LastIndexByte(readable, '_')], "_", "-") + "-" + strings.ToLower(rand.Text()[:8])
}

// KafkaOptions describe a cluster of Apache Kafka.
type KafkaOptions struct {
	Nodes    int               // 1, which is also what 0 means, or 3 with replication 3 of which 2 must be in sync
	Settings map[string]string // over the defaults below, for every node
}

// SharedKafka returns a cluster of one or three nodes that the tests of a package share. What a test does to its nodes it must undo, with Recover
// at the latest; tests that do such things do not run in parallel with others on it.
func SharedKafka(t testing.TB, nodes int) *Kafka {
	t.Helper()
	skipShort(t)
	if os.Getenv("ES_TEST_KAFKA") != "" {
		fault(t, &unavailableError{errors.New("this test stops its brokers, and ES_TEST_KAFKA names some that are not ours to stop: run it without")})
	}
	k, err := sharedKafka.get(nodes)
	if err != nil {
		fault(t, err)
	}
	k.logOnFailure(t)
	return k
}

// StartKafka starts a cluster that only this test uses. It is gone when the test ends.
func StartKafka(t testing.TB, o KafkaOptions) *Kafka {
	t.Helper()
	skipShort(t)
	k, err := LaunchKafka(o)
	if err != nil {
		fault(t, err)
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
		return nil, fmt.Errorf("a cluster of %d nodes: take 1 or 3", o.Nodes)
	}
	k, err := createKafka(o)
	if err != nil {
		return nil, err
	}
	if err := k.startAll(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// sharedKafka are the clusters that SharedKafka has started.
var sharedKafka clusters

type clusters struct {
	mu      sync.Mutex
	started map[int]func() (*Kafka, error)
}

func (s *clusters) get(nodes int) (*Kafka, error) {
	s.mu.Lock()
	start, ok := s.started[nodes]
	if !ok {
		start = sync.OnceValues(func() (*Kafka, error) { return LaunchKafka(KafkaOptions{Nodes: nodes}) })
		if s.started == nil {
			s.started = map[int]func() (*Kafka, error){}
		}
		s.started[nodes] = start
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

// A kafkaInstallation is where the programs are.
type kafkaInstallation struct {
	java string
	jars string // a class path
}

// kafkaPrograms returns them, fetched if need be.
var kafkaPrograms = once(func(struct{}) (kafkaInstallation, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return kafkaInstallation{}, &unavailableError{errors.New("java is not in PATH: install a runtime, 17 or newer (Debian: apt-get install default-jre-headless)")}
	}
	if !supported {
		return kafkaInstallation{}, &unavailableError{errors.New("brokers are started on Linux and macOS only: set ES_TEST_KAFKA to the bootstrap servers of a cluster")}
	}
	folder, err := cached("kafka-"+kafkaRelease, func(folder string) error { return fetchMaven(folder, "kafka", "release="+kafkaRelease) })
	if err != nil {
		return kafkaInstallation{}, &unavailableError{fmt.Errorf("fetch Apache Kafka %s: %w", kafkaRelease, err)}
	}
	return kafkaInstallation{java, filepath.Join(folder, "jars", "*")}, nil
})

// command runs one of the programs, in little memory and with a log that has what went wrong.
func (i kafkaInstallation) command(heap, class string, args ...string) []string {
	return append([]string{
		"-Xmx" + heap, "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS", "-cp", i.jars, class,
	}, args...)
}

// kafkaTemplate returns the data folder of a node as Kafka formats it, from which every such node's is copied: a start of Java less.
// So all clusters have the same id.
var kafkaTemplate = once(func(node int) (string, error) {
	programs, err := kafkaPrograms(struct{}{})
	if err != nil {
		return "", err
	}
	folder, err := cached(fmt.Sprintf("kafka-data-%s-%d", kafkaRelease, node), func(folder string) error {
		properties := filepath.Join(folder, "properties")
		// StorageTool asks for a whole configuration, of which only the node and its folder count.
		text := fmt.Sprintf("process.roles=broker,controller\nnode.id=%[1]d\ncontroller.quorum.voters=%[1]d@127.0.0.1:1\nlisteners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1\n"+
			"controller.listener.names=CONTROLLER\nlog.dirs=%[2]s\n", node, filepath.Join(folder, "data"))
		if err := errors.Join(os.WriteFile(properties, []byte(text), 0o644), os.Mkdir(filepath.Join(folder, "data"), 0o755), give(folder)); err != nil {
			return err
		}
		format := exec.Command(programs.java, programs.command("128m", "kafka.tools.StorageTool", "format", "-t", "dGhhbG8tZXMtdGVzdC0xMQ", "-c", properties)...)
		format.Dir, format.Env = "/", environment("")
		if err := demote(format); err != nil {
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
