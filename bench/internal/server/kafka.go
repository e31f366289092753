package server

import (
	"context"
	"fmt"
	"os"

	"github.com/thalo-go/es/internal/test/testserver"
)

// Kafka is a cluster for measurements of relays and consumers.
type Kafka struct {
	Bootstrap string
	private   *testserver.Kafka // nil for a cluster that ES_TEST_KAFKA names
}

// StartKafka returns the cluster that ES_TEST_KAFKA names, or starts a private one with one node.
// Close or the end of the program stops a private cluster.
func StartKafka() (*Kafka, error) {
	if bootstrap := os.Getenv("ES_TEST_KAFKA"); bootstrap != "" {
		return &Kafka{Bootstrap: bootstrap}, nil
	}
	private, err := testserver.LaunchKafka(testserver.KafkaOptions{})
	if err != nil {
		return nil, fmt.Errorf("start a private Kafka: %w; or set ES_TEST_KAFKA", err)
	}
	return &Kafka{Bootstrap: private.Bootstrap(), private: private}, nil
}

// Version returns the release of a private cluster. It returns "" for a cluster that ES_TEST_KAFKA names.
func (k *Kafka) Version() string {
	if k.private == nil {
		return ""
	}
	return k.private.Release()
}

// Quota limits the bytes per second that producers with a client.id may write.
func (k *Kafka) Quota(ctx context.Context, client string, bytes float64) error {
	return testserver.ProducerQuota(ctx, k.Bootstrap, client, bytes)
}

// Close stops a private cluster.
func (k *Kafka) Close() error {
	if k.private == nil {
		return nil
	}
	return k.private.Close()
}
