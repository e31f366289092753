package kafka

import (
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// RelayStats is the state of a relay. It is suitable for encoding/json, and so for expvar.
type RelayStats struct {
	Working  bool            `json:"working"`       // this process is the one that works
	Holder   string          `json:"holder"`        // names this process to others: host, process and a random word
	Position es.Position     `json:"position"`      // the checkpoint
	Lag      *projection.Lag `json:"lag,omitempty"` // nil until the checkpoint was read, and while another process works
	Rate     float64         `json:"rate"`          // records per second, over the last ten seconds

	Records      int64 `json:"records"`      // published by this process, like the counts below
	Transactions int64 `json:"transactions"` // committed
	Retries      int64 `json:"retries"`      // of commits, and restarts after errors
	Takeovers    int64 `json:"takeovers"`    // from another process, or when there was none

	BatchBytes int     `json:"batchBytes,omitempty"`      // about the most bytes of a transaction after one was slow or timed out; 0 means Relay.Bytes
	Throttle   float64 `json:"throttleSeconds,omitempty"` // for how long, at most, a broker throttled the relay in the last 30 seconds, because of a quota

	Parked []ParkedStream `json:"parked,omitempty"` // streams that are not published until the relay is started again

	Error   string    `json:"error,omitempty"` // the last error that the relay recovered from or still retries, also before its first session
	ErrorAt time.Time `json:"errorAt,omitzero"`
}

// ParkedStream is a stream that a relay does not publish any more.
type ParkedStream struct {
	Stream  es.Stream  `json:"stream"`
	Version es.Version `json:"version"` // of the first record that was not published
	Error   string     `json:"error"`
}

// Stats returns the state of the relay. It may be called while the relay runs.
func (r *Relay) Stats() RelayStats {
	s := r.stats.Snapshot()
	stats := RelayStats{
		Working: s.Working, Holder: s.Holder, Position: s.Position, Rate: s.Rate,
		Records: s.Records, Transactions: s.Transactions, Retries: s.Retries, Takeovers: s.Takeovers,
		BatchBytes: s.BatchBytes, Throttle: s.Throttle.Seconds(), Error: s.Error, ErrorAt: s.ErrorAt,
	}
	if s.Known {
		stats.Lag = &projection.Lag{Head: s.Head, Positions: int64(max(0, s.Head-s.Position)), Age: s.Age, ClockAhead: s.ClockAhead}
	}
	for _, p := range s.Parked {
		stats.Parked = append(stats.Parked, ParkedStream(p))
	}
	return stats
}
