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
	From, To string // accounts
	Amount   int64  // cents
	Stage    Stage
}

// Stage is the stage of a transfer. The paths are asked, taken, brought; asked, refused; and asked, taken, turned away, returned.
type Stage string

// The stages. Brought, Refused and Returned are final.
const (
	StageAsked    Stage = "asked"
	StageTaken    Stage = "taken"
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

// Ask is the customer's command.
type Ask struct {
	From, To string
	Amount   int64 // cents
}

// Events. All but the first are also commands, by which the process records them.
type (
	Asked    Ask
	Taken    struct{}
	Brought  struct{}
	Refused  struct{ Code string }    // why the sender's account refused
	Turned   struct{ Code string }    // why the receiver's account refused
	Returned struct{ Account string } // where the money is
)

// Codec maps the events to their stored names.
var Codec = es.JSON(map[string]Event{
	"asked": Asked{}, "taken": Taken{}, "brought": Brought{}, "refused": Refused{}, "turned-away": Turned{}, "returned": Returned{},
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
func (e Brought) decide(t Transfer) ([]Event, error)  { return t.step(StageTaken, e) }
func (e Turned) decide(t Transfer) ([]Event, error)   { return t.step(StageTaken, e) }
func (e Returned) decide(t Transfer) ([]Event, error) { return t.step(StageTurned, e) }

// step moves from one stage to the next.
func (t Transfer) step(from Stage, e Event) ([]Event, error) {
	if t.Stage != from {
		return nil, es.Invariant("OUT_OF_STEP", "the transfer is %q, want %q", t.Stage, from)
	}
	return []Event{e}, nil
}

func (e Asked) apply(Transfer) Transfer    { return Transfer{e.From, e.To, e.Amount, StageAsked} }
func (Taken) apply(t Transfer) Transfer    { t.Stage = StageTaken; return t }
func (Brought) apply(t Transfer) Transfer  { t.Stage = StageBrought; return t }
func (Refused) apply(t Transfer) Transfer  { t.Stage = StageRefused; return t }
func (Turned) apply(t Transfer) Transfer   { t.Stage = StageTurned; return t }
func (Returned) apply(t Transfer) Transfer { t.Stage = StageReturned; return t }
