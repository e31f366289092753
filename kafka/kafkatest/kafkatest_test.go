package kafkatest_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/thalo-go/es/kafka/kafkatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

func producer(t *testing.T, b *kafkatest.Broker, more confluent.ConfigMap) *confluent.Producer {
	t.Helper()
	config := confluent.ConfigMap{"bootstrap.servers": b.Bootstrap(), "log_level": 0, "enable.metrics.push": false}
	maps.Copy(config, more)
	p, err := confluent.NewProducer(&config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// send produces one message to topic a and returns the error of its delivery report.
func send(p *confluent.Producer, value string) error {
	topic := "a"
	report := make(chan confluent.Event, 1)
	if err := p.Produce(&confluent.Message{TopicPartition: confluent.TopicPartition{Topic: &topic, Partition: 0}, Value: []byte(value)}, report); err != nil {
		return err
	}
	for {
		select {
		case e := <-report:
			return e.(*confluent.Message).TopicPartition.Error
		case <-p.Events(): // otherwise a fatal error would block the report
		case <-time.After(patience):
			return errors.New("no delivery report")
		}
	}
}

// read returns the first n values of partition 0.
func read(t *testing.T, b *kafkatest.Broker, topic string, n int) []string {
	t.Helper()
	c, err := confluent.NewConsumer(&confluent.ConfigMap{"bootstrap.servers": b.Bootstrap(), "group.id": "test", "enable.auto.commit": false, "log_level": 0, "enable.metrics.push": false})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Assign([]confluent.TopicPartition{{Topic: &topic, Partition: 0, Offset: confluent.OffsetBeginning}}); err != nil {
		t.Fatal(err)
	}
	var values []string
	for len(values) < n {
		m, err := c.ReadMessage(patience)
		if err != nil {
			t.Fatalf("after %q: %v", values, err)
		}
		values = append(values, string(m.Value))
	}
	return values
}

func TestRestartKeepsTheFolder(t *testing.T) {
	b := kafkatest.Start(t, kafkatest.Options{Topics: map[string]int{"a": 1}, Folder: t.TempDir()})
	p := producer(t, b, nil)
	if err := send(p, "1"); err != nil {
		t.Fatal(err)
	}
	at := b.Bootstrap()
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	if b.Bootstrap() != at {
		t.Errorf("after the restart the broker listens on %s, want %s", b.Bootstrap(), at)
	}
	if err := send(p, "2"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, b, "a", 2); got[0] != "1" || got[1] != "2" {
		t.Errorf("read %q", got)
	}
}

func TestCreateAndDeleteTopics(t *testing.T) {
	b := kafkatest.Start(t, kafkatest.Options{Brokers: 3})
	if err := b.CreateTopic("a", 2, map[string]string{"cleanup.policy": "compact"}); err != nil {
		t.Fatal(err)
	}
	if err := b.CreateTopic("a", 2, nil); !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Errorf("created twice: %v", err)
	}
	if got := b.Cluster().TopicInfo("a"); got == nil || *got.Configs["cleanup.policy"] != "compact" {
		t.Errorf("topic %+v", got)
	}
	if err := b.DeleteTopic("a"); err != nil {
		t.Fatal(err)
	}
	b.Stop()
	if err := b.DeleteTopic("a"); err == nil {
		t.Error("a stopped broker deleted a topic")
	}
}

func TestFaults(t *testing.T) {
	b := kafkatest.Start(t, kafkatest.Options{Topics: map[string]int{"a": 1}})
	once := confluent.ConfigMap{"message.send.max.retries": 0, "message.timeout.ms": 30000, "reconnect.backoff.ms": 1, "reconnect.backoff.max.ms": 10}
	plain := producer(t, b, once)
	careful := producer(t, b, confluent.ConfigMap{"enable.idempotence": true, "reconnect.backoff.ms": 1, "reconnect.backoff.max.ms": 10, "retry.backoff.ms": 1, "retry.backoff.max.ms": 10})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(send(plain, "1"))
	must(send(careful, "2"))

	fault := b.Fail(kmsg.Produce, kerr.InvalidRecord, 1)
	if err := send(plain, "refused"); err == nil || fault.Hits() != 1 {
		t.Errorf("error %v, %d hits", err, fault.Hits())
	}
	lost := b.LoseRequest(kmsg.Produce)
	if err := send(plain, "lost"); err == nil {
		t.Error("a lost request succeeded")
	}
	<-lost
	lost = b.LoseAnswer(kmsg.Produce)
	if err := send(plain, "3"); err == nil {
		t.Error("a lost response arrived")
	}
	<-lost
	lost = b.LoseAnswer(kmsg.Produce)
	must(send(careful, "4")) // sent twice, and deduplicated by the broker
	<-lost

	begin := time.Now()
	b.Delay(kmsg.Produce, 300*time.Millisecond)
	must(send(careful, "5"))
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("a response with a delay of 300 ms came after %v", took)
	}
	b.Heal()

	b.Disconnect()
	must(send(careful, "6"))
	b.Cut()
	sent := make(chan error, 1)
	go func() { sent <- send(careful, "7") }()
	select {
	case err := <-sent:
		t.Errorf("sent while the network was cut: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	b.Heal()
	must(<-sent)

	want := []string{"1", "2", "3", "4", "5", "6", "7"}
	for i, got := range read(t, b, "a", len(want)) {
		if got != want[i] {
			t.Errorf("message %d is %q, want %q", i, got, want[i])
		}
	}
}
