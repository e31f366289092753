package feed

import (
	"slices"
	"strings"
	"time"

	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/projection"
)

// Stats is the state of an open feed.
type Stats struct {
	Shard   string
	Read    int64 // the offset up to which the feed has read
	Applied int64 // the offset up to which the read model has applied; 0 if nothing was applied since the feed opened
	Lag     client.Lag
	Dropped int64 // duplicates
	Foreign int64 // messages that no relay wrote
	Error   string
	ErrorAt time.Time
}

// Stats returns the state of the open feeds, sorted by shard.
func (s *Source) Stats() []Stats {
	s.mu.Lock()
	feeds := make([]*feed, 0, len(s.feeds))
	for f := range s.feeds {
		feeds = append(feeds, f)
	}
	s.mu.Unlock()
	all := make([]Stats, 0, len(feeds))
	at, err := s.client.Trouble.Last()
	for _, f := range feeds {
		stat := f.stats()
		if err != nil {
			stat.Error, stat.ErrorAt = err.Error(), at
		}
		all = append(all, stat)
	}
	slices.SortFunc(all, func(a, b Stats) int { return strings.Compare(a.Shard, b.Shard) })
	return all
}

// progress publishes the state of a feed while Next runs.
func (f *feed) progress() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stat.Read, f.stat.Lag.End, f.reading = f.next, f.end, client.Waiting{}
	if f.next < f.end && !f.last.IsZero() {
		f.reading = client.Wait(f.last)
	}
}

// hand notes a batch that waits to be applied.
func (f *feed) hand(b projection.Batch) {
	if len(b.Records) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handed = append(f.handed, handed{client.Wait(b.Records[0].Time), int64(b.Next)})
}

func (f *feed) stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stat
	s.Lag.Offsets = s.Lag.End - max(s.Applied, f.began)
	if len(f.handed) > 0 {
		s.Lag.Age, s.Lag.ClockAhead = f.handed[0].first.Age()
	} else {
		s.Lag.Age, s.Lag.ClockAhead = f.reading.Age()
	}
	return s
}
