package relay

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
)

// checkpoint is the progress of a relay: the value of a message in the checkpoint topic, written in the same transaction as the records it covers.
type checkpoint struct {
	Store    string      `json:"store"`
	Relay    string      `json:"relay"`
	Position es.Position `json:"position"` // every record up to here is published, parked, or excluded by the filter

	// Filter is the relay's in its canonical form. "" means that a release that does not keep it has written the checkpoint.
	Filter string `json:"filter,omitempty"`

	// Last is the last record published. If the log has a different record at its position, the database was restored from an older copy and written to since.
	Last *published `json:"last,omitempty"`

	// Topics are those that the relay has written to, as they were the first time.
	Topics map[string]client.Topic `json:"topics,omitempty"`

	// Trusted, after a Reset, lets the relay write to topics that have records of this store already.
	Trusted bool `json:"trusted,omitempty"`

	Parked []parked `json:"parked,omitempty"`

	Holder    string    `json:"holder"` // the process that wrote it
	At        time.Time `json:"at"`
	Records   int64     `json:"records"` // published since the first checkpoint
	Takeovers int64     `json:"takeovers"`
}

type published struct {
	Position es.Position `json:"position"`
	ID       string      `json:"id"`
	Time     time.Time   `json:"time"`
}

func (c checkpoint) clone() checkpoint {
	c.Topics = maps.Clone(c.Topics)
	c.Parked = slices.Clone(c.Parked)
	return c
}

// loadCheckpoint reads the last checkpoint of this relay. It waits for transactions that are open at the time of the call.
// others are the keys of other relays that it has seen.
func (r *Relay) loadCheckpoint(ctx context.Context, admin *kafka.AdminClient) (c checkpoint, found bool, others map[string]bool, err error) {
	low, high, err := client.Watermarks(ctx, admin, r.checkpoints())
	if err != nil {
		return c, false, nil, err
	}
	others = make(map[string]bool)
	// Usually it is among the last messages, but other relays may have written after it.
	for window := int64(200); ; window *= 10 {
		from := max(low, high-window)
		for m, err := range client.ReadPartition(ctx, client.CheckpointReader(r.producer), r.trouble, r.checkpoints(), from, high) {
			if err != nil {
				return c, false, nil, err
			}
			if string(m.Key) != r.key {
				others[string(m.Key)] = true
				continue
			}
			found = true
			c = checkpoint{}
			if err := json.Unmarshal(m.Value, &c); err != nil {
				return c, false, nil, client.Permanentf("invalid checkpoint of relay %s at %d: %w; Reset the relay", r.Name, m.TopicPartition.Offset, err)
			}
		}
		if found || from == low {
			return c, found, others, nil
		}
	}
}

// checkFilter refuses a filter other than that of the checkpoint: records before the checkpoint that only the new one lets through would
// never be published.
func (r *Relay) checkFilter(c *checkpoint, found bool) error {
	switch {
	case c.Filter != "" && c.Filter != r.filter:
		return client.Invalid("the Filter of relay %s was %.100s, not %.100s: accept the change with Refilter, or publish again with Reset", r.Name, c.Filter, r.filter)
	case c.Filter == "" && found:
		r.log.Info("kafka: filter kept with the checkpoint for the first time", "filter", r.filter)
	}
	c.Filter = r.filter
	return nil
}

// checkHistory checks that the log still has what the checkpoint says was published.
func (r *Relay) checkHistory(ctx context.Context, c *checkpoint) error {
	head, err := es.Head(ctx, r.Log)
	if err != nil {
		return err
	}
	r.Stats.set(func(s *Snapshot) { s.Head, s.Position, s.Known = head, c.Position, true })
	if c.Position > head {
		return client.Permanentf("checkpoint of relay %s: %w", r.key, &es.AheadError{After: c.Position, Head: head})
	}
	if c.Last == nil {
		return nil
	}
	for record, err := range r.Log.All(ctx, c.Last.Position-1, es.Filter{}) {
		if err != nil {
			return err
		}
		if record.Position == c.Last.Position && record.ID() == c.Last.ID && record.Time.Equal(c.Last.Time) {
			return nil
		}
		return client.Permanentf("relay %s published %s at %d, the log has %s: database restored and written to since; Reset to where they part",
			r.Name, c.Last.ID, c.Last.Position, record.ID())
	}
	return client.Permanentf("relay %s published %s at %d, the log has nothing there: database restored; Reset the relay", r.Name, c.Last.ID, c.Last.Position)
}
