package application

// Stage is the stage of an application.
type Stage string

// The stages. An application is submitted first and finally granted, declined or cancelled.
const (
	StageSubmitted       Stage = "A_SUBMITTED"
	StagePartlySubmitted Stage = "A_PARTLYSUBMITTED"
	StagePreaccepted     Stage = "A_PREACCEPTED"
	StageAccepted        Stage = "A_ACCEPTED"
	StageFinalized       Stage = "A_FINALIZED"
	StageApproved        Stage = "A_APPROVED"
	StageRegistered      Stage = "A_REGISTERED"
	StageActivated       Stage = "A_ACTIVATED"
	StageDeclined        Stage = "A_DECLINED"
	StageCancelled       Stage = "A_CANCELLED"
)

// Step is what happens to an offer. The log does not number offers, so a step applies to the offer for which it is possible.
type Step string

// The steps of an offer.
const (
	OfferSelected  Step = "O_SELECTED"
	OfferCreated   Step = "O_CREATED"
	OfferSent      Step = "O_SENT"
	OfferSentBack  Step = "O_SENT_BACK"
	OfferCancelled Step = "O_CANCELLED"
	OfferAccepted  Step = "O_ACCEPTED"
	OfferDeclined  Step = "O_DECLINED"
)

// Item is a piece of work that people do on an application. The names are Dutch.
type Item string

// The work items.
const (
	ItemComplete       Item = "W_Completeren aanvraag"         // fill in what the application lacks
	ItemCallOffer      Item = "W_Nabellen offertes"            // call about an offer that was sent
	ItemCallIncomplete Item = "W_Nabellen incomplete dossiers" // call about papers that are missing
	ItemValidate       Item = "W_Valideren aanvraag"           // assess what came back
	ItemLead           Item = "W_Afhandelen leads"             // follow up an incomplete first submission
	ItemFraud          Item = "W_Beoordelen fraude"            // look into suspected fraud
	ItemContract       Item = "W_Wijzigen contractgegevens"    // change a contract
)

// The life-cycle transitions of a work item. Other events are always COMPLETE.
const (
	TransitionSchedule = "SCHEDULE"
	TransitionStart    = "START"
	TransitionComplete = "COMPLETE"
)

// Activities returns the names of all activities, in the order of the process.
func Activities() []string {
	return []string{
		string(StageSubmitted), string(StagePartlySubmitted), string(StagePreaccepted), string(StageAccepted), string(StageFinalized),
		string(StageApproved), string(StageRegistered), string(StageActivated), string(StageDeclined), string(StageCancelled),
		string(OfferSelected), string(OfferCreated), string(OfferSent), string(OfferSentBack),
		string(OfferCancelled), string(OfferAccepted), string(OfferDeclined),
		string(ItemLead), string(ItemComplete), string(ItemCallOffer), string(ItemValidate), string(ItemCallIncomplete),
		string(ItemFraud), string(ItemContract),
	}
}
