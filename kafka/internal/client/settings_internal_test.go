package client

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// librdkafka refuses a max.poll.interval.ms below session.timeout.ms, and a member that waits for its handlers does not poll.
func TestPollIntervalOfAConsumer(t *testing.T) {
	for _, c := range []struct {
		name  string
		user  ConfigMap
		drain time.Duration
		want  int
	}{
		{"default", ConfigMap{}, 10 * time.Second, 60_000},
		{"a long Drain", ConfigMap{}, 5 * time.Minute, 330_000},
		{"a long session", ConfigMap{"session.timeout.ms": 90_000}, 0, 90_000},
		{"a long session, as text", ConfigMap{"session.timeout.ms": "90000"}, 0, 90_000},
		{"the user's", ConfigMap{"max.poll.interval.ms": 50_000}, time.Hour, 50_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.user["bootstrap.servers"] = "127.0.0.1:1"
			config, err := ConsumerConfig(Cluster{Config: c.user}, "group", c.drain)
			if err != nil || config["max.poll.interval.ms"] != c.want {
				t.Errorf("got %v and error %v, want %d", config["max.poll.interval.ms"], err, c.want)
			}
		})
	}
}

// One rule of sizes holds for every producer: no batch exceeds the smallest limit of its topics, and a message may be as large as its topic allows.
func TestSizesOfProducers(t *testing.T) {
	brokers := func(more ConfigMap) Cluster {
		more["bootstrap.servers"] = "127.0.0.1:1"
		return Cluster{Config: more}
	}
	for name, merge := range map[string]func(Cluster) (ConfigMap, error){
		"relay": RelayConfig,
		"transactional": func(c Cluster) (ConfigMap, error) {
			config, err := RelayConfig(c)
			if err != nil {
				return nil, err
			}
			return Transactional(config, "id"), nil
		},
		"at least once": func(c Cluster) (ConfigMap, error) {
			config, err := RelayConfig(c)
			if err != nil {
				return nil, err
			}
			return Gapless(config), nil
		},
		"dead letters": DeadLetterConfig,
	} {
		t.Run(name, func(t *testing.T) {
			for _, limit := range []int{1, 20_000, 1_048_588, LargestMessage} {
				for _, user := range []ConfigMap{{}, {"batch.size": 5000}, {"batch.size": 2_000_000}, {"batch.size": "2000000"}} {
					config, err := merge(brokers(user))
					if err != nil {
						t.Fatal(err)
					}
					config = sized(config, limit)
					if size := config["batch.size"].(int); size > max(1, limit-limit/64) || config["message.max.bytes"] != LargestMessage {
						t.Errorf("with limit %d and %v batches have %d bytes, and messages %v", limit, user, size, config["message.max.bytes"])
					}
				}
			}
			if _, err := merge(brokers(ConfigMap{"message.max.bytes": 5})); err == nil {
				t.Error("message.max.bytes is accepted")
			}
		})
	}
}

// The letters of several workers go to one partition. With two requests in flight, the first could be lost; see relay.first.
func TestDeadLettersAreSentByOneRequestAtATime(t *testing.T) {
	config, err := DeadLetterConfig(Cluster{Config: ConfigMap{"bootstrap.servers": "127.0.0.1:1"}})
	if err != nil || config["max.in.flight.requests.per.connection"] != 1 {
		t.Errorf("%v requests are in flight, %v", config["max.in.flight.requests.per.connection"], err)
	}
	if _, err = DeadLetterConfig(Cluster{Config: ConfigMap{"bootstrap.servers": "127.0.0.1:1", "max.in.flight": 5}}); err == nil {
		t.Error("5 requests in flight are accepted")
	}
}

// All clients are opened in this package, with their sizes and their login.
func TestClientsAreOpenedHere(t *testing.T) {
	opens := regexp.MustCompile(`kafka\.New(Producer|Consumer|AdminClient)\(`)
	found := make(map[string]int)
	err := filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if n := len(opens.FindAll(text, -1)); n > 0 {
			found[path] += n
		}
		return err
	})
	want := map[string]int{"../../internal/client/producer.go": 1, "../../internal/client/reader.go": 1}
	if err != nil || !maps.Equal(found, want) {
		t.Errorf("clients are opened in %v, want %v, %v", found, want, err)
	}
}
