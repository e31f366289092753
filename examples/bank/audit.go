package main

import (
	"context"
	"fmt"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// audit reads every event of the store from the beginning, independently of the program's states and read models. It checks that each transfer
// moved the same amount out of one account and into another, and that the balances add up to the deposits.
func audit(ctx context.Context, log es.Log) error {
	var events int
	var paidIn, balance int64
	transit := make(map[string]int64) // by transfer: withdrawn and not yet deposited
	balances := make(map[string]int64)
	next := es.Position(1)
	for r, err := range log.All(ctx, 0, es.Filter{}) {
		if err != nil {
			return err
		}
		if r.Position != next {
			return fmt.Errorf("the log has position %d where %d should be", r.Position, next)
		}
		next++
		if r.Stream.Kind != "account" {
			continue
		}
		events++
		event, err := account.Codec.Decode(r)
		if err != nil {
			return err
		}
		var change int64
		switch e := event.(type) {
		case account.Deposited:
			change = e.Amount
		case account.Withdrawn:
			change = -e.Amount
		}
		balance += change
		balances[r.Stream.ID] += change
		if transfer := r.Meta[es.MetaCorrelation]; transfer != "" {
			transit[transfer] -= change
		} else {
			paidIn += change
		}
	}
	for transfer, amount := range transit {
		if amount != 0 {
			return fmt.Errorf("%s of %s is not complete", transfer, euros(amount))
		}
	}
	for id, b := range balances {
		if b < 0 {
			return fmt.Errorf("%s has %s", id, euros(b))
		}
	}
	if balance != paidIn {
		return fmt.Errorf("%s were paid in, but the accounts hold %s", euros(paidIn), euros(balance))
	}
	fmt.Printf("\nAudit of all %d events: %s were paid in, the accounts hold %s, and each of %d transfers is balanced.\nNo money was created or lost.\n",
		events, euros(paidIn), euros(balance), len(transit))
	return nil
}

func euros(cents int64) string {
	if cents < 0 {
		return "-" + euros(-cents)
	}
	return fmt.Sprintf("%d.%02d", cents/100, cents%100)
}
