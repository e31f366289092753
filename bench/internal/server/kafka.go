package server

import (
	"fmt"
	"os"

	"github.com/thalo-go/es/internal/test/testserver"
)

// Kafka is a cluster on which relays and consumers are measured.
type Kafka struct {
	Bootstrap string
	private   *testserver.Kafka // nil if it is somebody else's
}

// StartKafka returns the cluster that ES_TEST_KAFKA names, or starts a private one of one node, which ends with Close or with the program.
func StartKafka() (*Kafka, error) {
	if bootstrap := os.Getenv("ES_TEST_KAFKA"); bootstrap != "" {
		return &Kafka{Bootstrap: bootstrap}, nil
	}
	private, err := testserver.LaunchKafka(testserver.KafkaOptions{})
	if err != nil {
		return nil, fmt.Errorf("a private Kafka cannot be started (or name one in ES_TEST_KAFKA): %w", err)
	}
	return &Kafka{Bootstrap: private.Bootstrap(), private: private}, nil
}

// Version is the release of a private cluster, "" if it is somebody else's.
func (k *Kafka) Version() string {
	if k.private == nil {
		return ""
	}
	return k.private.Release()
}

// Close ends a private cluster.
func (k *Kafka) Close() error {
	if k.private == nil {
		return nil
	}
	return k.private.Close()
}
