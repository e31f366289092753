package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

// A checkpoint is how far a relay has come: the value of a message in the checkpoint topic, written in the transaction of what it speaks of.
type checkpoint struct {
	Store    string      `json:"store"`
	Relay    string      `json:"relay"`
	Position es.Position `json:"position"` // everything up to here is published, parked, or held back by the filter

	// Last is the last record published: if the log has another in its place, its database was restored from an older copy and written to since.
	Last *published `json:"last,omitempty"`

	// Topics are those that the relay has written to, as they were the first time.
	Topics map[string]topicMark `json:"topics,omitempty"`

	// Trusted, after a Reset, lets the relay write to topics that have records of this store already.
	Trusted bool `json:"trusted,omitempty"`

	Parked []parked `json:"parked,omitempty"`

	Holder    string    `json:"holder"` // who wrote it
	At        time.Time `json:"at"`
	Records   int64     `json:"records"` // since the first
	Takeovers int64     `json:"takeovers"`
}

type published struct {
	Position es.Position `json:"position"`
	ID       string      `json:"id"`
	Time     time.Time   `json:"time"`
}

// A topicMark tells a topic from one that was made anew under its name.
type topicMark struct {
	ID         string `json:"id"`
	Partitions int32  `json:"partitions"`
}

type parked struct {
	Kind    string     `json:"kind"`
	ID      string     `json:"id"`
	Version es.Version `json:"version"`
	Error   string     `json:"error"`
}

func (p parked) stream() es.Stream { return es.Stream{Kind: p.Kind, ID: p.ID} }

func checkpointKey(store, relay string) string { return store + "/" + relay }

// loadCheckpoint reads the last checkpoint under a key, committed or not begun to be: with all transactions that were open when it was called ended.
// others are the keys of other relays that it came by.
func (w *work) loadCheckpoint(ctx context.Context, admin *kafka.AdminClient) (c checkpoint, found bool, others map[string]bool, err error) {
	low, high, err := watermarks(ctx, admin, w.checkpointTopic, 0)
	if err != nil {
		return c, false, nil, err
	}
	others = make(map[string]bool)
	// As a rule it is among the last; other relays may have written after it.
	for window := int64(200); ; window *= 10 {
		from := max(low, high-window)
		err := w.readPartition(ctx, w.checkpointTopic, 0, from, high, func(m *kafka.Message) error {
			if string(m.Key) != w.key {
				others[string(m.Key)] = true
				return nil
			}
			found = true
			c = checkpoint{}
			if err := json.Unmarshal(m.Value, &c); err != nil {
				return stopf("checkpoint %v of relay %s cannot be read: %w; it was written by something else: find out what, then Reset the relay", m.TopicPartition, w.key, err)
			}
			return nil
		})
		if err != nil || found || from == low {
			return c, found, others, err
		}
	}
}

// watermarks returns the first offset of a partition and the one behind the last, transactions that are open included.
func watermarks(ctx context.Context, admin *kafka.AdminClient, topic string, partition int32) (low, high int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	ask := func(spec kafka.OffsetSpec) (int64, error) {
		at := kafka.TopicPartition{Topic: &topic, Partition: partition}
		answer, err := admin.ListOffsets(ctx, map[kafka.TopicPartition]kafka.OffsetSpec{at: spec}, kafka.SetAdminIsolationLevel(kafka.IsolationLevelReadUncommitted))
		if err != nil {
			return 0, fmt.Errorf("kafka: offsets of topic %s: %w", topic, err)
		}
		for _, info := range answer.ResultInfos {
			if info.Error.Code() != kafka.ErrNoError {
				return 0, fmt.Errorf("kafka: offsets of topic %s: %w", topic, info.Error)
			}
			return int64(info.Offset), nil
		}
		return 0, fmt.Errorf("kafka: offsets of topic %s: no answer", topic)
	}
	if low, err = ask(kafka.EarliestOffsetSpec); err != nil {
		return 0, 0, err
	}
	high, err = ask(kafka.LatestOffsetSpec)
	return low, high, err
}

const (
	askTime  = 10 * time.Second       // how long a question to the cluster may take
	pollTime = 100 * time.Millisecond // how late a reader notices that its context has ended
)

// readPartition reads what is committed between two offsets. It waits for transactions to end that are open there.
func (w *work) readPartition(ctx context.Context, topic string, partition int32, from, to int64, visit func(*kafka.Message) error) error {
	if from >= to {
		return nil
	}
	c, err := kafka.NewConsumer(checkpointReader(w.config))
	if err != nil {
		return fmt.Errorf("kafka: read topic %s: %w", topic, err)
	}
	ended := make(chan struct{})
	var heard sync.WaitGroup
	heard.Go(func() { hear(c.Logs(), w.r.log, ended) })
	defer heard.Wait()
	defer close(ended)
	defer closeBounded("the reader of topic "+topic, w.r.log, func() { _ = c.Close() }) // it has written nothing
	if err := c.Assign([]kafka.TopicPartition{{Topic: &topic, Partition: partition, Offset: kafka.Offset(from)}}); err != nil {
		return fmt.Errorf("kafka: read topic %s: %w", topic, err)
	}
	complain := time.Now().Add(askTime)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch e := c.Poll(int(pollTime.Milliseconds())).(type) {
		case *kafka.Message:
			if int64(e.TopicPartition.Offset) >= to {
				return nil
			}
			if err := visit(e); err != nil {
				return err
			}
		case kafka.PartitionEOF:
			if int64(e.Offset) >= to {
				return nil
			}
		case kafka.Error:
			if e.IsFatal() || !passing(e) {
				return fmt.Errorf("kafka: read topic %s: %w", topic, e)
			}
		}
		if time.Now().After(complain) {
			complain = time.Now().Add(askTime)
			w.r.log.Warn("kafka: reading a topic waits for transactions of others, or for the cluster", "topic", topic, "partition", partition, "up to", to)
		}
	}
}

// passing tells whether librdkafka mends an error of a reader itself.
func passing(e kafka.Error) bool {
	switch e.Code() {
	case kafka.ErrTopicAuthorizationFailed, kafka.ErrUnknownTopicOrPart, kafka.ErrUnknownTopic, kafka.ErrUnknownPartition, kafka.ErrAutoOffsetReset:
		return false
	}
	return true
}

// closeBounded closes a client. If that hangs, which it may after a fatal error, it is left behind.
func closeBounded(what string, log *slog.Logger, closing func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		closing()
	}()
	timer := time.NewTimer(askTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		log.Error("kafka: closing takes too long: it is left to itself", "what", what, "after", askTime)
	}
}

// asKafka returns librdkafka's error within another.
func asKafka(err error) (e kafka.Error, ok bool) {
	ok = errors.As(err, &e)
	return e, ok
}
