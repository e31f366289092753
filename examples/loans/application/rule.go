package application

// Rule is a rule that a line can break. Its value is the code of the refusal.
type Rule string

// The rules.
const (
	AlreadySubmitted     Rule = "ALREADY_SUBMITTED"
	AmountNegative       Rule = "AMOUNT_NEGATIVE"
	TimeBackwards        Rule = "TIME_BACKWARDS"
	UnknownActivity      Rule = "UNKNOWN_ACTIVITY"
	ApplicationClosed    Rule = "APPLICATION_CLOSED"
	StageAlreadyReached  Rule = "STAGE_ALREADY_REACHED"
	StageOutOfOrder      Rule = "STAGE_OUT_OF_ORDER"
	GrantWithoutOffer    Rule = "GRANT_WITHOUT_OFFER"
	OfferTooEarly        Rule = "OFFER_TOO_EARLY"
	OfferOutOfOrder      Rule = "OFFER_OUT_OF_ORDER"
	OfferOnTable         Rule = "OFFER_ON_TABLE"
	OfferNotOnTable      Rule = "OFFER_NOT_ON_TABLE"
	OfferNotSentBack     Rule = "OFFER_NOT_SENT_BACK"
	OfferAlreadyAccepted Rule = "OFFER_ALREADY_ACCEPTED"
	WorkTooEarly         Rule = "WORK_TOO_EARLY"
	WorkAlreadyScheduled Rule = "WORK_ALREADY_SCHEDULED"
	WorkNotScheduled     Rule = "WORK_NOT_SCHEDULED"
	WorkInProgress       Rule = "WORK_IN_PROGRESS"
	WorkNotStarted       Rule = "WORK_NOT_STARTED"
	WorkOfAnother        Rule = "WORK_OF_ANOTHER"
)

// Meaning describes a violation of the rule.
func (r Rule) Meaning() string {
	switch r {
	case AlreadySubmitted:
		return "an application is submitted a second time"
	case AmountNegative:
		return "a negative amount is asked for"
	case TimeBackwards:
		return "a line is older than the one before"
	case UnknownActivity:
		return "these rules do not know the activity"
	case ApplicationClosed:
		return "the application is declined or cancelled, and goes on"
	case StageAlreadyReached:
		return "a stage is reached a second time"
	case StageOutOfOrder:
		return "a stage is reached without the one before"
	case GrantWithoutOffer:
		return "a loan is granted and the customer has no offer"
	case OfferTooEarly:
		return "an offer is made before the application is accepted or finalized"
	case OfferOutOfOrder:
		return "an offer is not selected, created and sent, in this order"
	case OfferOnTable:
		return "an offer is created while the customer has another"
	case OfferNotOnTable:
		return "the customer has no such offer"
	case OfferNotSentBack:
		return "an offer is accepted or declined that did not come back"
	case OfferAlreadyAccepted:
		return "an offer is accepted already"
	case WorkTooEarly:
		return "work is scheduled before there is a reason for it"
	case WorkAlreadyScheduled:
		return "work is scheduled that waits already"
	case WorkNotScheduled:
		return "work is started that was never scheduled"
	case WorkInProgress:
		return "work is started while other work is in progress"
	case WorkNotStarted:
		return "work is completed that is not in progress"
	case WorkOfAnother:
		return "work is completed by another than who started it"
	}
	return "unknown rule"
}
