package application_test

import (
	"testing"
	"time"

	"github.com/thalo-go/es/estest"
	. "github.com/thalo-go/es/examples/loans/application" //nolint:revive // the rules' own words are what these tests are about
)

// at returns a line with a time in minutes.
func at(minute int) Line {
	return Line{At: time.Date(2011, 10, 1, 9, minute, 0, 0, time.UTC), By: "112"}
}

func by(who string, l Line) Line { l.By = who; return l }

func known(r Rule, l Line) Line { l.Breaks = r; return l }

// upTo returns the history of an application up to a stage.
func upTo(stage Stage) []Event {
	history := []Event{Submitted{at(0), 20_000}}
	for i, s := range []Stage{StagePartlySubmitted, StagePreaccepted, StageAccepted, StageFinalized} {
		if stage == StageSubmitted {
			break
		}
		history = append(history, Moved{at(i + 1), s})
		if s == stage {
			break
		}
	}
	return history
}

func offered(steps ...Step) (events []Event) {
	for _, step := range steps {
		events = append(events, Offered{at(10), step})
	}
	return events
}

func TestStages(t *testing.T) {
	none := estest.For(t, Rules{})
	finalized := none.Given(upTo(StageFinalized)...)
	declined := none.Given(upTo(StagePreaccepted)...).Given(Moved{at(5), StageDeclined})

	none.When(Submit{at(0), 5}).Then(Submitted{at(0), 5})
	none.When(Submit{at(0), -5}).ThenCode("AMOUNT_NEGATIVE")
	finalized.When(Submit{at(9), 5}).ThenCode("ALREADY_SUBMITTED")
	none.When(Move{at(0), StageAccepted}).ThenCode("STAGE_OUT_OF_ORDER")
	none.When(Move{at(0), "A_WONDERED"}).ThenCode("UNKNOWN_ACTIVITY")
	none.Given(upTo(StagePreaccepted)...).When(Move{at(9), StageAccepted}).Then(Moved{at(9), StageAccepted})
	finalized.When(Move{at(9), StageAccepted}).ThenCode("STAGE_ALREADY_REACHED")
	finalized.When(Move{at(9), StageApproved}).ThenCode("GRANT_WITHOUT_OFFER")
	declined.When(Move{at(9), StageAccepted}).ThenCode("APPLICATION_CLOSED")
	finalized.When(Move{at(1), StageCancelled}).ThenCode("TIME_BACKWARDS")
}

func TestOffers(t *testing.T) {
	accepted := estest.For(t, Rules{}).Given(upTo(StageAccepted)...)
	finalized := estest.For(t, Rules{}).Given(upTo(StageFinalized)...)
	sent := finalized.Given(offered(OfferSelected, OfferCreated, OfferSent)...)
	back := sent.Given(offered(OfferSentBack)...)

	estest.For(t, Rules{}).Given(upTo(StagePreaccepted)...).When(Offer{at(10), OfferSelected}).ThenCode("OFFER_TOO_EARLY")
	accepted.When(Offer{at(10), OfferSelected}).Then(Offered{at(10), OfferSelected})
	accepted.Given(offered(OfferSelected)...).When(Offer{at(10), OfferCreated}).ThenCode("OFFER_TOO_EARLY")
	finalized.When(Offer{at(10), OfferCreated}).ThenCode("OFFER_OUT_OF_ORDER")
	sent.Given(offered(OfferSelected)...).When(Offer{at(10), OfferCreated}).ThenCode("OFFER_ON_TABLE")
	finalized.When(Offer{at(10), OfferSentBack}).ThenCode("OFFER_NOT_ON_TABLE")
	sent.When(Offer{at(10), OfferAccepted}).ThenCode("OFFER_NOT_SENT_BACK")
	back.When(Offer{at(10), OfferAccepted}).Then(Offered{at(10), OfferAccepted})
	back.Given(offered(OfferAccepted)...).When(Offer{at(10), OfferSelected}).ThenCode("OFFER_ALREADY_ACCEPTED")
	back.Given(offered(OfferAccepted)...).When(Move{at(10), StageCancelled}).ThenCode("OFFER_ALREADY_ACCEPTED")
	back.Given(offered(OfferAccepted)...).When(Move{at(10), StageApproved}).Then(Moved{at(10), StageApproved})
	finalized.When(Offer{at(10), "O_FORGOTTEN"}).ThenCode("UNKNOWN_ACTIVITY")
}

func TestWork(t *testing.T) {
	waiting := estest.For(t, Rules{}).Given(upTo(StagePreaccepted)...).Given(Scheduled{at(5), ItemComplete})
	started := waiting.Given(Started{at(6), ItemComplete})

	estest.For(t, Rules{}).Given(upTo(StageSubmitted)...).When(Schedule{at(5), ItemComplete}).ThenCode("WORK_TOO_EARLY")
	waiting.When(Schedule{at(6), ItemComplete}).ThenCode("WORK_ALREADY_SCHEDULED")
	waiting.When(Start{at(6), ItemLead}).ThenCode("WORK_NOT_SCHEDULED")
	waiting.When(Start{at(6), ItemComplete}).Then(Started{at(6), ItemComplete})
	started.Given(Scheduled{at(6), ItemLead}).When(Start{at(7), ItemLead}).ThenCode("WORK_IN_PROGRESS")
	waiting.When(Complete{at(6), ItemComplete}).ThenCode("WORK_NOT_STARTED")
	started.When(Complete{by("113", at(7)), ItemComplete}).ThenCode("WORK_OF_ANOTHER")
	started.When(Complete{at(7), ItemComplete}).Then(Completed{at(7), ItemComplete})
	started.When(Schedule{at(7), "W_Koffie"}).ThenCode("UNKNOWN_ACTIVITY")
}

func TestALineThatBreaksARuleIsRecordedWithIt(t *testing.T) {
	waiting := estest.For(t, Rules{}).Given(upTo(StagePreaccepted)...).Given(Scheduled{at(5), ItemComplete})
	line := known(WorkNotStarted, at(6))
	waiting.When(Complete{line, ItemComplete}).Then(Completed{line, ItemComplete})
	waiting.When(Complete{known(WorkOfAnother, at(6)), ItemComplete}).ThenCode("WORK_NOT_STARTED")
	waiting.When(Start{known(WorkNotStarted, at(6)), ItemComplete}).ThenCode("NO_RULE_BROKEN")
}

func TestCodec(t *testing.T) {
	estest.TestCodec(t, Codec, []Event{
		Submitted{known(AlreadySubmitted, at(0)), 5}, Moved{known(StageOutOfOrder, at(1)), StageAccepted},
		Offered{known(OfferTooEarly, at(2)), OfferSelected}, Scheduled{known(WorkTooEarly, at(3)), ItemLead},
		Started{known(WorkInProgress, at(4)), ItemLead}, Completed{known(WorkNotStarted, at(5)), ItemLead},
	})
}

func TestEveryRuleHasAMeaning(t *testing.T) {
	for _, r := range []Rule{
		AlreadySubmitted, AmountNegative, TimeBackwards, UnknownActivity, ApplicationClosed, StageAlreadyReached, StageOutOfOrder,
		GrantWithoutOffer, OfferTooEarly, OfferOutOfOrder, OfferOnTable, OfferNotOnTable, OfferNotSentBack, OfferAlreadyAccepted,
		WorkTooEarly, WorkAlreadyScheduled, WorkNotScheduled, WorkInProgress, WorkNotStarted, WorkOfAnother,
	} {
		if r.Meaning() == Rule("").Meaning() {
			t.Errorf("%s has no meaning", r)
		}
	}
}
