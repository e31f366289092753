package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
)

// A role is a part of this package with the rights that docs/operations.md lists for it.
type role struct {
	rights []need
	run    func(t *testing.T, s secured, as kafka.ConfigMap) error // nil when the role has done its work
}

// A need is a right, and what an error says if it is missing.
type need struct {
	testserver.Right
	says string
}

// secured is a broker with topics that others have written to.
type secured struct {
	testserver.SecureBroker
	topic, dead, group string
}

// always returns a need that no run goes without.
func always(n need) need {
	n.says = ""
	return n
}

func may(operation kmsg.ACLOperation, kind kmsg.ACLResourceType, name, says string) need {
	return need{testserver.Right{Operation: operation, Type: kind, Name: name}, says}
}

// relayNeeds are the rights of a relay whose topics exist.
func relayNeeds(s secured) []need {
	checkpoints := kafka.CheckpointTopic(s.Prefix)
	id := may(kmsg.ACLOperationWrite, kmsg.ACLResourceTypeTransactionalId, s.Prefix+".", "Write on transactional id "+s.Prefix+".")
	id.Prefixed = true
	return []need{
		id,
		may(kmsg.ACLOperationRead, kmsg.ACLResourceTypeTopic, checkpoints, "Read on topic "+checkpoints),
		may(kmsg.ACLOperationWrite, kmsg.ACLResourceTypeTopic, checkpoints, "Write on topic "+checkpoints),
		may(kmsg.ACLOperationDescribeConfigs, kmsg.ACLResourceTypeTopic, checkpoints, "DescribeConfigs on topic "+checkpoints),
		may(kmsg.ACLOperationRead, kmsg.ACLResourceTypeTopic, s.topic, "Read on topic "+s.topic),
		may(kmsg.ACLOperationWrite, kmsg.ACLResourceTypeTopic, s.topic, "Write on topic "+s.topic),
		may(kmsg.ACLOperationDescribeConfigs, kmsg.ACLResourceTypeTopic, s.topic, "DescribeConfigs on topic "+s.topic),
	}
}

func relayAs(t *testing.T, s secured, as kafka.ConfigMap, kind string, topics kafka.Topics) error {
	log := new(es.Mem)
	last := appendTo(t, log, kind, "1")
	r := &kafka.Relay{Log: log, Prefix: s.Prefix, Topics: topics, Cluster: kafka.Cluster{Config: as}, Logger: testLog(t)}
	return until(t, r.Run, func() bool { return r.Stats().Position >= last })
}

// until runs a function until a condition holds, and returns its error if it ends before.
func until(t *testing.T, run func(context.Context) error, holds func() bool) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	for !holds() {
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func roles(s secured) map[string]role {
	readTopic := may(kmsg.ACLOperationRead, kmsg.ACLResourceTypeTopic, s.topic, "Describe on topic "+s.topic)
	readGroup := may(kmsg.ACLOperationRead, kmsg.ACLResourceTypeGroup, s.group, "Read on group "+s.group)
	readDead := may(kmsg.ACLOperationRead, kmsg.ACLResourceTypeTopic, s.dead, "Read on topic "+s.dead)
	writeDead := may(kmsg.ACLOperationWrite, kmsg.ACLResourceTypeTopic, s.dead, "Write on topic "+s.dead)
	create := may(kmsg.ACLOperationCreate, kmsg.ACLResourceTypeTopic, s.Prefix+".transfer", "Create on topic "+s.Prefix+".transfer")
	consume := func(t *testing.T, as kafka.ConfigMap, onError es.OnError, fails bool) error {
		c := &kafka.Consumer{Cluster: kafka.Cluster{Config: as}, Group: s.group, Topics: []string{s.topic}, OnError: onError, Retries: -1, Logger: testLog(t)}
		got := newCollector()
		if fails {
			got.fail = func(es.Record) error { return errBroken }
		}
		return until(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) }, func() bool {
			got.mu.Lock()
			defer got.mu.Unlock()
			stats := c.Stats()
			return len(got.records) > 0 || fails && len(stats) > 0 && stats[0].Parked > 0
		})
	}
	return map[string]role{
		"a relay": {relayNeeds(s), func(t *testing.T, s secured, as kafka.ConfigMap) error {
			return relayAs(t, s, as, "account", kafka.Topics{})
		}},
		"a relay that creates topics": {
			[]need{
				create, relayNeeds(s)[0], relayNeeds(s)[1], relayNeeds(s)[2], relayNeeds(s)[3],
				may(kmsg.ACLOperationWrite, kmsg.ACLResourceTypeTopic, s.Prefix+".transfer", " on topic "+s.Prefix+".transfer"),
				may(kmsg.ACLOperationDescribeConfigs, kmsg.ACLResourceTypeTopic, s.Prefix+".transfer", "DescribeConfigs on topic "+s.Prefix+".transfer"),
			},
			func(t *testing.T, s secured, as kafka.ConfigMap) error {
				return relayAs(t, s, as, "transfer", kafka.Topics{Partitions: 1})
			},
		},
		"a source": {[]need{readTopic}, func(t *testing.T, s secured, as kafka.ConfigMap) error {
			source, err := kafka.SourceConfig{Cluster: kafka.Cluster{Config: as}, Topics: []string{s.topic}, Logger: testLog(t)}.Open(t.Context())
			if err != nil {
				return err
			}
			defer source.Close()
			f, err := source.Feed(t.Context(), s.topic+"/0", 0, es.Filter{})
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.Next(t.Context(), 10)
			return err
		}},
		"a consumer with Stop": {[]need{readTopic, readGroup}, func(t *testing.T, _ secured, as kafka.ConfigMap) error {
			return consume(t, as, es.Stop, false)
		}},
		"a consumer with Park": {[]need{readTopic, readGroup, readDead, writeDead}, func(t *testing.T, _ secured, as kafka.ConfigMap) error {
			return consume(t, as, es.Park, true)
		}},
		"dead letters": {[]need{writeDead, always(readDead), always(readGroup)}, func(t *testing.T, _ secured, as kafka.ConfigMap) error {
			letters := &kafka.DeadLetters{Cluster: kafka.Cluster{Config: as}, Topic: s.topic, Group: s.group, Logger: testLog(t)}
			for _, err := range letters.All(t.Context()) {
				if err != nil {
					return err
				}
			}
			return letters.Retry(t.Context(), kafka.DeadLetter{Key: "1"})
		}},
	}
}

// secure makes the topics of a role, with a record of another store in them and a checkpoint of its relay.
func secure(t *testing.T, b testserver.SecureBroker) secured {
	t.Helper()
	s := secured{SecureBroker: b, topic: b.Prefix + ".account", group: b.Prefix + "-notify"}
	s.dead = kafka.DeadLetterTopic(s.topic, s.group)
	request := kmsg.NewCreateTopicsRequest()
	for topic, policy := range map[string]string{s.topic: "delete", s.dead: "delete", kafka.CheckpointTopic(b.Prefix): "compact"} {
		creation := kmsg.NewCreateTopicsRequestTopic()
		creation.Topic, creation.NumPartitions, creation.ReplicationFactor = topic, 1, 1
		setting := kmsg.NewCreateTopicsRequestTopicConfig()
		setting.Name, setting.Value = "cleanup.policy", &policy
		creation.Configs = append(creation.Configs, setting)
		request.Topics = append(request.Topics, creation)
	}
	answer, err := request.RequestWith(t.Context(), b.Admin)
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range answer.Topics {
		if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
			t.Fatal(err)
		}
	}
	m, err := kafka.Compact.Encode("another", es.Record{Stream: es.Stream{Kind: "account", ID: "1"}, Version: 1, Position: 1, Type: "opened"}, s.topic)
	if err != nil {
		t.Fatal(err)
	}
	record := &kgo.Record{Topic: s.topic, Key: m.Key, Value: []byte("{}")}
	for _, h := range m.Headers {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	checkpoint := &kgo.Record{Topic: kafka.CheckpointTopic(b.Prefix), Key: []byte("another/relay"), Value: []byte("{}")}
	if err := b.Admin.ProduceSync(t.Context(), record, checkpoint).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return s
}

// Each role works with the rights that docs/operations.md lists, and without any one of them says which is missing.
func TestTheDocumentedRightsSuffice(t *testing.T) {
	t.Parallel()
	testserver.EachSecureBroker(t, func(t *testing.T, b testserver.SecureBroker) {
		first := b
		for _, name := range slices.Sorted(maps.Keys(roles(secured{SecureBroker: b}))) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for missing := -1; missing < len(roles(secured{SecureBroker: b})[name].rights); missing++ {
					own := first
					own.Prefix = fmt.Sprintf("%s-%s-%d", first.Prefix, strings.ReplaceAll(name, " ", "-"), missing+1)
					s := secure(t, own)
					r := roles(s)[name]
					if missing >= 0 && r.rights[missing].says == "" {
						continue
					}
					var rights []testserver.Right
					for i, n := range r.rights {
						if i != missing {
							rights = append(rights, n.Right)
						}
					}
					as := kafka.ConfigMap{}
					for key, value := range own.User(t, "user", rights...) {
						as[key] = value
					}
					err := r.run(t, s, as)
					switch {
					case missing < 0 && err != nil:
						t.Fatalf("with all rights: %v", err)
					case missing < 0:
					case err == nil || !strings.Contains(err.Error(), r.rights[missing].says) || !strings.Contains(err.Error(), "User:"+own.Prefix+"-user needs the right"):
						t.Errorf("without %q: %v", r.rights[missing].says, err)
					}
				}
			})
		}
	})
}

// Listing the letters of a topic that may be written and not read says which right is missing. It neither waits nor lists nothing.
func TestLettersThatMayNotBeReadAreNotListed(t *testing.T) {
	t.Parallel()
	testserver.EachSecureBroker(t, func(t *testing.T, b testserver.SecureBroker) {
		s := secure(t, b)
		letter := &kgo.Record{Topic: s.dead, Key: []byte("1"), Value: []byte("{}"), Headers: []kgo.RecordHeader{{Key: "es-dlt", Value: []byte("parked")}}}
		if err := b.Admin.ProduceSync(t.Context(), letter).FirstErr(); err != nil {
			t.Fatal(err)
		}
		as := kafka.ConfigMap{}
		for key, value := range b.User(t, "user",
			testserver.Right{Operation: kmsg.ACLOperationWrite, Type: kmsg.ACLResourceTypeTopic, Name: s.dead},
			testserver.Right{Operation: kmsg.ACLOperationRead, Type: kmsg.ACLResourceTypeGroup, Name: s.group}) {
			as[key] = value
		}
		letters := &kafka.DeadLetters{Cluster: kafka.Cluster{Config: as}, Topic: s.topic, Group: s.group, Logger: testLog(t)}
		var got error
		for _, err := range letters.All(t.Context()) {
			got = err
		}
		if got == nil || !strings.Contains(got.Error(), "Read on topic "+s.dead) {
			t.Errorf("got %v, want the right that is missing", got)
		}
	})
}
