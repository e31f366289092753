package client

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// ConfigMap is the configuration of librdkafka.
type ConfigMap = kafka.ConfigMap

// TransactionTimeout is how long a relay's transaction may be open, unless the user sets transaction.timeout.ms.
const TransactionTimeout = 10 * time.Second

// rules say how the user's settings are merged with those of one kind of client.
type rules struct {
	defaults ConfigMap         // the user's settings override them
	required ConfigMap         // the user may repeat these, but not change them
	refused  map[string]string // settings the user must leave out, with the reason
	reason   string            // what depends on the required settings
}

// relayDefaults also tell which settings belong to a producer only; see CheckpointReader.
var relayDefaults = ConfigMap{
	"client.id":                    "es",
	"linger.ms":                    50, // a commit flushes without waiting for it
	"batch.num.messages":           10_000,
	"compression.type":             "lz4",
	"queue.buffering.max.messages": 2_000_000,
	"queue.buffering.max.kbytes":   256 << 10,
	"transaction.timeout.ms":       int(TransactionTimeout.Milliseconds()),
	"retry.backoff.ms":             50,
	"statistics.interval.ms":       5000, // for how long brokers throttle; see RelayStats
	"reconnect.backoff.ms":         50,
	"reconnect.backoff.max.ms":     1000,
	"enable.metrics.push":          false,
}

var relayRules = rules{
	defaults: relayDefaults,
	required: ConfigMap{
		"acks":                     "all",
		"enable.idempotence":       true,
		"allow.auto.create.topics": false,
		"isolation.level":          "read_committed",
		"go.delivery.reports":      false,
		"go.batch.producer":        false,
		"go.events.channel.size":   1000,
		"go.produce.channel.size":  1,
		"go.logs.channel.enable":   true,
	},
	refused: map[string]string{
		"transactional.id":          "it is made of Prefix, the store's id and Name",
		"partitioner":               "partitions are murmur2 of the key, as with Java's clients",
		"message.max.bytes":         "the topic's max.message.bytes counts",
		"enable.gapless.guarantee":  "the relay sets it where it applies",
		"go.logs.channel":           "set Logger",
		"message.send.max.retries":  "messages are sent again until their transaction times out",
		"go.delivery.report.fields": "there are no reports",
		"group.id":                  "a relay is in no group",
	},
	reason: "exactly once depends",
}

var readerRules = rules{
	defaults: ConfigMap{
		"client.id":                  "es",
		"fetch.wait.max.ms":          100,
		"fetch.queue.backoff.ms":     50,
		"queued.max.messages.kbytes": 16 << 10,
		"enable.metrics.push":        false,
		"allow.auto.create.topics":   false,
	},
	required: ConfigMap{
		"enable.auto.commit":              false,
		"enable.auto.offset.store":        false,
		"enable.partition.eof":            true,
		"auto.offset.reset":               "error", // any other value silently skips what retention has deleted
		"isolation.level":                 "read_committed",
		"partition.assignment.strategy":   "cooperative-sticky",
		"group.protocol":                  "classic",
		"go.events.channel.enable":        false,
		"go.application.rebalance.enable": false,
		"check.crcs":                      true,
	},
	refused: map[string]string{
		"group.id": "give the group as the field Group",
	},
	reason: "delivery guarantees depend",
}

var deadLetterRules = rules{
	defaults: ConfigMap{
		"client.id":                "es",
		"linger.ms":                1,
		"compression.type":         "lz4",
		"allow.auto.create.topics": false,
		"enable.metrics.push":      false,
	},
	required: ConfigMap{
		"acks":                "all",
		"enable.idempotence":  true,
		"go.delivery.reports": true,

		// With two, the first request could be lost: a partition accepts any sequence number from a producer that it has not seen.
		"max.in.flight.requests.per.connection": 1,
	},
	refused: map[string]string{
		"transactional.id":  "it does not belong in the settings of a consumer",
		"message.max.bytes": "the topic's max.message.bytes counts",
	},
	reason: "parked records depend",
}

// aliases are librdkafka's other names of settings.
var aliases = map[string]string{
	"sasl.mechanism":         "sasl.mechanisms",
	"request.required.acks":  "acks",
	"retries":                "message.send.max.retries",
	"queue.buffering.max.ms": "linger.ms",
	"compression.codec":      "compression.type",
	"metadata.broker.list":   "bootstrap.servers",
	"delivery.timeout.ms":    "message.timeout.ms",
	"max.in.flight":          "max.in.flight.requests.per.connection",
}

// merge returns the user's settings with those of the rules. It refuses settings that would break a guarantee.
func (r rules) merge(c Cluster) (ConfigMap, error) {
	if err := c.checkLogin(); err != nil {
		return nil, err
	}
	user, config := c.Config, maps.Clone(r.defaults)
	given := maps.Clone(user)
	if topic, ok := given["default.topic.config"].(ConfigMap); ok {
		delete(given, "default.topic.config")
		maps.Copy(given, topic)
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value := given[name]
		key := strings.TrimPrefix(name, "{topic}.")
		if alias, ok := aliases[key]; ok {
			key = alias
		}
		if why, refused := r.refused[key]; refused {
			return nil, Invalid("setting %s: %s; leave it out", name, why)
		}
		if required, ok := r.required[key]; ok && !sameSetting(value, required) && (key != "acks" || !sameSetting(value, -1)) {
			return nil, Invalid("setting %s=%v: %s on %v; leave it out", name, value, r.reason, required)
		}
		config[key] = value
	}
	if config["bootstrap.servers"] == nil {
		return nil, Invalid("setting bootstrap.servers is missing: give the addresses of some brokers in Config")
	}
	maps.Copy(config, r.required)
	return config, nil
}

// sameSetting reports whether librdkafka takes two values for the same.
func sameSetting(a, b kafka.ConfigValue) bool {
	return strings.EqualFold(fmt.Sprint(a), fmt.Sprint(b))
}

// RelayConfig returns the configuration of a relay's producer, for [Transactional] or [Gapless] to complete.
func RelayConfig(c Cluster) (ConfigMap, error) { return relayRules.merge(c) }

// ReaderConfig returns the configuration of a consumer that uses the offsets of a group and does not join it.
func ReaderConfig(c Cluster, group string) (ConfigMap, error) {
	config, err := memberConfig(c, group)
	delete(config, "group.instance.id") // brokers accept it only from that member
	return config, err
}

// memberConfig returns the configuration of a member of a group.
func memberConfig(c Cluster, group string) (ConfigMap, error) {
	config, err := readerRules.merge(c)
	if err != nil {
		return nil, err
	}
	config["group.id"] = group
	config["go.logs.channel.enable"] = true
	return config, nil
}

// pollInterval is the least max.poll.interval.ms of a consumer, unless the user sets it: how long a process may hang, or be
// killed during a rebalance, before the others of its group go on without it.
const pollInterval = time.Minute

// ConsumerConfig returns the configuration of a consumer that polls all the time, except while it waits up to drain for its handlers.
func ConsumerConfig(c Cluster, group string, drain time.Duration) (ConfigMap, error) {
	config, err := memberConfig(c, group)
	if err != nil {
		return nil, err
	}
	if config["max.poll.interval.ms"] == nil {
		wait := max(pollInterval, drain+pollInterval/2).Milliseconds()
		session, _ := strconv.ParseInt(fmt.Sprint(config["session.timeout.ms"]), 10, 64) // librdkafka refuses what is not a number
		config["max.poll.interval.ms"] = int(max(wait, session))
	}
	return config, nil
}

// DeadLetterConfig returns the configuration of a producer of dead letters.
func DeadLetterConfig(c Cluster) (ConfigMap, error) { return deadLetterRules.merge(c) }

// Transactional completes the configuration of a relay's producer.
func Transactional(config ConfigMap, id string) ConfigMap {
	config = maps.Clone(config)
	config["transactional.id"] = id
	return config
}

// Gapless completes the configuration of a relay's producer without transactions. Its producer fails for good rather than leave a gap.
func Gapless(config ConfigMap) ConfigMap {
	config = maps.Clone(config)
	config["enable.gapless.guarantee"] = true
	config["go.delivery.reports"] = true
	config["go.delivery.report.fields"] = "none"
	config["linger.ms"] = 5 // there is no commit to flush earlier
	delete(config, "transaction.timeout.ms")
	return config
}

// CheckpointReader returns the configuration of a consumer that reads for a relay, from the relay's own.
func CheckpointReader(config ConfigMap) ConfigMap {
	reader := ConfigMap{}
	for key, value := range config {
		if _, ours := relayDefaults[key]; !ours && !strings.HasPrefix(key, "go.") {
			reader[key] = value
		}
	}
	for _, producers := range []string{"acks", "enable.idempotence", "batch.size"} {
		delete(reader, producers)
	}
	maps.Copy(reader, ConfigMap{
		"client.id":                "es",
		"group.id":                 "es-relay", // librdkafka requires one; no client joins it
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
	return reader
}

// Brokers returns the addresses in a configuration, for logs.
func Brokers(config ConfigMap) string { return fmt.Sprint(config["bootstrap.servers"]) }
