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
	Error     string
	ErrorAt   time.Time
}

// None is the number of the partition in the state of a topic that no partition is assigned of.
const None int32 = -1

// Stats returns the state of the assigned partitions, sorted by topic and number.
func (r *Run) Stats() []Stats {
	var all []Stats
	assigned := make(map[string]bool)
	at, trouble := r.trouble.Last()
	for _, p := range r.all() {
		s := p.stats()
		assigned[p.Topic] = true
		if trouble != nil && s.ErrorAt.Before(at) {
			s.Error, s.ErrorAt = trouble.Error(), at
		}
		all = append(all, s)
	}
	for _, topic := range r.Topics {
		if s := (Stats{Partition: client.Partition{Topic: topic, Number: None}}); !assigned[topic] && r.waits(topic, &s) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Stats) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Number, b.Number))
	})
	return all
}

// waits sets why no partition of a topic is assigned, and reports whether there is an error that may be the reason.
func (r *Run) waits(topic string, s *Stats) bool {
	r.mu.Lock()
	since, missing := r.missing[topic]
	r.mu.Unlock()
	if missing {
		s.Error, s.ErrorAt = (&client.NoTopicError{Topic: topic}).Error(), since
		return true
	}
	at, err := r.trouble.Last()
	if err != nil {
		s.Error, s.ErrorAt = err.Error(), at
	}
	return err != nil
}

func (p *partition) stats() Stats {
	parked := p.letters.Keys()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{
		Partition: p.Partition, Committed: max(p.committed, p.initial), Buffered: p.messages, Parked: parked,
		Handled: p.counts.handled, Failed: p.counts.retried, Filtered: p.counts.filtered, Foreign: p.counts.foreign, PutAside: p.counts.parked,
		Error: p.problem, ErrorAt: p.problemAt,
	}
	end := p.end
	if _, high, err := p.r.client.GetWatermarkOffsets(p.Topic, p.Number); err == nil {
		end = max(end, high)
	}
	if end < 0 || p.offsets.next == 0 && end > 0 {
		return s // nothing has been received yet
	}
	s.Lag = &client.Lag{End: end, Offsets: max(0, end-p.offsets.doneUpTo())}
	s.Lag.Age, s.Lag.ClockAhead = p.offsets.oldest().Age()
	return s
}
