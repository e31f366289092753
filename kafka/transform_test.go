package kafka_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// public makes nothing of opened, one message of deposited, and two of withdrawn.
func public(r es.Record) ([]kafka.Message, error) {
	switch r.Type {
	case "deposited":
		return []kafka.Message{{Type: "bank.moved", Data: r.Data, ContentType: "application/vnd.bank+json", Headers: map[string]string{"user": r.Meta["user"], "tenant": "blue"}}}, nil
	case "withdrawn":
		return []kafka.Message{{Type: "bank.moved", Data: r.Data}, {Type: "bank.checked", Meta: map[string]string{"by": "us"}}}, nil
	}
	return nil, nil
}

// publicRecords are the records that readers get of what public makes of a log.
func publicRecords(t testing.TB, log es.Log) map[es.Stream][]es.Record {
	all := make(map[es.Stream][]es.Record)
	for _, r := range recorded(t, log, es.Filter{}) {
		messages, err := public(r)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range messages {
			all[r.Stream] = append(all[r.Stream], es.Record{
				Stream: r.Stream, Version: r.Version, Position: r.Position, Time: r.Time, Type: m.Type, Data: m.Data, Meta: m.Meta, Part: i + 1,
			})
		}
	}
	return all
}

func streamsOf(all []seen) map[es.Stream][]es.Record {
	streams := make(map[es.Stream][]es.Record)
	for _, s := range all {
		streams[s.record.Stream] = append(streams[s.record.Stream], s.record)
	}
	return streams
}

func TestTransformedRecordsArePublishedOnce(t *testing.T) {
	t.Parallel()
	for _, encoding := range []kafka.Encoding{kafka.CloudEvents, kafka.Compact} {
		t.Run(encoding.String(), func(t *testing.T) {
			t.Parallel()
			testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
				log := new(es.Mem)
				transforming := func() *kafka.Relay {
					r := relay(b, log)
					r.Encoding, r.Transform, r.Batch = encoding, public, 20
					return r
				}
				for _, step := range []string{"begun", "producing", "produced", "committed"} {
					fill(t, log, 60)
					dying := transforming()
					dying.Hook(crashAt(step, 2))
					if err := runRelay(t, dying).wait(); !errors.Is(err, errCrash) {
						t.Fatalf("at %q: ended with %v", step, err)
					}
				}
				publishMore(t, transforming(), 60)
				got := streamsOf(published(t, b.Bootstrap, b.Prefix+"."))
				if diff := cmp.Diff(publicRecords(t, log), got, cmpopts.EquateEmpty()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// A reader that drops what it has seen must not drop the second message of a record.
func TestPartsOfARecordAreNoDuplicates(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		again := func() *kafka.Relay {
			r := relay(b, log)
			r.Transform, r.AtLeastOnce, r.Batch, r.Topics.Partitions = public, log, 20, 1
			r.Route = func(es.Record) string { return b.Prefix + ".public" }
			return r
		}
		for range 3 {
			fill(t, log, 60)
			dying := again()
			dying.Hook(crashAt("acknowledged", 2))
			if err := runRelay(t, dying).wait(); !errors.Is(err, errCrash) {
				t.Fatalf("ended with %v", err)
			}
		}
		publishMore(t, again(), 60)
		s, err := kafka.SourceConfig{
			Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": b.Bootstrap}}, Topics: []string{b.Prefix + ".public"}, Deduplicate: true, Logger: testLog(t),
		}.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		want := publicRecords(t, log)
		whole, cursors, _ := readAll(t, feed(t, s, b.Prefix+".public/0", 0, es.Filter{}), 0, 20)
		for _, from := range []int{0, len(whole) / 3, len(whole) / 2} {
			records := whole
			if from > 0 {
				records, _, _ = readAll(t, feed(t, s, b.Prefix+".public/0", cursors[from-1], es.Filter{}), cursors[from-1], 20)
			}
			got := make(map[es.Stream][]es.Record)
			for _, r := range append(whole[:from:from], records...) {
				got[r.Stream] = append(got[r.Stream], r)
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("from the record %d on: %s", from, diff)
			}
		}
		if !slices.ContainsFunc(s.Stats(), func(s kafka.SourceStats) bool { return s.Dropped > 0 }) {
			t.Error("no duplicate was dropped: the crashes have not come about")
		}
	})
}

func TestHeadersOfAMessage(t *testing.T) {
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{})
	log := new(es.Mem)
	trace := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	r := relay(b, log)
	r.Topics.Partitions = 1
	r.Transform = func(r es.Record) ([]kafka.Message, error) {
		messages, err := public(r)
		for i := range messages {
			messages[i].Meta = map[string]string{"traceparent": trace}
		}
		return messages, err
	}
	last, err := log.Append(t.Context(), es.Append{
		Stream: es.Stream{Kind: "account", ID: "1"},
		Events: []es.Record{{Type: "deposited", Data: []byte("{}"), Meta: map[string]string{"user": "eve"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	run := runRelay(t, r)
	run.reaches(last)
	run.mustStop()
	c := watcher(t, b.Bootstrap, kgo.ConsumeTopics(b.Prefix+".account"))
	got := make(map[string]string)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(got) == 0 && ctx.Err() == nil {
		c.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			for _, h := range r.Headers {
				got[h.Key] = string(h.Value)
			}
		})
	}
	for key, want := range map[string]string{
		"content-type": "application/vnd.bank+json", "ce_id": "account/1/1.1", "ce_part": "1", "ce_streamversion": "1", "ce_traceparent": trace,
		"user": "eve", "tenant": "blue", "ce_type": "bank.moved", "ce_subject": "account/1",
	} {
		if got[key] != want {
			t.Errorf("header %s is %q, want %q", key, got[key], want)
		}
	}
	var meta map[string]string
	if err := json.Unmarshal([]byte(got["ce_meta"]), &meta); err != nil || meta["traceparent"] != trace {
		t.Errorf("ce_meta is %s, which readers of older releases need", got["ce_meta"])
	}
}

func TestWhatTransformMayNotReturn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		made []kafka.Message
		err  error
		says string
	}{
		"no type":             {[]kafka.Message{{}}, nil, "message 1: no type"},
		"a header of ours":    {[]kafka.Message{{Type: "a"}, {Type: "a", Headers: map[string]string{"ce_id": "1"}}}, nil, `message 2: header "ce_id"`},
		"the content type":    {[]kafka.Message{{Type: "a", Headers: map[string]string{"content-type": "text/plain"}}}, nil, `header "content-type"`},
		"metadata of no text": {[]kafka.Message{{Type: "a", Meta: map[string]string{"k": "\xff"}}}, nil, "invalid metadata"},
		"an error":            {nil, errBroken, errBroken.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := testserver.FakeBroker(t, kafkatest.Options{})
			r := relay(b, new(es.Mem))
			r.Transform = func(es.Record) ([]kafka.Message, error) { return c.made, c.err }
			fill(t, r.Log, 1)
			err := runRelay(t, r).wait()
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "transform ") {
				t.Errorf("Run returned %v, want %q", err, c.says)
			}
		})
	}
	t.Run("a panic", func(t *testing.T) {
		t.Parallel()
		r := relay(testserver.FakeBroker(t, kafkatest.Options{}), new(es.Mem))
		r.Transform = func(es.Record) ([]kafka.Message, error) { panic("no") }
		fill(t, r.Log, 1)
		if err := runRelay(t, r).wait(); !errors.As(err, new(*es.PanicError)) {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Run("unavailable is tried again", func(t *testing.T) {
		t.Parallel()
		r := relay(testserver.FakeBroker(t, kafkatest.Options{}), new(es.Mem))
		until := time.Now().Add(100 * time.Millisecond)
		r.Transform = func(r es.Record) ([]kafka.Message, error) {
			if time.Now().Before(until) {
				return nil, fmt.Errorf("the keys are away: %w", es.ErrUnavailable)
			}
			return public(r)
		}
		publishMore(t, r, 10)
	})
}

// All messages of a record are published, or none.
func TestARecordWithAMessageThatIsTooLargeIsParkedWhole(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		r := relay(b, log)
		r.TooLarge, r.Topics.Config = es.Park, map[string]string{"max.message.bytes": "100000"}
		r.Transform = func(r es.Record) ([]kafka.Message, error) {
			return []kafka.Message{{Type: "small"}, {Type: "copy", Data: r.Data}}, nil
		}
		var last es.Position
		for _, size := range []int{10, 200_000, 10} {
			var err error
			if last, err = log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: "1"}, Expected: es.AnyVersion, Events: []es.Record{{Type: "e", Data: make([]byte, size)}}}); err != nil {
				t.Fatal(err)
			}
		}
		run := runRelay(t, r)
		run.reaches(last)
		parked := r.Stats().Parked
		run.mustStop()
		var ids []string
		for _, s := range published(t, b.Bootstrap, b.Prefix+".") {
			ids = append(ids, s.record.ID())
		}
		if diff := cmp.Diff([]string{"account/1/1.1", "account/1/1.2"}, ids); diff != "" || len(parked) != 1 || parked[0].Version != 2 {
			t.Errorf("parked %+v, published %s", parked, diff)
		}
	})
}
