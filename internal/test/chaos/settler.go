package chaos

import (
	"context"
	"errors"
	"fmt"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// runSettler funds accounts that the writers have not funded, and sends the second half of each transfer whose first
// half is alone, because its writer was killed in between. It uses the same command id, so the half takes effect once
// even if the writer is still running.
func runSettler(ctx context.Context, a *actor) error {
	store, err := a.open(ctx)
	if err != nil {
		return err
	}
	w := newWriter(a, store)
	defer func() { _, _ = w.accounts.Close(context.Background()), store.Close() }()
	if err := w.endow(ctx); err != nil { // in a short run no writer may have done so
		return err
	}
	type half struct {
		to     string
		amount int64
	}
	open := make(map[string]half)
	for r, err := range store.All(ctx, 0, es.Filter{Kinds: []string{kindAccount}}) {
		if err != nil {
			return err
		}
		id := r.Meta[es.MetaCorrelation]
		change, err := amount(r)
		switch {
		case err != nil:
			return err
		case isFunding(id) || isAtomic(id):
		case change < 0:
			open[id] = half{r.Meta[metaTo], -change}
		default:
			delete(open, id)
		}
	}
	for id, h := range open {
		if !w.insist(ctx, id, h.to, account.Deposit{Amount: h.amount}, account.Deposited{Amount: h.amount}) {
			return errors.Join(ctx.Err(), fmt.Errorf("%s could not be settled", id))
		}
	}
	return nil
}
