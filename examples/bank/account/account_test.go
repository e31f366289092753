package account_test

import (
	"testing"

	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/bank/account"
)

func TestRules(t *testing.T) {
	none := estest.For(t, account.Rules{})
	open := none.Given(account.Opened{Owner: "Ann"})
	filled := open.Given(account.Deposited{Amount: 100})
	closed := open.Given(account.Closed{})

	t.Run("an account is opened once", func(t *testing.T) {
		none.In(t).When(account.Open{Owner: "Ann"}).Then(account.Opened{Owner: "Ann"})
		open.In(t).When(account.Open{Owner: "Bob"}).ThenCode("ACCOUNT_ALREADY_OPENED")
		closed.In(t).When(account.Open{Owner: "Ann"}).ThenCode("ACCOUNT_ALREADY_OPENED")
	})
	t.Run("money moves in and out of an open account", func(t *testing.T) {
		open.In(t).When(account.Deposit{Amount: 5}).Then(account.Deposited{Amount: 5}).ThenState(account.Account{Owner: "Ann", Balance: 5, Open: true})
		filled.In(t).When(account.Withdraw{Amount: 100}).Then(account.Withdrawn{Amount: 100}).ThenState(account.Account{Owner: "Ann", Open: true})
		none.In(t).When(account.Deposit{Amount: 5}).ThenCode("ACCOUNT_NOT_OPEN")
		none.In(t).When(account.Withdraw{Amount: 5}).ThenCode("ACCOUNT_NOT_OPEN")
		closed.In(t).When(account.Deposit{Amount: 5}).ThenCode("ACCOUNT_NOT_OPEN")
		closed.In(t).When(account.Withdraw{Amount: 5}).ThenCode("ACCOUNT_NOT_OPEN")
	})
	t.Run("no more than the balance is withdrawn", func(t *testing.T) {
		filled.In(t).When(account.Withdraw{Amount: 101}).ThenCode("INSUFFICIENT_FUNDS")
	})
	t.Run("an amount is positive and cannot overflow", func(t *testing.T) {
		for _, amount := range []int64{0, -1, account.MaxAmount + 1} {
			open.In(t).When(account.Deposit{Amount: amount}).ThenCode("AMOUNT_OUT_OF_RANGE")
		}
		filled.In(t).When(account.Withdraw{Amount: -1}).ThenCode("AMOUNT_OUT_OF_RANGE")
		open.In(t).When(account.Deposit{Amount: account.MaxAmount}).Then(account.Deposited{Amount: account.MaxAmount})
	})
	t.Run("an empty account is closed; closing again is a no-op", func(t *testing.T) {
		open.In(t).When(account.Close{}).Then(account.Closed{}).ThenState(account.Account{Owner: "Ann", Closed: true})
		closed.In(t).When(account.Close{}).ThenNothing()
		filled.In(t).When(account.Close{}).ThenCode("ACCOUNT_NOT_EMPTY")
		none.In(t).When(account.Close{}).ThenCode("ACCOUNT_NOT_OPEN")
	})
}

func TestRefusalIsAnEvent(t *testing.T) {
	filled := estest.For(t, account.Rules{}).Given(account.Opened{Owner: "Ann"}, account.Deposited{Amount: 100})
	filled.When(account.Send{Amount: 100}).Then(account.Withdrawn{Amount: 100})
	filled.When(account.Send{Amount: 101}).Then(account.Declined{Code: "INSUFFICIENT_FUNDS"}).ThenState(account.Account{Owner: "Ann", Balance: 100, Open: true})
	filled.When(account.Receive{Amount: 5}).Then(account.Deposited{Amount: 5})
	estest.For(t, account.Rules{}).When(account.Receive{Amount: 5}).Then(account.Declined{Code: "ACCOUNT_NOT_OPEN"})
}

// README.md shows this test.
func TestWithdraw(t *testing.T) {
	estest.For(t, account.Rules{}).
		Given(account.Opened{Owner: "ann"}, account.Deposited{Amount: 100_00}).
		When(account.Withdraw{Amount: 100_01}).
		ThenCode("INSUFFICIENT_FUNDS")
}

func TestCodec(t *testing.T) {
	estest.TestCodec(t, account.Codec, []account.Event{
		account.Opened{Owner: "Ann"}, account.Deposited{Amount: 1}, account.Withdrawn{Amount: 1}, account.Closed{}, account.Declined{Code: "x"},
	})
}
