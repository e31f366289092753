// Package kafka publishes a log to Kafka topics, each record exactly once, and reads such topics.
//
// [Relay] copies the records of an [es.Log] to topics. Readers that read committed messages only, which librdkafka's do by default,
// find there each record once, and those of one stream in order. [Encoding] says what the messages look like, and [Decode] reads one.
//
// Clients are librdkafka's, by confluent-kafka-go. [ConfigMap] is its: whatever a cluster asks for, TLS, SASL and the like, is set there.
package kafka

import "github.com/confluentinc/confluent-kafka-go/v2/kafka"

// ConfigMap is the configuration of librdkafka, by the names that it documents, such as "bootstrap.servers".
type ConfigMap = kafka.ConfigMap
