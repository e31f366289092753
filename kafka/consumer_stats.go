package kafka

import (
	"encoding/json"
	"time"

	"github.com/thalo-go/es/kafka/internal/client"
)

// Lag is the distance of a reader from the end of its partition. It counts offsets, not records: control records and
// filtered records have offsets too. In JSON, Age is ageSeconds, and ClockAhead clockAheadSeconds.
type Lag struct {
	End     int64         // the end of the partition, as far as known
	Offsets int64         // to End
	Age     time.Duration // of the oldest record that is waiting, as far as read; 0 if none is

	// ClockAhead is how far the time of that record is ahead of this machine's clock, because a clock is wrong or was. Age is then the time
	// since this process received the record. 0 means that the clock is right, or that no record waits.
	ClockAhead time.Duration
}

type lagJSON struct {
	End        int64   `json:"end"`
	Offsets    int64   `json:"offsets"`
	Age        float64 `json:"ageSeconds"`
	ClockAhead float64 `json:"clockAheadSeconds,omitzero"`
}

// MarshalJSON implements [json.Marshaler].
func (l Lag) MarshalJSON() ([]byte, error) {
	return json.Marshal(lagJSON{l.End, l.Offsets, l.Age.Seconds(), l.ClockAhead.Seconds()})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (l *Lag) UnmarshalJSON(data []byte) error {
	var in lagJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	*l = Lag{in.End, in.Offsets, time.Duration(in.Age * float64(time.Second)), time.Duration(in.ClockAhead * float64(time.Second))}
	return nil
}

func lagOf(l *client.Lag) *Lag { return (*Lag)(l) }

// PartitionStats is the state of a partition that is assigned to a [Consumer]. Counts begin with the assignment.
type PartitionStats struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`     // -1 if none of the topic is assigned, and Error may say why
	Committed int64  `json:"committed"`     // the next offset to read after a restart; 0 if the group has committed none
	Lag       *Lag   `json:"lag,omitempty"` // nil until messages have been received
	Buffered  int    `json:"buffered"`      // messages in memory, including those being handled
	Parked    int    `json:"parked"`        // keys that are parked
	Handled   int64  `json:"handled"`       // records
	Failed    int64  `json:"failed"`        // attempts that failed and were followed by another
	Filtered  int64  `json:"filtered"`      // messages that Filter excluded
	Foreign   int64  `json:"foreign"`       // messages of other producers that were skipped
	PutAside  int64  `json:"putAside"`      // records that were parked

	Error   string    `json:"error,omitempty"` // the last error of a record, or of the connection to the cluster, that the consumer recovered from or still retries
	ErrorAt time.Time `json:"errorAt,omitzero"`
}

// Stats returns the state of the assigned partitions, sorted by topic and partition. It returns none unless Run is active.
// A topic without one has an entry with Partition -1 if there was an error: the topic does not exist, or the cluster is not available.
func (c *Consumer) Stats() []PartitionStats {
	c.mu.Lock()
	run := c.running
	c.mu.Unlock()
	if run == nil {
		return nil
	}
	var all []PartitionStats
	for _, s := range run.Stats() {
		all = append(all, PartitionStats{
			Topic: s.Topic, Partition: s.Number, Committed: s.Committed, Lag: lagOf(s.Lag), Buffered: s.Buffered, Parked: s.Parked,
			Handled: s.Handled, Failed: s.Failed, Filtered: s.Filtered, Foreign: s.Foreign, PutAside: s.PutAside,
			Error: s.Error, ErrorAt: s.ErrorAt,
		})
	}
	return all
}
