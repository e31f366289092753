package kafka_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// makeTopic makes a topic on any broker.
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
	request := kmsg.NewCreateTopicsRequest()
	request.Topics = append(request.Topics, topic)
	answer, err := request.RequestWith(t.Context(), c)
	if err == nil {
		err = kerr.ErrorForCode(answer.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("make topic %s: %v", name, err)
	}
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
	request := kmsg.NewDeleteTopicsRequest()
	request.Topics, request.TopicNames = append(request.Topics, topic), []string{name}
	answer, err := request.RequestWith(t.Context(), c)
	if err == nil {
		err = kerr.ErrorForCode(answer.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("delete topic %s: %v", name, err)
	}
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
	request := kmsg.NewIncrementalAlterConfigsRequest()
	request.Resources = append(request.Resources, resource)
	answer, err := request.RequestWith(t.Context(), c)
	if err == nil {
		err = kerr.ErrorForCode(answer.Resources[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("set %s of %s: %v", name, topic, err)
	}
}
