package application

import (
	"slices"

	"github.com/thalo-go/es"
)

func (c Submit) decide(a Application) ([]Event, error) { return c.record(a, Submitted(c), c.breaks(a)) }
func (c Move) decide(a Application) ([]Event, error)   { return c.record(a, Moved(c), c.breaks(a)) }
func (c Offer) decide(a Application) ([]Event, error)  { return c.record(a, Offered(c), c.breaks(a)) }
func (c Schedule) decide(a Application) ([]Event, error) {
	return c.record(a, Scheduled(c), c.breaks(a))
}
func (c Start) decide(a Application) ([]Event, error) { return c.record(a, Started(c), c.breaks(a)) }
func (c Complete) decide(a Application) ([]Event, error) {
	return c.record(a, Completed(c), c.breaks(a))
}

// record returns an event if it breaks exactly the rule that its line is known to break, usually none.
func (l Line) record(a Application, e Event, broken Rule) ([]Event, error) {
	if broken == "" && l.At.Before(a.Last) {
		broken = TimeBackwards
	}
	switch broken {
	case l.Breaks:
		return []Event{e}, nil
	case "":
		return nil, es.Invariant("NO_RULE_BROKEN", "the line is said to break %s and breaks no rule: send it as a regular one", l.Breaks)
	}
	return nil, es.Invariant(string(broken), "%s", broken.Meaning())
}

func (c Submit) breaks(a Application) Rule {
	switch {
	case a.Reached(StageSubmitted):
		return AlreadySubmitted
	case c.Amount < 0:
		return AmountNegative
	}
	return ""
}

// from returns the stages from which a stage can be reached, or none for an unknown stage.
func (s Stage) from() []Stage {
	switch s {
	case StagePartlySubmitted:
		return []Stage{StageSubmitted}
	case StagePreaccepted:
		return []Stage{StagePartlySubmitted}
	case StageAccepted:
		return []Stage{StagePreaccepted}
	case StageFinalized:
		return []Stage{StageAccepted}
	case StageApproved, StageRegistered, StageActivated: // in any order
		return []Stage{StageFinalized, StageApproved, StageRegistered, StageActivated}
	case StageDeclined, StageCancelled:
		return []Stage{StagePartlySubmitted, StagePreaccepted, StageAccepted, StageFinalized}
	}
	return nil
}

func (c Move) breaks(a Application) Rule {
	from := c.To.from()
	grants := slices.Contains(from, StageApproved)
	ends := c.To == StageDeclined || c.To == StageCancelled
	switch {
	case from == nil:
		return UnknownActivity
	case a.Closed():
		return ApplicationClosed
	case a.Reached(c.To):
		return StageAlreadyReached
	case !slices.Contains(from, a.Stage()):
		return StageOutOfOrder
	case grants && a.Table == "":
		return GrantWithoutOffer
	case ends && a.Table == OfferAccepted:
		return OfferAlreadyAccepted
	}
	return ""
}

// An offer is selected, created and sent to the customer. The customer sends it back, and it is accepted or declined. Before that it may be cancelled.
// One offer is prepared at a time, the customer has one at a time, and one is accepted. When the application is closed, its open offer is closed as well.
func (c Offer) breaks(a Application) Rule {
	step := c.Step
	switch step {
	default:
		return UnknownActivity
	case OfferCancelled, OfferDeclined:
	case OfferSelected, OfferCreated, OfferSent, OfferSentBack, OfferAccepted:
		if a.Closed() {
			return ApplicationClosed
		}
	}
	switch {
	case a.Table == OfferAccepted:
		return OfferAlreadyAccepted
	case step == OfferSelected && !a.Reached(StageAccepted), step == OfferCreated && !a.Reached(StageFinalized):
		return OfferTooEarly
	case step == OfferSelected && a.Draft != "", step == OfferCreated && a.Draft != OfferSelected, step == OfferSent && a.Draft != OfferCreated:
		return OfferOutOfOrder
	case step == OfferCreated && a.Table != "":
		return OfferOnTable
	case step == OfferSentBack && a.Table != OfferSent, step == OfferCancelled && a.Table == "":
		return OfferNotOnTable
	case (step == OfferAccepted || step == OfferDeclined) && a.Table != OfferSentBack:
		return OfferNotSentBack
	}
	return ""
}

func (c Schedule) breaks(a Application) Rule {
	reason, known := c.Item.reason(a)
	switch {
	case !known:
		return UnknownActivity
	case a.Closed():
		return ApplicationClosed
	case !reason:
		return WorkTooEarly
	case a.Work[c.Item].Waiting:
		return WorkAlreadyScheduled
	}
	return ""
}

// reason reports whether an application has reached a stage at which there is this work to do.
func (i Item) reason(a Application) (there, known bool) {
	switch i {
	case ItemLead, ItemFraud:
		return a.Reached(StagePartlySubmitted), true
	case ItemComplete:
		return a.Reached(StagePreaccepted), true
	case ItemCallOffer:
		return a.Table != "", true
	case ItemValidate, ItemCallIncomplete:
		return a.Returned, true
	case ItemContract:
		return a.Granted(), true
	}
	return false, false
}

func (c Start) breaks(a Application) Rule {
	switch {
	case a.Closed():
		return ApplicationClosed
	case !a.Work[c.Item].Scheduled:
		return WorkNotScheduled
	case a.Busy():
		return WorkInProgress
	}
	return ""
}

// Work in progress may be completed after the application is closed.
func (c Complete) breaks(a Application) Rule {
	switch work := a.Work[c.Item]; {
	case !work.Started:
		return WorkNotStarted
	case work.By != c.By:
		return WorkOfAnother
	}
	return ""
}

// Busy reports whether work on the application is in progress.
func (a Application) Busy() bool {
	for _, work := range a.Work {
		if work.Started {
			return true
		}
	}
	return false
}
