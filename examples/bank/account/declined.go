package account

import (
	"errors"

	"github.com/thalo-go/es"
)

// Send and Receive are Withdraw and Deposit for those who must know for ever what became of their command: what the rules refuse is an event
// too. So the answer has the identity of the command, and whoever asks again, also much later, gets it again. A refusal that is an error is
// forgotten: asked again, the account may have the money.
type (
	Send    struct{ Amount int64 } // cents
	Receive struct{ Amount int64 } // cents

	// Declined says why one of them was refused.
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
