package relay

import (
	"context"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
)

// Snapshot is the state of a relay. Package kafka documents what its users see of it.
type Snapshot struct {
	Working    bool
	Holder     string
	Position   es.Position
	Head       es.Position
	Known      bool          // Position and Head were read
	Age        time.Duration // of the first record after the checkpoint; 0 if there is none
	ClockAhead time.Duration // see client.Waiting
	Rate       float64

	BatchBytes int           // the most bytes of a batch while it is limited; 0 means that it is not
	Throttle   time.Duration // for how long brokers have not answered, at most, lately

	Records      int64
	Transactions int64
	Retries      int64
	Takeovers    int64

	Parked []ParkedStream

	Error   string
	ErrorAt time.Time
}

// ParkedStream is a stream that a relay does not publish any more.
type ParkedStream struct {
	Stream  es.Stream
	Version es.Version
	Error   string
}

// Stats collects the state of a relay over all its runs.
type Stats struct {
	mu          sync.Mutex
	s           Snapshot
	throttledAt time.Time
	follows     bool           // a session waits for the log to change, so that Head is the log's
	oldest      client.Waiting // of the records after the checkpoint
	seconds     [10]struct {
		at      int64
		records int64
	}
}

func (s *Stats) set(f func(*Snapshot)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.s)
}

// failed notes an error that a session recovers from.
func (s *Stats) failed(err error) {
	s.set(func(s *Snapshot) { s.Error, s.ErrorAt = err.Error(), time.Now() })
}

// retried counts another attempt after an error.
func (s *Stats) retried(err error) {
	s.failed(err)
	s.set(func(s *Snapshot) { s.Retries++ })
}

// published counts a batch that was committed.
func (s *Stats) published(records int, upTo es.Position) {
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

// waiting notes that a record waits to be published, unless an earlier one does.
func (s *Stats) waiting(written time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.oldest == (client.Waiting{}) {
		s.oldest = client.Wait(written)
	}
}

// caughtUpTo notes the first record that waits after a batch was published; zero if there is none.
func (s *Stats) caughtUpTo(written time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldest = client.Waiting{}
	if !written.IsZero() {
		s.oldest = client.Wait(written)
	}
}

// Snapshot returns the current state.
func (s *Stats) Snapshot() Snapshot {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	snapshot := s.s
	snapshot.Age, snapshot.ClockAhead = s.oldest.Age()
	if now.Sub(s.throttledAt) > throttleFor {
		snapshot.Throttle = 0
	}
	if snapshot.Working {
		records := int64(0)
		for _, second := range s.seconds {
			if now.Unix()-second.at < int64(len(s.seconds)) {
				records += second.records
			}
		}
		snapshot.Rate = float64(records) / float64(len(s.seconds))
	}
	return snapshot
}

// following notes whether a session waits for the log to change.
func (s *Stats) following(follows bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follows = follows
}

// unknown notes that another process may work, so that the checkpoint is not known.
func (s *Stats) unknown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.Known, s.oldest = false, client.Waiting{}
}

// headEvery is how often the head of the log is read while no session follows the log.
const headEvery = 5 * time.Second

// followHead keeps the head of the log correct until ctx is done, also while the cluster is not available.
func (s *Stats) followHead(ctx context.Context, log es.Log) {
	for client.Sleep(ctx, headEvery) == nil {
		s.mu.Lock()
		needed := s.s.Known && !s.follows
		s.mu.Unlock()
		if !needed {
			continue
		}
		if head, err := es.Head(ctx, log); err == nil { // a session reports the errors of the log
			s.set(func(s *Snapshot) { s.Head = max(s.Head, head) })
		}
	}
}

// throttleFor is how long Stats show that brokers throttled the relay.
const throttleFor = 30 * time.Second

// throttle notes for how long a broker throttled the relay.
func (s *Stats) throttle(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.Throttle, s.throttledAt = by, time.Now()
}

// Stopped notes that the relay does not run.
func (s *Stats) Stopped() { s.set(func(s *Snapshot) { s.Working, s.Rate = false, 0 }) }
