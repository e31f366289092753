package account

import (
	"errors"

	"github.com/thalo-go/es"
)

// Send and Receive are like Withdraw and Deposit, but record a refusal as an event. So a repeated command with the same ID always gets the same
// answer. A refusal that is an error is not recorded: when the command is repeated, the account may have the money.
type (
	Send    struct{ Amount int64 } // cents
	Receive struct{ Amount int64 } // cents

	// Declined is a refusal of one of them.
	Declined struct{ Code string }
)

func (c Send) decide(a Account) ([]Event, error)    { return answer(Withdraw(c).decide(a)) }
func (c Receive) decide(a Account) ([]Event, error) { return answer(Deposit(c).decide(a)) }

func answer(events []Event, err error) ([]Event, error) {
	var refused *es.InvariantError
	if errors.As(err, &refused) {
		return []Event{Declined{refused.Code}}, nil
	}
	return events, err
}

func (Declined) apply(a Account) Account { return a }
