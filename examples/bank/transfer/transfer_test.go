package transfer_test

import (
	"testing"

	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/bank/transfer"
)

func TestTransfer(t *testing.T) {
	ask := transfer.Ask{From: "ann", To: "bob", Amount: 30}
	none := estest.For(t, transfer.Rules{})
	asked := none.Given(transfer.Asked(ask))
	taken := asked.Given(transfer.Taken{})
	turned := taken.Given(transfer.Turned{Code: "ACCOUNT_NOT_OPEN"})
	at := func(stage transfer.Stage) transfer.Transfer {
		return transfer.Transfer{From: "ann", To: "bob", Amount: 30, Stage: stage}
	}
	t.Run("is requested once, between two accounts", func(t *testing.T) {
		none.In(t).When(ask).Then(transfer.Asked(ask)).ThenState(at(transfer.StageAsked))
		asked.In(t).When(ask).ThenCode("TRANSFER_EXISTS")
		none.In(t).When(transfer.Ask{From: "ann", To: "ann", Amount: 1}).ThenCode("SAME_ACCOUNT")
	})
	t.Run("is taken and brought", func(t *testing.T) {
		asked.In(t).When(transfer.Taken{}).Then(transfer.Taken{}).ThenState(at(transfer.StageTaken))
		taken.In(t).When(transfer.Brought{}).Then(transfer.Brought{}).ThenState(at(transfer.StageBrought))
	})
	t.Run("is refused before it is taken, and not afterwards", func(t *testing.T) {
		asked.In(t).When(transfer.Refused{Code: "x"}).Then(transfer.Refused{Code: "x"}).ThenState(at(transfer.StageRefused))
		taken.In(t).When(transfer.Refused{Code: "x"}).ThenCode("OUT_OF_STEP")
		asked.In(t).Given(transfer.Refused{Code: "x"}).When(transfer.Taken{}).ThenCode("OUT_OF_STEP")
	})
	t.Run("is returned after it was turned away", func(t *testing.T) {
		turned.In(t).When(transfer.Brought{}).ThenCode("OUT_OF_STEP")
		turned.In(t).When(transfer.Returned{Account: "ann"}).Then(transfer.Returned{Account: "ann"}).ThenState(at(transfer.StageReturned))
		taken.In(t).When(transfer.Returned{Account: "ann"}).ThenCode("OUT_OF_STEP")
	})
}

func TestCodec(t *testing.T) {
	estest.TestCodec(t, transfer.Codec, []transfer.Event{
		transfer.Asked{From: "ann", To: "bob", Amount: 1, Acceptance: true}, transfer.Taken{}, transfer.Accepted{}, transfer.Brought{}, transfer.Refused{Code: "x"},
		transfer.Turned{Code: "x"}, transfer.Returned{Account: "ann"},
	})
}
