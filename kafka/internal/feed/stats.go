package feed

import (
	"slices"
	"strings"
	"time"

	"github.com/thalo-go/es/kafka/internal/client"
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
	f.stat.Read, f.stat.Lag.End, f.stat.Lag.Age = f.next, f.end, 0
	if f.next < f.end && !f.last.IsZero() {
		f.stat.Lag.Age = time.Since(f.last)
	}
}

func (f *feed) stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stat
	s.Lag.Offsets = s.Lag.End - max(s.Applied, f.began)
	return s
}
