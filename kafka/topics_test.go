package kafka_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
)

// makeTopic creates a topic on any broker, and returns when the topic is there. Like all that changes a cluster here, it repeats what fails:
// a controller on a busy machine may have no broker for a moment.
func makeTopic(t testing.TB, bootstrap, name string, partitions int32, settings map[string]string) {
	t.Helper()
	c := watcher(t, bootstrap)
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, -1
	for key, value := range settings {
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = key, new(value)
		topic.Configs = append(topic.Configs, config)
	}
	insist(t, "topic "+name+" is created", func() error {
		request := kmsg.NewCreateTopicsRequest()
		request.Topics = append(request.Topics, topic)
		answer, err := request.RequestWith(t.Context(), c)
		if err == nil {
			err = kerr.ErrorForCode(answer.Topics[0].ErrorCode)
		}
		if errors.Is(err, kerr.TopicAlreadyExists) { // by an attempt without an answer
			return nil
		}
		return err
	})
	eventually(t, "topic "+name+" is there", func() bool {
		all, err := topicsOf(t.Context(), c, name)
		return err == nil && len(all[name]) == int(partitions)
	})
}

func deleteTopic(t testing.TB, bootstrap, name string) {
	t.Helper()
	c := watcher(t, bootstrap)
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = &name
	insist(t, "topic "+name+" is deleted", func() error {
		request := kmsg.NewDeleteTopicsRequest()
		request.Topics, request.TopicNames = append(request.Topics, topic), []string{name}
		answer, err := request.RequestWith(t.Context(), c)
		if err == nil {
			err = kerr.ErrorForCode(answer.Topics[0].ErrorCode)
		}
		if errors.Is(err, kerr.UnknownTopicOrPartition) { // an attempt without an answer has deleted it
			return nil
		}
		return err
	})
	eventually(t, "topic "+name+" is gone", func() bool {
		all, err := topicsOf(t.Context(), c, name)
		return err == nil && len(all) == 0
	})
}

func setting(t testing.TB, bootstrap, topic, name, value string) {
	t.Helper()
	c := watcher(t, bootstrap)
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value = name, &value
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	resource.Configs = append(resource.Configs, config)
	insist(t, "set "+name+" of "+topic, func() error {
		request := kmsg.NewIncrementalAlterConfigsRequest()
		request.Resources = append(request.Resources, resource)
		answer, err := request.RequestWith(t.Context(), c)
		if err == nil {
			err = kerr.ErrorForCode(answer.Resources[0].ErrorCode)
		}
		return err
	})
}

// settingsOf returns the named settings of a topic.
func settingsOf(t testing.TB, bootstrap, topic string, names ...string) map[string]string {
	t.Helper()
	c := watcher(t, bootstrap)
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType, resource.ResourceName, resource.ConfigNames = kmsg.ConfigResourceTypeTopic, topic, names
	settings := make(map[string]string)
	insist(t, "settings of topic "+topic, func() error {
		request := kmsg.NewDescribeConfigsRequest()
		request.Resources = append(request.Resources, resource)
		answer, err := request.RequestWith(t.Context(), c)
		if err == nil {
			err = kerr.ErrorForCode(answer.Resources[0].ErrorCode)
		}
		if err != nil {
			return err
		}
		for _, config := range answer.Resources[0].Configs {
			if slices.Contains(names, config.Name) && config.Value != nil {
				settings[config.Name] = *config.Value
			}
		}
		return nil
	})
	return settings
}

// The time of a message is its record's. A topic with a cluster's default retention would lose an old log as soon as it is published.
func TestTopicsThatARelayCreatesKeepTheirRecords(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		names := []string{"retention.ms", "retention.bytes", "min.insync.replicas", "max.message.bytes"}
		for _, test := range []struct {
			topics kafka.Topics
			want   map[string]string
		}{
			{kafka.Topics{Partitions: 2}, map[string]string{"retention.ms": "-1", "retention.bytes": "-1"}},
			{
				kafka.Topics{Partitions: 2, MinInSync: 1, Config: map[string]string{"retention.ms": "86400000", "max.message.bytes": "500000"}},
				map[string]string{"retention.ms": "86400000", "retention.bytes": "-1", "min.insync.replicas": "1", "max.message.bytes": "500000"},
			},
		} {
			b.Prefix += "x" // other topics
			r := relay(b, new(es.Mem))
			r.Topics = test.topics
			publishMore(t, r, 5)
			topic := b.Prefix + "." + published(t, b.Bootstrap, b.Prefix+".")[0].record.Stream.Kind
			got := settingsOf(t, b.Bootstrap, topic, names...)
			for name, want := range test.want {
				if got[name] != want {
					t.Errorf("%s of topic %s is %q, want %q", name, topic, got[name], want)
				}
			}
		}
	})
}
