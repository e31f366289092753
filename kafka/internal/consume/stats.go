package consume

import (
	"cmp"
	"slices"
	"time"

	"github.com/thalo-go/es/kafka/internal/client"
)

// Stats is the state of one assigned partition.
type Stats struct {
	client.Partition
	Committed int64 // the group's offset; 0 if there is none
	Lag       *client.Lag
	Buffered  int
	Parked    int
	Handled   int64
	Failed    int64
	Filtered  int64
	Foreign   int64
	PutAside  int64
}

// Stats returns the state of the assigned partitions, sorted by topic and number.
func (r *Run) Stats() []Stats {
	var all []Stats
	for _, p := range r.all() {
		all = append(all, p.stats())
	}
	slices.SortFunc(all, func(a, b Stats) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Number, b.Number))
	})
	return all
}

func (p *partition) stats() Stats {
	parked := p.letters.Keys()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{
		Partition: p.Partition, Committed: max(p.committed, p.initial), Buffered: p.messages, Parked: parked,
		Handled: p.counts.handled, Failed: p.counts.retried, Filtered: p.counts.filtered, Foreign: p.counts.foreign, PutAside: p.counts.parked,
	}
	end := p.end
	if _, high, err := p.r.client.GetWatermarkOffsets(p.Topic, p.Number); err == nil {
		end = max(end, high)
	}
	if end < 0 || p.offsets.next == 0 && end > 0 {
		return s // nothing has been received yet
	}
	s.Lag = &client.Lag{End: end, Offsets: max(0, end-p.offsets.doneUpTo())}
	if since, ok := p.offsets.oldest(); ok {
		s.Lag.Age = max(0, time.Since(since))
	}
	return s
}
