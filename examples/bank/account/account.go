// Package account has the rules of a bank account. They are pure functions, without a database or a clock.
package account

import "github.com/thalo-go/es"

// Rules decide on commands and evolve the state by events.
type Rules struct{}

// MaxAmount is the largest amount of one command, in cents.
const MaxAmount = 1_000_000_000_00

// Decide implements es.Aggregate.
func (Rules) Decide(a Account, c Command) ([]Event, error) { return c.decide(a) }

// Evolve implements es.Aggregate.
func (Rules) Evolve(a Account, e Event) Account { return e.apply(a) }

// Account is the state. Its zero value is an account that was never opened.
type Account struct {
	Owner        string
	Balance      int64 // cents
	Open, Closed bool
}

// Command is a request, Event is what happened. Each type implements its own case, so the compiler reports a missing one.
type (
	Command interface {
		decide(Account) ([]Event, error)
	}
	Event interface{ apply(Account) Account }
)

// Commands.
type (
	Open     struct{ Owner string }
	Deposit  struct{ Amount int64 } // cents
	Withdraw struct{ Amount int64 } // cents
	Close    struct{}
)

// Events.
type (
	Opened    struct{ Owner string }
	Deposited struct{ Amount int64 } // cents
	Withdrawn struct{ Amount int64 } // cents
	Closed    struct{}
)

// Codec maps the events to their stored names.
var Codec = es.JSON(map[string]Event{
	"opened":    Opened{},
	"deposited": Deposited{},
	"withdrawn": Withdrawn{}, "declined": Declined{},
	"closed": Closed{},
})

func (c Open) decide(a Account) ([]Event, error) {
	if a.Open || a.Closed {
		return nil, es.Invariant("ACCOUNT_ALREADY_OPENED", "the account of %s is already open", a.Owner)
	}
	return []Event{Opened{c.Owner}}, nil
}

func (c Deposit) decide(a Account) ([]Event, error) { return a.move(c.Amount, Deposited{c.Amount}) }

func (c Withdraw) decide(a Account) ([]Event, error) {
	if a.Open && c.Amount > a.Balance {
		return nil, es.Invariant("INSUFFICIENT_FUNDS", "the balance is %d cents, %d requested", a.Balance, c.Amount)
	}
	return a.move(c.Amount, Withdrawn{c.Amount})
}

func (Close) decide(a Account) ([]Event, error) {
	switch {
	case a.Closed:
		return nil, nil // already closed: nothing to do
	case !a.Open:
		return nil, es.Invariant("ACCOUNT_NOT_OPEN", "the account does not exist")
	case a.Balance != 0:
		return nil, es.Invariant("ACCOUNT_NOT_EMPTY", "the balance is %d cents", a.Balance)
	}
	return []Event{Closed{}}, nil
}

func (a Account) move(amount int64, e Event) ([]Event, error) {
	switch {
	case !a.Open:
		return nil, es.Invariant("ACCOUNT_NOT_OPEN", "the account is not open")
	case amount <= 0 || amount > MaxAmount:
		return nil, es.Invariant("AMOUNT_OUT_OF_RANGE", "%d cents: must be 1 to %d", amount, int64(MaxAmount))
	}
	return []Event{e}, nil
}

func (e Opened) apply(a Account) Account    { a.Owner, a.Open = e.Owner, true; return a }
func (e Deposited) apply(a Account) Account { a.Balance += e.Amount; return a }
func (e Withdrawn) apply(a Account) Account { a.Balance -= e.Amount; return a }
func (e Closed) apply(a Account) Account    { a.Open, a.Closed = false, true; return a }
