package client

import (
	"fmt"
	"maps"
	"sync"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// LargestMessage is the limit of a producer: a little more than the message of the largest record.
const LargestMessage = 32 << 20

// Producer is a producer of librdkafka. It forwards librdkafka's log.
type Producer struct {
	*kafka.Producer
	login *login
	logs  sync.WaitGroup
	ended chan struct{}
}

// OpenProducer returns a producer, which reports its errors to t. It changes nothing in config.
//
// All producers are opened here, so that one rule of sizes holds for all. limit is the smallest max.message.bytes of the topics
// that the producer writes to, and no batch exceeds it. A single message may be as large as its own topic allows, which the
// brokers check, and the relay does before.
func OpenProducer(config ConfigMap, limit int, t *Trouble) (*Producer, error) {
	config = sized(config, limit)
	p, err := kafka.NewProducer(&config)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w: %w", es.ErrInvalid, explainOpen(err))
	}
	o := &Producer{Producer: p, ended: make(chan struct{})}
	o.logs.Go(func() { t.Forward(p.Logs(), o.ended) })
	o.login = t.login(p)
	return o, nil
}

// Close closes the producer. Its events must be received until then.
func (p *Producer) Close() {
	p.login.end()
	p.Producer.Close()
	close(p.ended)
	p.logs.Wait()
}

// sized returns a configuration with the sizes of messages and batches.
func sized(config ConfigMap, limit int) ConfigMap {
	config = maps.Clone(config)
	delete(config, "isolation.level") // a setting of consumers
	config["message.max.bytes"] = LargestMessage
	config["go.logs.channel.enable"] = true
	if config["batch.size"] == nil {
		config["batch.size"] = BatchSize(LargestMessage)
	}
	if size, ok := config["batch.size"].(int); !ok || size > BatchSize(limit) {
		config["batch.size"] = BatchSize(limit)
	}
	return config
}

// BatchSize returns the largest batch.size for a topic with a limit. It leaves room for data that grows when it is compressed.
func BatchSize(limit int) int { return max(1, min(1_000_000, limit-limit/64)) }
