package kafka

import (
	"sync"
	"time"

	"github.com/thalo-go/es"
)

// RelayStats is how a relay stands. It is made for encoding/json, and so for expvar.
type RelayStats struct {
	Working  bool        // this process is the one that works
	Holder   string      // who this process is to others: host, process and a word
	Position es.Position // the checkpoint
	Head     es.Position // the end of the log, when it was last looked at
	Lag      int64       // positions between the two
	Behind   float64     // seconds since the first record beyond the checkpoint was written, as far as this process has read; 0 if there is none
	Rate     float64     // records a second, over the last ten

	Records      int64 // published by this process, and counted below likewise
	Transactions int64 // committed
	Retries      int64 // of commits, and new beginnings after trouble
	Takeovers    int64 // from another process, or from none

	Parked []ParkedStream // what is left out until the relay is started again

	Error   string // the last trouble
	ErrorAt time.Time
}

// A ParkedStream is a stream that a relay has ceased to publish.
type ParkedStream struct {
	Stream  es.Stream
	Version es.Version // of the first record that was not published
	Error   string
}

// Stats tells how the relay stands, also while it runs.
func (r *Relay) Stats() RelayStats { return r.stats.get() }

type relayStats struct {
	mu      sync.Mutex
	s       RelayStats
	waiting time.Time // of the first record beyond the checkpoint
	seconds [10]struct {
		at      int64
		records int64
	}
}

func (s *relayStats) set(f func(*RelayStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.s)
}

// published counts a batch that was committed.
func (s *relayStats) published(records int, upTo es.Position) {
	now := time.Now().Unix()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.Records += int64(records)
	s.s.Transactions++
	s.s.Position = upTo
	second := &s.seconds[now%int64(len(s.seconds))]
	if second.at != now {
		second.at, second.records = now, 0
	}
	second.records += int64(records)
}

// waits notes that a record waits, unless an earlier one does.
func (s *relayStats) waits(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting.IsZero() {
		s.waiting = since
	}
}

// behind notes the first record that waits when all before it is published; none if it is zero.
func (s *relayStats) behind(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = since
}

func (s *relayStats) get() RelayStats {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.s
	stats.Lag = int64(max(0, stats.Head-stats.Position))
	if !s.waiting.IsZero() {
		stats.Behind = max(0, now.Sub(s.waiting).Seconds())
	}
	if stats.Working {
		records := int64(0)
		for _, second := range s.seconds {
			if now.Unix()-second.at < int64(len(s.seconds)) {
				records += second.records
			}
		}
		stats.Rate = float64(records) / float64(len(s.seconds))
	}
	return stats
}
