package kafka_test

import (
	"context"
	"fmt"
	"time"

	"github.com/thalo-go/es/kafka"
)

// generateToken stands for signer.GenerateAuthToken of github.com/aws/aws-msk-iam-sasl-signer-go.
func generateToken(context.Context, string) (token string, expires int64, err error) {
	return "", 0, nil
}

// AWS IAM, for Amazon MSK: a signed request is the token.
func ExampleCluster_iam() {
	cluster := kafka.Cluster{
		Config: kafka.ConfigMap{"bootstrap.servers": "b-1.bank.kafka.eu-central-1.amazonaws.com:9098", "security.protocol": "SASL_SSL", "sasl.mechanisms": "OAUTHBEARER"},
		Token: func(ctx context.Context) (kafka.Token, error) {
			token, expires, err := generateToken(ctx, "eu-central-1") // signer.GenerateAuthToken
			return kafka.Token{TokenValue: token, Expiration: time.UnixMilli(expires), Principal: "bank"}, err
		},
	}
	fmt.Println(cluster.Config["sasl.mechanisms"])
	// Output: OAUTHBEARER
}

// entraToken stands for a credential of github.com/Azure/azure-sdk-for-go/sdk/azidentity, whose GetToken returns both.
func entraToken(context.Context, string) (token string, expires time.Time, err error) {
	return "", time.Time{}, nil
}

// Microsoft Entra, for Azure Event Hubs: the scope names the namespace.
func ExampleCluster_entra() {
	cluster := kafka.Cluster{
		Config: kafka.ConfigMap{"bootstrap.servers": "bank.servicebus.windows.net:9093", "security.protocol": "SASL_SSL", "sasl.mechanisms": "OAUTHBEARER"},
		Token: func(ctx context.Context) (kafka.Token, error) {
			token, expires, err := entraToken(ctx, "https://bank.servicebus.windows.net/.default") // credential.GetToken
			return kafka.Token{TokenValue: token, Expiration: expires, Principal: "bank"}, err
		},
	}
	fmt.Println(cluster.Config["sasl.mechanisms"])
	// Output: OAUTHBEARER
}
