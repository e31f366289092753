package kafka_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
)

// Clients in other languages must read what the relay writes. These tests run them on real Kafka.

// A reading is a message as another client has read it.
type reading struct {
	partition, wanted int
	offset            int64
	key, value        string
	headers           map[string]string
}

// relayed publishes events of some accounts by a relay to a topic of real Kafka, and returns them.
func relayed(t *testing.T, encoding kafka.Encoding) (b testserver.Broker, topic, store string, all []es.Record) {
	t.Helper()
	b = testserver.RealBroker(t)
	log := new(es.Mem)
	for i := range 200 {
		stream := es.Stream{Kind: "account", ID: fmt.Sprintf("konto-%d-ä", i%23)}
		meta := map[string]string{es.MetaCorrelation: fmt.Sprintf("transfer/%d", i), "who": "Jürgen"}
		if i%3 == 0 {
			meta = nil
		}
		_, err := log.Append(t.Context(), es.Append{Stream: stream, Expected: es.AnyVersion, Events: []es.Record{{
			Type: "deposited", Data: []byte(fmt.Sprintf(`{"amount":%d,"text":"Grüße"}`, i)), Meta: meta,
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for r, err := range log.All(t.Context(), 0, es.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	r := &kafka.Relay{
		Log: log, Prefix: b.Prefix, Encoding: encoding, Batch: 70, // several transactions
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": b.Bootstrap}}, Topics: kafka.Topics{Partitions: 7, Replication: 1},
	}
	stop := start(t, r.Run)
	insist(t, "the relay publishes", func() error {
		if at := r.Stats().Position; at < 200 {
			return fmt.Errorf("it is at %d", at)
		}
		return nil
	})
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return b, b.Prefix + ".account", log.ID(), all
}

func output(t *testing.T, c *exec.Cmd) []string {
	t.Helper()
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", c, err, stderr.String())
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func plain(t *testing.T, field string) string {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(field)
	if err != nil {
		t.Fatalf("%q: %v", field, err)
	}
	return string(text)
}

func TestJavaReadsTheTopicsAndAgreesOnPartitions(t *testing.T) {
	t.Parallel()
	encodings(t, func(t *testing.T, encoding kafka.Encoding) {
		b, topic, store, all := relayed(t, encoding)
		source, err := filepath.Abs(filepath.Join("testdata", "interop", "Reader.java"))
		if err != nil {
			t.Fatal(err)
		}
		lines := output(t, testserver.JavaClient(t, source, b.Bootstrap, topic, strconv.Itoa(len(all))))
		readings := make([]reading, len(lines))
		for i, line := range lines {
			fields := strings.Split(line, "\t")
			r := reading{key: plain(t, fields[3]), value: plain(t, fields[4]), headers: make(map[string]string)}
			if _, err := fmt.Sscan(strings.Join(fields[:3], " "), &r.partition, &r.wanted, &r.offset); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			for _, header := range fields[5:] {
				name, value, _ := strings.Cut(header, "=")
				r.headers[plain(t, name)] = plain(t, value)
			}
			readings[i] = r
		}
		check(t, readings, store, all, encoding)
	})
}

func TestPythonReadsTheTopicsAsCloudEvents(t *testing.T) {
	t.Parallel()
	b, topic, store, all := relayed(t, kafka.CloudEvents)
	python := testserver.Python(t, "confluent-kafka==2.11.1", "cloudevents==1.12.0")
	c := exec.CommandContext(t.Context(), python, filepath.Join("testdata", "interop", "reader.py"), b.Bootstrap, topic, strconv.Itoa(len(all)))
	c.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	lines := output(t, c)
	readings := make([]reading, len(lines))
	for i, line := range lines {
		var event struct {
			Partition  int
			Offset     int64
			Key        string
			Attributes map[string]string
			Data       []byte
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		r := reading{partition: event.Partition, wanted: event.Partition, offset: event.Offset, key: event.Key, value: string(event.Data), headers: make(map[string]string)}
		for name, value := range event.Attributes {
			// The SDK keeps the names of attributes without the prefix they have in headers, and makes one of the key.
			switch name {
			case "partitionkey":
			case "datacontenttype":
				r.headers["content-type"] = value
			default:
				r.headers["ce_"+name] = value
			}
		}
		readings[i] = r
	}
	check(t, readings, store, all, kafka.CloudEvents)
}

// check compares what another client has read with the log.
func check(t *testing.T, readings []reading, store string, all []es.Record, encoding kafka.Encoding) {
	t.Helper()
	if len(readings) != len(all) {
		t.Fatalf("%d messages, of %d", len(readings), len(all))
	}
	byID := make(map[string]es.Record)
	for _, r := range all {
		byID[r.ID()] = r
	}
	versions := make(map[string]es.Version)
	ends := make(map[int]int64)
	for _, got := range readings {
		if got.partition != got.wanted {
			t.Errorf("key %s is in partition %d, and Java would have it in %d", got.key, got.partition, got.wanted)
		}
		if end, seen := ends[got.partition]; seen && got.offset <= end {
			t.Errorf("partition %d has offset %d after %d", got.partition, got.offset, end)
		}
		ends[got.partition] = got.offset
		versions[got.key]++ // the records of a stream come in order, each once
		want, found := byID[fmt.Sprintf("account/%s/%d", got.key, versions[got.key])]
		if !found || got.value != string(want.Data) {
			t.Fatalf("message %d of %s is %q, want %q", versions[got.key], got.key, got.value, want.Data)
		}
		if diff := cmp.Diff(headersOf(store, want, encoding), withoutMeta(got.headers)); diff != "" {
			t.Fatalf("headers of %s: %s", want.ID(), diff)
		}
	}
}

// headersOf returns the headers that the documentation of the encodings promises.
func headersOf(store string, r es.Record, encoding kafka.Encoding) map[string]string {
	if encoding == kafka.Compact {
		return map[string]string{"es": strings.Join([]string{
			store, "account", r.Type, fmt.Sprint(r.Position), fmt.Sprint(r.Version), fmt.Sprint(r.Time.UnixMicro()),
		}, "\x00")}
	}
	h := map[string]string{
		"content-type": "application/json", "ce_specversion": "1.0", "ce_id": r.ID(), "ce_source": store, "ce_type": r.Type,
		"ce_time": r.Time.Format(time.RFC3339Nano), "ce_subject": r.Stream.String(),
		"ce_streamversion": fmt.Sprint(r.Version), "ce_position": fmt.Sprint(r.Position),
	}
	if correlation, ok := r.Meta[es.MetaCorrelation]; ok {
		h["ce_correlationid"] = correlation
	}
	return h
}

// withoutMeta removes the headers with other metadata, which only this package reads.
func withoutMeta(headers map[string]string) map[string]string {
	delete(headers, "es-meta")
	delete(headers, "ce_meta")
	return headers
}
