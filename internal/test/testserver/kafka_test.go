package testserver_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es/internal/test/testserver"
)

func client(t *testing.T, bootstrap string) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(bootstrap, ",")...), kgo.RetryTimeout(30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func createTopic(t *testing.T, c *kgo.Client, name string) {
	t.Helper()
	request := kmsg.NewCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, -1
	request.Topics = append(request.Topics, topic)
	answer, err := request.RequestWith(t.Context(), c)
	if err != nil || answer.Topics[0].ErrorCode != 0 {
		t.Fatalf("create topic %s: %v, %+v", name, err, answer)
	}
}

func produce(t *testing.T, c *kgo.Client, topic, value string) error {
	t.Helper()
	return c.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr()
}

func TestEachBroker(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		c := client(t, b.Bootstrap)
		createTopic(t, c, b.Prefix+".a")
		if err := produce(t, c, b.Prefix+".a", "1"); err != nil {
			t.Fatal(err)
		}
	})
}

// A single node comes back after it was killed: the controller must not wait for long for the session of the killed process.
func TestASingleNodeComesBack(t *testing.T) {
	k := testserver.StartKafka(t, testserver.KafkaOptions{})
	c := client(t, k.Bootstrap())
	createTopic(t, c, "a")
	for what, end := range map[string]func(t testing.TB, node int){"killed": k.Kill, "stopped": k.Stop} {
		end(t, 1)
		k.Start(t, 1)
		if err := produce(t, c, "a", what); err != nil {
			t.Errorf("after the node was %s: %v", what, err)
		}
	}
}

func TestKafkaOfThreeNodes(t *testing.T) {
	k := testserver.SharedKafka(t, 3)
	t.Cleanup(func() { k.Recover(t) })
	c := client(t, k.Bootstrap())
	createTopic(t, c, "a")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(produce(t, c, "a", "1"))

	t.Run("another node leads when the leader is killed", func(t *testing.T) {
		leader := k.Leader(t, "a", 0)
		k.Kill(t, leader)
		must(produce(t, c, "a", "2"))
		if now := k.Leader(t, "a", 0); now == leader {
			t.Errorf("node %d still leads", now)
		}
		k.Start(t, leader)
	})
	t.Run("a coordinator that is stopped hands over", func(t *testing.T) {
		coordinator := k.Coordinator(t, "group")
		k.Stop(t, coordinator)
		eventually(t, "another node coordinates", func() bool { return k.Coordinator(t, "group") != coordinator })
		k.Start(t, coordinator)
	})
	t.Run("a paused node returns after Resume", func(t *testing.T) {
		k.Pause(t, 2)
		must(produce(t, c, "a", "3"))
		k.Resume(t, 2)
		k.Recover(t)
	})
	t.Run("clients that start with a proxy keep using proxies", func(t *testing.T) {
		bootstrap, proxies := k.Proxies(t)
		through := client(t, bootstrap)
		must(produce(t, through, "a", "4"))
		for _, p := range proxies {
			p.Refuse()
			p.Cut()
		}
		sent := make(chan error, 1)
		go func() {
			sent <- through.ProduceSync(t.Context(), &kgo.Record{Topic: "a", Value: []byte("5")}).FirstErr()
		}()
		select {
		case err := <-sent:
			t.Errorf("sent while the network was cut: %v", err)
		case <-time.After(300 * time.Millisecond):
		}
		for _, p := range proxies {
			p.Heal(t)
		}
		must(<-sent)
	})
}

func TestKafkaThatCannotStartShowsWhy(t *testing.T) {
	t.Parallel()
	testserver.RealBroker(t) // skips the test if Kafka is unavailable
	k, err := testserver.LaunchKafka(testserver.KafkaOptions{Settings: map[string]string{"min.insync.replicas": "many"}})
	if err == nil {
		err = errors.New("no error")
		k.Close()
	}
	if !strings.Contains(err.Error(), "min.insync.replicas") {
		t.Errorf("error %v, want one with the tail of the log", err)
	}
}
