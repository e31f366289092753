// Package transfer moves money between accounts. It has the rules of a transfer and the process that carries it out.
package transfer

import "github.com/thalo-go/es"

// Rules decide on commands and evolve the state by events.
type Rules struct{}

// Decide implements es.Aggregate.
func (Rules) Decide(t Transfer, c Command) ([]Event, error) { return c.decide(t) }

// Evolve implements es.Aggregate.
func (Rules) Evolve(t Transfer, e Event) Transfer { return e.apply(t) }

// Transfer is the state. Its zero value is a transfer that was never requested.
type Transfer struct {
	From, To   string // accounts
	Amount     int64  // cents
	Acceptance bool   // whether the receiver must accept it
	Stage      Stage
}

// Stage is the stage of a transfer. The paths are asked, taken, brought; asked, refused; and asked, taken, turned away, returned.
// One that needs acceptance is accepted after it was taken, or turned away when its time has run out.
type Stage string

// The stages. Brought, Refused and Returned are final.
const (
	StageAsked    Stage = "asked"
	StageTaken    Stage = "taken"
	StageAccepted Stage = "accepted"
	StageBrought  Stage = "brought"
	StageRefused  Stage = "refused"
	StageTurned   Stage = "turned away"
	StageReturned Stage = "returned"
)

// Command is a request, Event is what happened.
type (
	Command interface {
		decide(Transfer) ([]Event, error)
	}
	Event interface{ apply(Transfer) Transfer }
)

// Ask is the sender's command.
type Ask struct {
	From, To   string
	Amount     int64 // cents
	Acceptance bool  `json:",omitempty"` // whether the receiver must accept it
}

// Accept is the receiver's command. TimeOut is that of the process, when the time for it has run out.
type (
	Accept  struct{}
	TimeOut struct{}
)

// NotAccepted is the code of a transfer whose time has run out.
const NotAccepted = "NOT_ACCEPTED"

// Events. All but the first are also commands, by which the process records them.
type (
	Asked    Ask
	Taken    struct{}
	Accepted struct{}
	Brought  struct{}
	Refused  struct{ Code string }    // why the sender's account refused
	Turned   struct{ Code string }    // why the receiver's account refused
	Returned struct{ Account string } // where the money is
)

// Codec maps the events to their stored names.
var Codec = es.JSON(map[string]Event{
	"asked": Asked{}, "taken": Taken{}, "accepted": Accepted{}, "brought": Brought{}, "refused": Refused{}, "turned-away": Turned{}, "returned": Returned{},
})

func (c Ask) decide(t Transfer) ([]Event, error) {
	switch {
	case t.Stage != "":
		return nil, es.Invariant("TRANSFER_EXISTS", "the transfer was requested before")
	case c.From == c.To:
		return nil, es.Invariant("SAME_ACCOUNT", "from %s to itself", c.From)
	}
	return []Event{Asked(c)}, nil
}

func (e Taken) decide(t Transfer) ([]Event, error)    { return t.step(StageAsked, e) }
func (e Refused) decide(t Transfer) ([]Event, error)  { return t.step(StageAsked, e) }
func (e Brought) decide(t Transfer) ([]Event, error)  { return t.step(t.ready(), e) }
func (e Turned) decide(t Transfer) ([]Event, error)   { return t.step(t.ready(), e) }
func (e Returned) decide(t Transfer) ([]Event, error) { return t.step(StageTurned, e) }

func (Accept) decide(t Transfer) ([]Event, error) {
	if !t.Acceptance || t.Stage != StageTaken {
		return nil, es.Invariant("NOT_WAITING", "the transfer does not wait for acceptance: it is %q", t.Stage)
	}
	return []Event{Accepted{}}, nil
}

func (TimeOut) decide(t Transfer) ([]Event, error) {
	if !t.Acceptance || t.Stage != StageTaken {
		return nil, nil // settled
	}
	return []Event{Turned{NotAccepted}}, nil
}

// ready is the stage from which the money is delivered.
func (t Transfer) ready() Stage {
	if t.Acceptance {
		return StageAccepted
	}
	return StageTaken
}

// step moves from one stage to the next.
func (t Transfer) step(from Stage, e Event) ([]Event, error) {
	if t.Stage != from {
		return nil, es.Invariant("OUT_OF_STEP", "the transfer is %q, want %q", t.Stage, from)
	}
	return []Event{e}, nil
}

func (e Asked) apply(Transfer) Transfer {
	return Transfer{e.From, e.To, e.Amount, e.Acceptance, StageAsked}
}
func (Taken) apply(t Transfer) Transfer    { t.Stage = StageTaken; return t }
func (Accepted) apply(t Transfer) Transfer { t.Stage = StageAccepted; return t }
func (Brought) apply(t Transfer) Transfer  { t.Stage = StageBrought; return t }
func (Refused) apply(t Transfer) Transfer  { t.Stage = StageRefused; return t }
func (Turned) apply(t Transfer) Transfer   { t.Stage = StageTurned; return t }
func (Returned) apply(t Transfer) Transfer { t.Stage = StageReturned; return t }
