package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

func TestACodeIsPermanentUnlessItIsKnownToPass(t *testing.T) {
	wrapped := func(code kafka.ErrorCode) error {
		return fmt.Errorf("kafka: commit: %w", kafka.NewError(code, "Broker: it failed", false))
	}
	if err := Final(wrapped(9999)); err == nil || !strings.Contains(err.Error(), "permanent") {
		t.Errorf("a code that is not known: %v", err)
	}
	for code, remedy := range remedies {
		if err := Final(wrapped(code)); err == nil || !strings.Contains(err.Error(), remedy) {
			t.Errorf("%v: %v", code, err)
		}
	}
	for code := range rights {
		var denied *DeniedError
		if err := Final(wrapped(code)); !errors.As(err, &denied) {
			t.Errorf("%v: %v", code, err)
		}
	}
	for code := range passing {
		if err := Final(wrapped(code)); err != nil {
			t.Errorf("%v: %v", code, err)
		}
	}
	for _, err := range []error{nil, errors.New("of another kind"), context.Canceled} {
		if final := Final(err); final != nil {
			t.Errorf("%v: %v", err, final)
		}
	}
}

func TestADeniedErrorNamesOperationResourceAndPrincipal(t *testing.T) {
	err := Denied(fmt.Errorf("kafka: read t [0]: %w", kafka.NewError(kafka.ErrTopicAuthorizationFailed, "Broker: Topic authorization failed", false)), "Read", "topic t")
	err = WithPrincipal(fmt.Errorf("kafka: consumer g: %w", err), Cluster{Config: ConfigMap{"sasl.username": "ann"}})
	if want := "kafka: User:ann needs the right Read on topic t: read t [0]: Broker: Topic authorization failed"; !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v", err)
	}
	if err := Denied(kafka.NewError(kafka.ErrTimedOut, "", false), "Read", "topic t"); err != nil {
		t.Errorf("a timeout is taken for a missing right: %v", err)
	}
}
