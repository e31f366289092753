package relay

import (
	"context"
	"encoding/json"
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

	// Topics are those that the relay has written to, as they were the first time. It is never changed, only replaced.
	Topics map[string]client.Topic `json:"topics,omitempty"`

	// List, if not 0, says that Topics are in the message of this number with the key of the checkpoint and listSuffix: there are too many to
	// write them with each checkpoint.
	List int64 `json:"list,omitempty"`

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
	c.Parked = slices.Clone(c.Parked)
	return c
}

const (
	inlineTopics = 50        // the most topics that are written with each checkpoint
	listAgain    = 150       // checkpoints after which the list is written again, so that it is among the last messages
	listSuffix   = "/topics" // no name of a relay has a slash
)

// topicList is the topics of a relay that has many.
type topicList struct {
	Number int64                   `json:"number"`
	Topics map[string]client.Topic `json:"topics"`
}

// list moves the topics of a checkpoint into a list if they are many. It returns the list if it has to be written: a new one after a change,
// and at the beginning of a session, and the same one now and then.
func (s *session) list(c *checkpoint) (written checkpoint, list *topicList) {
	written = *c
	if len(c.Topics) <= inlineTopics {
		written.List, c.List, s.listed = 0, 0, 0
		return written, nil
	}
	if c.List == 0 || len(c.Topics) != s.listed {
		c.List++
		s.listed, s.sinceList = len(c.Topics), 0
	}
	if s.sinceList%listAgain == 0 {
		list = &topicList{c.List, c.Topics}
	}
	s.sinceList++
	written.List, written.Topics = c.List, nil
	return written, list
}

// loadCheckpoint reads the last checkpoint of this relay. It waits for transactions that are open at the time of the call.
// others are the keys of other relays that it has seen.
func (r *Relay) loadCheckpoint(ctx context.Context, admin *kafka.AdminClient) (c checkpoint, found bool, others map[string]bool, err error) {
	low, high, err := client.Watermarks(ctx, admin, r.checkpoints())
	if err != nil {
		return c, false, nil, err
	}
	others = make(map[string]bool)
	var list topicList
	// Usually it is among the last messages, but other relays may have written after it.
	for window := int64(200); ; window *= 10 {
		from := max(low, high-window)
		for m, err := range client.ReadPartition(ctx, client.CheckpointReader(r.producer), r.trouble, r.checkpoints(), from, high) {
			if err != nil {
				return c, false, nil, err
			}
			var into any = &c
			switch string(m.Key) {
			case r.key:
				found, c = true, checkpoint{}
			case r.key + listSuffix:
				list, into = topicList{}, &list
			default:
				others[string(m.Key)] = true
				continue
			}
			if err := json.Unmarshal(m.Value, into); err != nil {
				return c, false, nil, client.Permanentf("invalid checkpoint of relay %s at %d: %w; Reset the relay", r.Name, m.TopicPartition.Offset, err)
			}
		}
		if found && c.List != 0 && c.List == list.Number {
			c.Topics = list.Topics
			return c, found, others, nil
		}
		if found && c.List == 0 || !found && from == low {
			return c, found, others, nil
		}
		if from == low {
			return c, false, nil, client.Permanentf("checkpoint of relay %s lacks its list of topics %d; Reset the relay", r.Name, c.List)
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
