package kafka

import (
	"slices"
	"strings"
	"time"
)

// PartitionStats is how a [Consumer] stands at one of the partitions that it has. It is made for encoding/json, and so for expvar.
type PartitionStats struct {
	Topic     string
	Partition int32
	Done      int64   // the offset before which everything was handled or parked; -1 if nothing has come since the partition was assigned
	Committed int64   // the last offset that was committed in this run; -1 if none was
	End       int64   // of the partition, as far as is known; -1 if it is not
	Lag       int64   // offsets between Done and End; -1 if either is not known. Control records have offsets too: it is no count of records
	Behind    float64 // seconds since the first record was written that is here and not done; 0 if there is none
	Buffered  int     // messages in memory, those being handled among them
	Parked    int     // keys that are parked
	Handled   int64   // records, in this run and the like below
	Failed    int64   // attempts that failed and were followed by another
	Filtered  int64   // messages that the filter held back
	PutAside  int64   // records that were parked
}

// Stats returns how the partitions stand that the consumer has, sorted by topic and partition; none if it does not run.
func (c *Consumer) Stats() []PartitionStats {
	c.mu.Lock()
	r := c.running
	c.mu.Unlock()
	if r == nil {
		return nil
	}
	var all []PartitionStats
	for _, p := range r.all() {
		all = append(all, p.stats())
	}
	slices.SortFunc(all, func(a, b PartitionStats) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition - b.Partition)
	})
	return all
}

func (p *partition) stats() PartitionStats {
	parked := p.letterbox.parked()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PartitionStats{
		Topic: p.Topic, Partition: p.Number, Done: -1, Committed: p.committed, End: p.end, Lag: -1, Buffered: p.messages, Parked: parked,
		Handled: p.counts.handled, Failed: p.counts.retried, Filtered: p.counts.filtered, PutAside: p.counts.parked,
	}
	if _, high, err := p.r.client.GetWatermarkOffsets(p.Topic, p.Number); err == nil {
		s.End = max(s.End, high)
	}
	if p.offsets.next > 0 {
		s.Done = p.offsets.upTo()
		if s.End >= 0 {
			s.Lag = max(0, s.End-s.Done)
		}
	}
	if since, ok := p.offsets.oldest(); ok {
		s.Behind = max(0, time.Since(since).Seconds())
	}
	return s
}
