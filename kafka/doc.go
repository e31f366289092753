// Package kafka publishes a log to Kafka topics, each record exactly once, and reads such topics.
//
// [Relay] copies the records of an [es.Log] to topics. A reader that reads only committed messages, which is librdkafka's default,
// gets each record once and the records of one stream in order. [Encoding] describes the messages, and [Decode] reads one.
//
// [Source] makes topics the source of projections and reactions. [Consumer] handles the records of topics at least once,
// and [DeadLetters] shows what a consumer has parked.
//
// The clients are librdkafka's, by way of confluent-kafka-go. [Cluster] has their settings, such as addresses, TLS and SASL.
package kafka
