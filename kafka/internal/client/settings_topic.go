package client

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// Settings are the effective settings of a topic.
type Settings map[string]kafka.ConfigEntryResult

// Compacts reports whether the cluster deletes all messages of a key but the last.
func (s Settings) Compacts() bool { return strings.Contains(s.Policy(), "compact") }

// Policy returns the cleanup.policy.
func (s Settings) Policy() string { return s["cleanup.policy"].Value }

// Keeps returns how old a message becomes before the cluster deletes it; 0 means that its age does not matter.
func (s Settings) Keeps() time.Duration {
	ms, err := strconv.ParseInt(s["retention.ms"].Value, 10, 64)
	if err != nil || ms < 0 || ms > int64(maxKeeps/time.Millisecond) || s.Policy() == "compact" {
		return 0
	}
	return max(time.Duration(ms)*time.Millisecond, 1)
}

// maxKeeps is the longest retention that counts as one.
const maxKeeps = 250 * 365 * 24 * time.Hour

// AppendTime reports whether messages have the time at which the broker received them, instead of their own.
func (s Settings) AppendTime() bool { return s["message.timestamp.type"].Value == "LogAppendTime" }

// Fitness checks that topics are set up as their reader needs them.
type Fitness struct {
	Reader *Reader
	Check  func(topic string, s Settings) error // returns an error that wraps es.ErrInvalid for a topic that is not

	blind Sparse
}

// Of checks topics. Its error wraps [es.ErrInvalid] if one is not fit. If the user may not see the settings, Of logs that and
// returns nil: reading needs no such right.
func (f *Fitness) Of(ctx context.Context, topics ...string) error {
	for _, topic := range topics {
		settings, err := TopicSettings(ctx, f.Reader.Admin, topic)
		switch {
		case err != nil && (ctx.Err() != nil || Passes(err)):
			return f.Reader.Trouble.Explain(err)
		case err != nil:
			if f.blind.Due() {
				f.Reader.Trouble.Log().Warn("kafka: cannot check whether a topic keeps its records; grant DescribeConfigs", "topic", topic, "err", err)
			}
		default:
			if err := f.Check(topic, settings); err != nil {
				return err
			}
		}
	}
	return nil
}

// KeepsRecords returns an error that wraps [es.ErrInvalid] if a topic is compacted.
func KeepsRecords(topic string, s Settings) error {
	if !s.Compacts() {
		return nil
	}
	return Invalid("topic %s has cleanup.policy=%s, which drops records: set it to delete, or set AllowCompacted", topic, s.Policy())
}
