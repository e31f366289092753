package client

import (
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
			config, err := ConsumerConfig(c.user, "group", c.drain)
			if err != nil || config["max.poll.interval.ms"] != c.want {
				t.Errorf("got %v and error %v, want %d", config["max.poll.interval.ms"], err, c.want)
			}
		})
	}
}
