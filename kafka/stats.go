package kafka

import (
	"time"

	"github.com/thalo-go/es"
)

// RelayStats is the state of a relay. It is suitable for encoding/json, and so for expvar.
type RelayStats struct {
	Working  bool        // this process is the one that works
	Holder   string      // names this process to others: host, process and a random word
	Position es.Position // the checkpoint
	Head     es.Position // the end of the log, when it was last read
	Lag      int64       // positions between the two
	Behind   float64     // seconds since the first record after the checkpoint was written; 0 if there is none
	Rate     float64     // records per second, over the last ten seconds

	Records      int64 // published by this process, like the counts below
	Transactions int64 // committed
	Retries      int64 // of commits, and restarts after errors
	Takeovers    int64 // from another process, or when there was none

	Parked []ParkedStream // streams that are not published until the relay is started again

	Error   string // the last error that the relay recovered from
	ErrorAt time.Time
}

// ParkedStream is a stream that a relay does not publish any more.
type ParkedStream struct {
	Stream  es.Stream
	Version es.Version // of the first record that was not published
	Error   string
}

// Stats returns the state of the relay. It may be called while the relay runs.
func (r *Relay) Stats() RelayStats {
	s := r.stats.Snapshot()
	stats := RelayStats{
		Working: s.Working, Holder: s.Holder, Position: s.Position, Head: s.Head, Lag: int64(max(0, s.Head-s.Position)), Behind: s.Age.Seconds(), Rate: s.Rate,
		Records: s.Records, Transactions: s.Transactions, Retries: s.Retries, Takeovers: s.Takeovers,
		Error: s.Error, ErrorAt: s.ErrorAt,
	}
	for _, p := range s.Parked {
		stats.Parked = append(stats.Parked, ParkedStream(p))
	}
	return stats
}
