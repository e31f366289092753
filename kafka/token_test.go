package kafka_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
)

// The clients of all roles log in with the program's tokens, get new ones before they expire, and survive that there is none for a while.
func TestTokensOfOnesOwn(t *testing.T) {
	t.Parallel()
	testserver.EachSecureBroker(t, func(t *testing.T, b testserver.SecureBroker) {
		if strings.HasSuffix(t.Name(), "/kafkatest") {
			t.Skip("kfake knows no OAUTHBEARER")
		}
		user, topic, group := b.Prefix+"-bearer", b.Prefix+".account", b.Prefix+"-group"
		all := func(kind kmsg.ACLResourceType, name string) testserver.Right {
			return testserver.Right{Operation: kmsg.ACLOperationAll, Type: kind, Name: name, Prefixed: true}
		}
		b.Grant(t.Context(), t, user, all(kmsg.ACLResourceTypeTopic, b.Prefix), all(kmsg.ACLResourceTypeTopic, "_"+b.Prefix), all(kmsg.ACLResourceTypeGroup, b.Prefix), all(kmsg.ACLResourceTypeTransactionalId, b.Prefix))
		var calls atomic.Int64
		config := kafka.ConfigMap{}
		for key, value := range b.Bearer() {
			config[key] = value
		}
		cluster := kafka.Cluster{Config: config, Token: func(context.Context) (kafka.Token, error) {
			if calls.Add(1) == 1 {
				return kafka.Token{}, errors.New("the identity provider is away")
			}
			until := time.Now().Add(4 * time.Second)
			return kafka.Token{TokenValue: testserver.UnsecuredToken(user, until), Expiration: until, Principal: user}, nil
		}}
		log := new(es.Mem)
		r := &kafka.Relay{Log: log, Prefix: b.Prefix, Topics: kafka.Topics{Partitions: 1}, Cluster: cluster, Logger: testLog(t)}
		r.Route = func(es.Record) string { return topic }
		run := runRelay(t, r)
		eventually(t, "Stats say that there is no token", func() bool { return strings.Contains(r.Stats().Error, "identity provider is away") })
		run.reaches(fill(t, log, 20))
		want := len(recorded(t, log, es.Filter{}))
		got := newCollector()
		c := &kafka.Consumer{Cluster: cluster, Group: group, Topics: []string{topic}, OnError: es.Park, Logger: testLog(t)}
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		got.await(t, "the consumer handles all", func() bool { return len(got.records) >= want })
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("the consumer returned %v", err)
		}
		s, err := kafka.SourceConfig{Cluster: cluster, Topics: []string{topic}, Logger: testLog(t)}.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if records, _, _ := readAll(t, feed(t, s, topic+"/0", 0, es.Filter{}), 0, 100); len(records) != want {
			t.Errorf("the source has read %d records of %d", len(records), want)
		}
		before := calls.Load()
		eventually(t, "tokens are renewed", func() bool { return calls.Load() >= before+3 })
		run.reaches(fill(t, log, 20))
		run.mustStop()
	})
}

func TestALoginThatCannotSucceedIsRefused(t *testing.T) {
	t.Parallel()
	token := func(context.Context) (kafka.Token, error) { return kafka.Token{}, errors.New("not called") }
	for name, c := range map[string]struct {
		cluster kafka.Cluster
		says    string
	}{
		"no token":       {kafka.Cluster{Config: kafka.ConfigMap{"sasl.mechanism": "OAUTHBEARER"}}, "set Cluster.Token"},
		"not by tokens":  {kafka.Cluster{Config: kafka.ConfigMap{"sasl.mechanisms": "PLAIN"}, Token: token}, "set it to OAUTHBEARER"},
		"two ways":       {kafka.Cluster{Config: kafka.ConfigMap{"sasl.mechanisms": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc"}, Token: token}, "leave out one"},
		"kerberos, here": {kafka.Cluster{Config: kafka.ConfigMap{"sasl.mechanisms": "GSSAPI", "security.protocol": "SASL_PLAINTEXT"}}, "-tags dynamic"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.cluster.Config["bootstrap.servers"] = "127.0.0.1:1"
			for role, run := range map[string]func() error{
				"relay": func() error {
					return (&kafka.Relay{Log: new(es.Mem), Prefix: "p", Cluster: c.cluster}).Run(t.Context())
				},
				"consumer": func() error {
					return (&kafka.Consumer{Group: "g", Topics: []string{"t"}, OnError: es.Park, Cluster: c.cluster}).Run(t.Context(), newCollector().handle)
				},
				"source": func() error {
					_, err := kafka.SourceConfig{Topics: []string{"t"}, Cluster: c.cluster}.Open(t.Context())
					return err
				},
				"dead letters": func() error {
					return (&kafka.DeadLetters{Topic: "t", Group: "g", Cluster: c.cluster}).Retry(t.Context(), kafka.DeadLetter{})
				},
			} {
				if err := run(); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 200 {
					t.Errorf("%s: %v, want %q", role, err, c.says)
				}
			}
		})
	}
}
