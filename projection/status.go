package projection

import (
	"encoding/json"
	"time"

	"github.com/thalo-go/es"
)

// Status is the state of one shard of a projection or reaction. It marshals to JSON, so it can be published with expvar; see the example.
type Status struct {
	Name     string    `json:"name"`
	Version  int       `json:"version"`
	Shard    string    `json:"shard"`
	Kind     Kind      `json:"kind,omitzero"`   // "" if no worker of this release has run it
	Source   string    `json:"source"`          // its ID
	Filter   es.Filter `json:"filter,omitzero"` // kept with the checkpoint
	Cursor   Cursor    `json:"cursor"`          // the checkpoint
	Time     time.Time `json:"time,omitzero"`   // of the last record applied; zero if there is none
	Lag      *Lag      `json:"lag,omitempty"`   // nil if the source is not a log of this store
	CaughtUp bool      `json:"caughtUp"`        // whether it has ever reached the end of its source
	Worker   string    `json:"worker,omitzero"` // host, process and a random part; "" if there is none; [InlineWorker] for an inline projection
	Parked   int       `json:"parked"`          // records

	Waiting int       `json:"waiting,omitzero"` // records that a reaction will handle when they are due
	NextDue time.Time `json:"nextDue,omitzero"` // the earliest of them, which is overdue if that is past; zero if there is none

	// NeedsType is the type of the record after Cursor, if no running worker knows it; see [es.UnknownEventError]. The shard has no
	// worker until one of a release that knows it is started.
	NeedsType string `json:"needsType,omitzero"`

	Error   string    `json:"error,omitzero"` // of the last attempt; "" if it succeeded
	ErrorAt time.Time `json:"errorAt,omitzero"`
}

// InlineWorker is [Status.Worker] of an inline projection. It needs no worker, because appends run it. If it lags, programs without it have
// appended, and the next append of a program with it applies their records first.
const InlineWorker = "inline"

// Kind says what runs.
type Kind string

// The kinds. An inline projection is run inside appends; see Config.Inline of the stores.
const (
	KindProjection Kind = "projection"
	KindInline     Kind = "inline"
	KindReaction   Kind = "reaction"
)

// Lag is the distance of a checkpoint from the end of its log.
type Lag struct {
	Head      es.Position   // the end of the log
	Positions int64         // from the checkpoint to Head, including records that the filter excludes
	Age       time.Duration // since the first record after the checkpoint was written; 0 if there is none

	// ClockAhead is how far the time of that record is ahead of this machine's clock, because a clock is wrong or was. Age is then
	// the time since the checkpoint moved, which may be too long. 0 means that the clock is right, or that there is no such record.
	ClockAhead time.Duration
}

type lagJSON struct {
	Head       es.Position `json:"head"`
	Positions  int64       `json:"positions"`
	AgeSeconds float64     `json:"ageSeconds"`
	ClockAhead float64     `json:"clockAheadSeconds,omitzero"`
}

// MarshalJSON implements [json.Marshaler]. Age becomes ageSeconds, and ClockAhead clockAheadSeconds.
func (l Lag) MarshalJSON() ([]byte, error) {
	return json.Marshal(lagJSON{l.Head, l.Positions, l.Age.Seconds(), l.ClockAhead.Seconds()})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (l *Lag) UnmarshalJSON(data []byte) error {
	var j lagJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*l = Lag{j.Head, j.Positions, time.Duration(j.AgeSeconds * float64(time.Second)), time.Duration(j.ClockAhead * float64(time.Second))}
	return nil
}

// Progress is what [Projection.OnProgress] gets.
type Progress struct {
	Shard    string
	Records  int         // in the transaction just committed
	Cursor   Cursor      // the checkpoint
	End      Cursor      // the end of the shard when it was last read
	Position es.Position // of the last record; 0 if the transaction had none
}
