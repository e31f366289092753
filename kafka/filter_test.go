package kafka_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/logged"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// note appends one record of a type, and returns its position.
func note(t testing.TB, log es.Log, kind string) es.Position {
	t.Helper()
	position, err := log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: "1"}, Expected: es.AnyVersion, Events: []es.Record{{Type: kind, Data: []byte("{}")}}})
	if err != nil {
		t.Fatal(err)
	}
	return position
}

// Records before the checkpoint that only a widened filter lets through would never be published.
func TestARelayRefusesAChangedFilter(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(r *kafka.Relay, log *es.Mem){
		"with leases":    func(r *kafka.Relay, log *es.Mem) { r.Leases = log },
		"without leases": func(*kafka.Relay, *es.Mem) {},
		"at least once":  func(r *kafka.Relay, log *es.Mem) { r.Leases, r.AtLeastOnce = log, log },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, log := testserver.FakeBroker(t, kafkatest.Options{}), new(es.Mem)
			with := func(types ...string) *kafka.Relay {
				r := relay(b, log)
				change(r, log)
				r.Filter.Types = types
				return r
			}
			publish := func(kind string, types ...string) {
				t.Helper()
				run := runRelay(t, with(types...))
				run.reaches(note(t, log, kind))
				run.mustStop()
			}
			if err := with("a").Refilter(t.Context()); err != nil {
				t.Fatalf("before the first run: %v", err)
			}
			note(t, log, "b")
			publish("a", "a")
			publish("a", "a", "a") // the same filter
			if err := runRelay(t, with("b", "a")).failure("accept the change with Refilter"); !errors.Is(err, es.ErrInvalid) {
				t.Errorf("got %v, want an error that wraps es.ErrInvalid", err)
			}
			old := runRelay(t, with("a"))
			old.reaches(note(t, log, "a"))
			if err := with("b", "a").Refilter(t.Context()); err != nil {
				t.Fatal(err)
			}
			note(t, log, "a")
			if err := old.wait(); !errors.Is(err, es.ErrInvalid) && !errors.Is(err, kafka.ErrFenced) {
				t.Errorf("the relay with the old filter ended with %v", err)
			}
			publish("b", "a", "b")
			runRelay(t, with("a")).ends("was", "Refilter")
			if err := with().Reset(t.Context(), 0); err != nil { // publishes again, with another filter
				t.Fatal(err)
			}
			publish("c")
		})
	}
}

// The relay of an older release keeps no filter. The first one of this release keeps its own, and says so.
func TestARelayAdoptsACheckpointWithoutAFilter(t *testing.T) {
	t.Parallel()
	b, log := testserver.FakeBroker(t, kafkatest.Options{}), new(es.Mem)
	heard := new(logged.Text)
	filtered := func(types ...string) *kafka.Relay {
		r := relay(b, log)
		r.Filter.Types, r.Logger = types, heard.Logger()
		return r
	}
	run := runRelay(t, filtered("a"))
	run.reaches(note(t, log, "a"))
	run.mustStop()
	// What an older release writes when it takes over.
	value, err := json.Marshal(map[string]any{"store": log.ID(), "relay": "relay", "position": 1, "holder": "old", "records": 1, "trusted": true})
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Bootstrap))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	message := &kgo.Record{Topic: kafka.CheckpointTopic(b.Prefix), Key: []byte(log.ID() + "/relay"), Value: value}
	if err := client.ProduceSync(t.Context(), message).FirstErr(); err != nil {
		t.Fatal(err)
	}
	run = runRelay(t, filtered("c"))
	run.reaches(note(t, log, "c"))
	run.mustStop()
	if !strings.Contains(heard.String(), "filter kept with the checkpoint for the first time") {
		t.Errorf("the log does not say that the filter is kept:\n%s", heard)
	}
	runRelay(t, filtered("a")).ends("Refilter")
}
