package transfer

import (
	"context"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// Now moves an amount between two accounts at once: both or neither. A repetition of id changes nothing and reports true.
//
// Use it where both accounts are in one store and nothing happens in between, as for two accounts of one customer. Use [Process] where a step
// takes time, such as an acceptance, where the other account may be in another store or bank, or where a hot account, such as that of a shop,
// would make every transfer wait for the others: a step of the process needs one account only.
func Now(ctx context.Context, accounts *es.Repo[account.Account, account.Command, account.Event], id, from, to string, amount int64) (repeated bool, err error) {
	_, err = es.Transact(ctx, func(tx *es.Tx) error {
		taken, err := accounts.ExecuteTx(ctx, tx, from, account.Withdraw{Amount: amount})
		if err != nil {
			return err
		}
		repeated = taken.Repeated
		_, err = accounts.ExecuteTx(ctx, tx, to, account.Deposit{Amount: amount})
		return err
	}, es.CommandID(id), es.Meta(map[string]string{es.MetaCorrelation: id}))
	return repeated, err
}
