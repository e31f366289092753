package kafka

import (
	"context"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/deadletter"
)

// ConfigMap is the configuration of librdkafka, by the names that it documents, such as "bootstrap.servers".
type ConfigMap = kafka.ConfigMap

// Cluster configures the connection to a Kafka cluster. One value serves all relays, consumers and sources of a program.
type Cluster struct {
	// Config is librdkafka's configuration: "bootstrap.servers", and TLS, SASL and the like if the cluster requires them.
	// Settings that a guarantee depends on are set by this package, and other values for them are refused.
	Config ConfigMap

	// Token returns a token for SASL OAUTHBEARER, such as one of AWS IAM or Microsoft Entra. It is called again when four fifths of the
	// token's time have passed, from other goroutines, with a context that ends after 30 seconds. Its errors are retried, logged, and in Stats.
	// nil is for clusters with other mechanisms, and for sasl.oauthbearer.method=oidc, with which librdkafka gets tokens itself.
	Token func(ctx context.Context) (Token, error)
}

// Token is the token of confluent-kafka-go: its value, expiry and principal.
type Token = kafka.OAuthBearerToken

func (c Cluster) client() client.Cluster { return client.Cluster{Config: c.Config, Token: c.Token} }

// NoTopicError reports that a topic, its field Topic, does not exist, or that this user may not see it.
// Usually its relay has not run yet, the name is wrong, or the topic was deleted.
type NoTopicError = client.NoTopicError

// CheckpointTopic returns the name of the topic that has the checkpoints of the relays with a prefix.
func CheckpointTopic(prefix string) string { return "_" + prefix + ".relay-checkpoints" }

// DeadLetterTopic returns the name of the topic in which a consumer group parks the failed records of a topic.
func DeadLetterTopic(topic, group string) string { return deadletter.Topic(topic, group) }
