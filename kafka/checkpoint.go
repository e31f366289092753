package kafka

import (
	"context"
	"encoding/json"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
)

// A checkpoint is how far a relay has come: the value of a message in the checkpoint topic, written in the transaction of what it speaks of.
type checkpoint struct {
	Store    string      `json:"store"`
	Relay    string      `json:"relay"`
	Position es.Position `json:"position"` // everything up to here is published, parked, or held back by the filter

	// Last is the last record published: if the log has another in its place, its database was restored from an older copy and written to since.
	Last *published `json:"last,omitempty"`

	// Topics are those that the relay has written to, as they were the first time.
	Topics map[string]client.Topic `json:"topics,omitempty"`

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
	low, high, err := client.Watermarks(ctx, admin, w.checkpoints())
	if err != nil {
		return c, false, nil, err
	}
	others = make(map[string]bool)
	// As a rule it is among the last; other relays may have written after it.
	for window := int64(200); ; window *= 10 {
		from := max(low, high-window)
		for m, err := range client.ReadPartition(ctx, client.CheckpointReader(w.config), w.r.log, w.checkpoints(), from, high) {
			if err != nil {
				return c, false, nil, err
			}
			if string(m.Key) != w.key {
				others[string(m.Key)] = true
				continue
			}
			found = true
			c = checkpoint{}
			if err := json.Unmarshal(m.Value, &c); err != nil {
				return c, false, nil, client.Permanentf("checkpoint %v of relay %s: %w; something else wrote it: find out what, then Reset the relay", m.TopicPartition, w.key, err)
			}
		}
		if found || from == low {
			return c, found, others, nil
		}
	}
}

func (w *work) checkpoints() client.Partition { return client.Partition{Topic: w.checkpointTopic} }
