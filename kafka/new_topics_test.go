package kafka_test

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
)

// logged keeps what is logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// A topic that is created has no leader for a moment. That must not end the session, which would abort the batch in flight.
func TestNewTopicsDoNotCostASession(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		r := relay(b, log)
		var out logged
		r.Logger = out.logger()
		r.Route = func(r es.Record) string { return b.Prefix + ".tenant-" + r.Stream.ID }
		r.Topics.Partitions = 6
		run := runRelay(t, r)
		for tenant := range 12 {
			last, err := log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: fmt.Sprint(tenant)}, Events: []es.Record{{Type: "opened"}}})
			if err != nil {
				t.Fatal(err)
			}
			run.reaches(last)
		}
		run.mustStop()
		if n := out.count("relay works"); n != 1 || r.Stats().Retries > 0 {
			t.Errorf("%d sessions, %d retries, want 1 and 0:\n%s", n, r.Stats().Retries, out.text.String())
		}
	})
}
