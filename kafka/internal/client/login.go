package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// Cluster is how to reach a cluster, as package kafka documents it.
type Cluster struct {
	Config ConfigMap
	Token  func(ctx context.Context) (kafka.OAuthBearerToken, error) // nil unless tokens are the program's own
}

// checkLogin refuses a cluster to which no client could log in, and would not say so.
func (c Cluster) checkLogin() error {
	mechanism, method := "", ""
	unsecured := false
	for key, value := range c.Config {
		switch key {
		case "sasl.mechanism", "sasl.mechanisms":
			mechanism = fmt.Sprint(value)
		case "sasl.oauthbearer.method":
			method = fmt.Sprint(value)
		case "enable.sasl.oauthbearer.unsecure.jwt":
			unsecured = sameSetting(value, true)
		}
	}
	bearer, oidc := strings.EqualFold(mechanism, "OAUTHBEARER"), strings.EqualFold(method, "oidc")
	switch {
	case c.Token != nil && !bearer:
		return Invalid("a Cluster with Token has sasl.mechanisms=%q: set it to OAUTHBEARER, or leave out Token", mechanism)
	case c.Token != nil && oidc:
		return Invalid("a Cluster has Token and sasl.oauthbearer.method=oidc: leave out one of them")
	case bearer && c.Token == nil && !oidc && !unsecured:
		return Invalid("sasl.mechanisms=OAUTHBEARER has no tokens: set Cluster.Token, or sasl.oauthbearer.method=oidc")
	}
	return nil
}

const (
	tokenFor      = 30 * time.Second // the timeout of a call for a token
	leastTokenFor = time.Second      // between two calls for tokens
)

// tokens are the tokens of the clients of a run. They share one while it is fresh.
type tokens struct {
	get func(ctx context.Context) (kafka.OAuthBearerToken, error)

	mu      sync.Mutex
	token   kafka.OAuthBearerToken
	renewAt time.Time
}

// fresh returns a token and when to ask for the next: when four fifths of its time have passed.
func (t *tokens) fresh(ctx context.Context) (kafka.OAuthBearerToken, time.Time, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Now().Before(t.renewAt) {
		return t.token, t.renewAt, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tokenFor)
	defer cancel()
	token, err := t.get(ctx)
	if err != nil {
		return token, time.Time{}, err
	}
	left := time.Until(token.Expiration)
	if left <= 0 {
		return token, time.Time{}, fmt.Errorf("the token expired at %s", token.Expiration.Format(time.RFC3339))
	}
	t.token, t.renewAt = token, time.Now().Add(left*4/5)
	return t.token, t.renewAt, nil
}

// bearer is a client that logs in with tokens.
type bearer interface {
	SetOAuthBearerToken(token kafka.OAuthBearerToken) error
	SetOAuthBearerTokenFailure(message string) error
}

// login gives a client its tokens until end. A nil login does nothing.
type login struct {
	client bearer
	cancel context.CancelFunc

	mu    sync.Mutex
	ended bool
}

// login begins to give a client tokens. It does not wait for librdkafka to ask for them, because it asks by an event that a client
// receives only while it is polled.
func (t *Trouble) login(client bearer) *login {
	if t.tokens == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &login{client: client, cancel: cancel}
	go l.run(ctx, t)
	return l
}

func (l *login) run(ctx context.Context, t *Trouble) {
	for attempt := 0; ; attempt++ {
		token, renewAt, err := t.tokens.fresh(ctx)
		if ctx.Err() != nil {
			return
		}
		if err = l.set(token, err); err == nil {
			attempt = 0
			if Sleep(ctx, max(time.Until(renewAt), leastTokenFor)) != nil {
				return
			}
			continue
		}
		err = fmt.Errorf("kafka: no token to log in with: %w", err)
		t.Note(err)
		t.log.Warn("kafka: no token to log in with, retrying", "err", err)
		if Sleep(ctx, Backoff(attempt)) != nil {
			return
		}
	}
}

// set gives the client a token, or says why there is none.
func (l *login) set(token kafka.OAuthBearerToken, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
		return nil
	case err != nil:
		_ = l.client.SetOAuthBearerTokenFailure(err.Error()) // librdkafka logs it
		return err
	}
	return l.client.SetOAuthBearerToken(token)
}

// end ends the login before its client is closed. It does not wait for a call of the user's function.
func (l *login) end() {
	if l == nil {
		return
	}
	l.cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}

// explainOpen adds a remedy to an error of opening a client.
func explainOpen(err error) error {
	if strings.Contains(err.Error(), "GSSAPI") || strings.Contains(err.Error(), "libsasl2") {
		return errors.New("sasl.mechanisms=GSSAPI: this librdkafka has no Kerberos; build with -tags dynamic against one that has")
	}
	return err
}
