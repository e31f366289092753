// Package application has the rules of a loan application.
//
// They were derived from the log that a Dutch bank kept of its applications from October 2011 to March 2012. Its names are kept, so that a
// stored event reads like a line of that log. Some lines break a rule. Such a line is refused, but recorded when it is sent again with the name of the
// rule that it breaks (see [Line]). So the history is complete and shows where it is irregular.
package application

import (
	"maps"
	"slices"
	"time"

	"github.com/thalo-go/es"
)

// Rules decide on commands and evolve the state by events.
type Rules struct{}

// Decide implements es.Aggregate.
func (Rules) Decide(a Application, c Command) ([]Event, error) { return c.decide(a) }

// Evolve implements es.Aggregate.
func (Rules) Evolve(a Application, e Event) Application {
	a = e.apply(a)
	a.Last = e.Logged().At
	return a
}

// Application is the state. Its zero value is an application that was never submitted.
type Application struct {
	Amount   int64         // requested, in euros
	Stages   []Stage       // all stages reached, in order
	Draft    Step          // of the offer that the bank prepares: "", OfferSelected or OfferCreated
	Table    Step          // of the offer that the customer has: "", OfferSent, OfferSentBack or OfferAccepted
	Returned bool          // whether an offer ever came back
	Work     map[Item]Work // what was ever scheduled or started
	Last     time.Time     // of the last line
}

// Work is the state of a work item of an application.
type Work struct {
	Scheduled bool   // at some time
	Waiting   bool   // scheduled, and not started since
	Started   bool   // and not completed since
	By        string // who started it
}

// Line is the part of a line in the bank's log that every command and event has.
type Line struct {
	At time.Time
	By string `json:",omitempty"` // a person; empty if the log has none

	// Breaks is the rule that the line is known to break. The line is recorded if it breaks exactly that rule, and refused otherwise.
	Breaks Rule `json:",omitempty"`
}

// Logged returns the line.
func (l Line) Logged() Line { return l }

// Command is a request, Event is what happened. Each type implements its own case, so the compiler reports a missing one.
type (
	Command interface {
		decide(Application) ([]Event, error)
	}
	Event interface {
		apply(Application) Application

		// Logged returns the line of the event.
		Logged() Line
		// Activity returns the names of the event in the log: the activity and its life-cycle transition.
		Activity() (name, transition string)
	}
)

// Commands.
type (
	Submit struct {
		Line
		Amount int64 // euros
	}
	Move struct {
		Line
		To Stage
	}
	Offer struct {
		Line
		Step Step
	}
	Schedule struct {
		Line
		Item Item
	}
	Start    Schedule
	Complete Schedule
)

// Events. Each corresponds to a command.
type (
	Submitted Submit
	Moved     Move
	Offered   Offer
	Scheduled Schedule
	Started   Start
	Completed Complete
)

// Codec maps the events to their stored names.
var Codec = es.JSON(map[string]Event{
	"submitted": Submitted{},
	"moved":     Moved{},
	"offered":   Offered{},
	"scheduled": Scheduled{},
	"started":   Started{},
	"completed": Completed{},
})

func (e Submitted) apply(a Application) Application {
	a.Amount = e.Amount
	return a.reach(StageSubmitted)
}

func (e Moved) apply(a Application) Application { return a.reach(e.To) }

func (e Offered) apply(a Application) Application {
	switch e.Step {
	case OfferSelected, OfferCreated:
		a.Draft = e.Step
	case OfferSent:
		a.Draft, a.Table = "", e.Step
	case OfferSentBack:
		a.Table, a.Returned = e.Step, true
	case OfferAccepted:
		a.Table = e.Step
	case OfferCancelled, OfferDeclined:
		a.Table = ""
	}
	return a
}

func (e Scheduled) apply(a Application) Application {
	w := a.Work[e.Item]
	w.Scheduled, w.Waiting = true, true
	return a.with(e.Item, w)
}

func (e Started) apply(a Application) Application {
	w := a.Work[e.Item]
	w.Started, w.Waiting, w.By = true, false, e.By
	return a.with(e.Item, w)
}

func (e Completed) apply(a Application) Application {
	w := a.Work[e.Item]
	w.Started, w.By = false, ""
	return a.with(e.Item, w)
}

// reach and with copy what they change: a state may be in other hands, too.
func (a Application) reach(s Stage) Application {
	a.Stages = append(slices.Clip(a.Stages), s)
	return a
}

func (a Application) with(i Item, w Work) Application {
	if a.Work = maps.Clone(a.Work); a.Work == nil {
		a.Work = make(map[Item]Work)
	}
	a.Work[i] = w
	return a
}

// Stage returns the last stage reached, or "".
func (a Application) Stage() Stage {
	if len(a.Stages) == 0 {
		return ""
	}
	return a.Stages[len(a.Stages)-1]
}

// Reached reports whether the application was ever at the stage.
func (a Application) Reached(s Stage) bool { return slices.Contains(a.Stages, s) }

// Granted reports whether the loan was granted: approved, registered and activated, which happens in any order.
func (a Application) Granted() bool {
	return a.Reached(StageApproved) && a.Reached(StageRegistered) && a.Reached(StageActivated)
}

// Closed reports whether the application was declined or cancelled.
func (a Application) Closed() bool { return a.Reached(StageDeclined) || a.Reached(StageCancelled) }

// Activity implements [Event].
func (Submitted) Activity() (name, transition string) {
	return string(StageSubmitted), TransitionComplete
}

// Activity implements [Event].
func (e Moved) Activity() (name, transition string) { return string(e.To), TransitionComplete }

// Activity implements [Event].
func (e Offered) Activity() (name, transition string) { return string(e.Step), TransitionComplete }

// Activity implements [Event].
func (e Scheduled) Activity() (name, transition string) { return string(e.Item), TransitionSchedule }

// Activity implements [Event].
func (e Started) Activity() (name, transition string) { return string(e.Item), TransitionStart }

// Activity implements [Event].
func (e Completed) Activity() (name, transition string) { return string(e.Item), TransitionComplete }
