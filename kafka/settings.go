package kafka

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// relaySettings are what a relay's producer is made with; the user's own go over them.
var relaySettings = ConfigMap{
	"client.id":                    "es",
	"linger.ms":                    50, // a commit does not wait for it
	"batch.num.messages":           10_000,
	"compression.type":             "lz4",
	"queue.buffering.max.messages": 2_000_000,
	"queue.buffering.max.kbytes":   256 << 10,
	"transaction.timeout.ms":       int(DefaultOverdue.Milliseconds()),
	"retry.backoff.ms":             50,
	"reconnect.backoff.ms":         50,
	"reconnect.backoff.max.ms":     1000,
	"enable.metrics.push":          false,
}

// relayPromises are what the promise rests on.
var relayPromises = ConfigMap{
	"acks":                     "all",
	"enable.idempotence":       true,
	"allow.auto.create.topics": false,
	"isolation.level":          "read_committed",
	"go.delivery.reports":      false,
	"go.batch.producer":        false,
	"go.events.channel.size":   1000,
	"go.produce.channel.size":  1,
	"go.logs.channel.enable":   true,
}

// relayOwn are settings that the relay finds out itself.
var relayOwn = map[string]string{
	"transactional.id":          "it is made of Prefix, the store's id and Name",
	"partitioner":               "partitions are murmur2 of the key, as with Java's clients",
	"message.max.bytes":         "the topic's max.message.bytes counts",
	"enable.gapless.guarantee":  "it is on where it can be",
	"go.logs.channel":           "set Logger",
	"message.send.max.retries":  "what fails is sent until its transaction has run out",
	"go.delivery.report.fields": "there are no reports",
	"group.id":                  "a relay is in no group",
}

// aliases are librdkafka's second names of settings.
var aliases = map[string]string{
	"request.required.acks":                 "acks",
	"retries":                               "message.send.max.retries",
	"queue.buffering.max.ms":                "linger.ms",
	"compression.codec":                     "compression.type",
	"metadata.broker.list":                  "bootstrap.servers",
	"delivery.timeout.ms":                   "message.timeout.ms",
	"max.in.flight":                         "max.in.flight.requests.per.connection",
	"max.in.flight.requests.per.connection": "max.in.flight.requests.per.connection",
}

// relayConfig takes the user's configuration over and refuses what would break the promise.
func relayConfig(user ConfigMap) (ConfigMap, error) {
	config := maps.Clone(relaySettings)
	given := maps.Clone(user)
	if topic, ok := given["default.topic.config"].(ConfigMap); ok {
		delete(given, "default.topic.config")
		maps.Copy(given, topic)
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value := given[name]
		key := strings.TrimPrefix(name, "{topic}.")
		key = orElse(aliases[key], key)
		if why, own := relayOwn[key]; own {
			return nil, invalid("setting %s: %s; leave it out", name, why)
		}
		if promised, promise := relayPromises[key]; promise && !sameSetting(value, promised) && (key != "acks" || !sameSetting(value, -1)) {
			return nil, invalid("setting %s=%v: it must be %v, on which exactly once rests; leave it out", name, value, promised)
		}
		config[key] = value
	}
	if config["bootstrap.servers"] == nil {
		return nil, invalid("setting bootstrap.servers is missing: give the addresses of some brokers in Config")
	}
	maps.Copy(config, relayPromises)
	return config, nil
}

// transactional completes the configuration of a producer. No batch may be larger than the smallest topic takes, while a single record may
// be as large as its own topic does: that is looked after before.
func transactional(config ConfigMap, id string, smallest int) *ConfigMap {
	config = maps.Clone(config)
	config["transactional.id"] = id
	return sized(config, smallest)
}

// gapless completes the configuration of a producer without transactions.
func gapless(config ConfigMap, smallest int) *ConfigMap {
	config = maps.Clone(config)
	config["enable.gapless.guarantee"] = true
	config["go.delivery.reports"] = true
	config["go.delivery.report.fields"] = "none"
	config["linger.ms"] = 5 // nothing sends earlier
	delete(config, "transaction.timeout.ms")
	return sized(config, smallest)
}

func sized(config ConfigMap, smallest int) *ConfigMap {
	config["message.max.bytes"] = largest
	delete(config, "isolation.level") // a reader's
	if config["batch.size"] == nil {
		config["batch.size"] = 1_000_000
	}
	if size, ok := config["batch.size"].(int); !ok || size > batchSize(smallest) {
		config["batch.size"] = batchSize(smallest)
	}
	return &config
}

// batchSize is that of batches for a topic that takes so much. What does not compress may grow a little.
func batchSize(most int) int { return max(1, min(1_000_000, most-most/64)) }

// largest is the largest message that a record of the largest size can be, and a little more.
const largest = 32 << 20

// checkpointReader is the configuration of a consumer that reads on behalf of a relay.
func checkpointReader(config ConfigMap) *ConfigMap {
	reader := ConfigMap{}
	for key, value := range config {
		if _, ours := relaySettings[key]; !ours && !strings.HasPrefix(key, "go.") {
			reader[key] = value
		}
	}
	for _, producers := range []string{"acks", "enable.idempotence", "batch.size"} {
		delete(reader, producers)
	}
	maps.Copy(reader, ConfigMap{
		"client.id":                "es",
		"group.id":                 "es-relay", // librdkafka wants one; it is joined by nobody
		"enable.auto.commit":       false,
		"enable.auto.offset.store": false,
		"enable.partition.eof":     true,
		"isolation.level":          "read_committed",
		"auto.offset.reset":        "earliest",
		"fetch.wait.max.ms":        50,
		"fetch.queue.backoff.ms":   20,
		"enable.metrics.push":      false,
		"go.logs.channel.enable":   true,
	})
	return &reader
}

func describe(config ConfigMap) string { return fmt.Sprint(config["bootstrap.servers"]) }
