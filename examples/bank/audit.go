package main

import (
	"context"
	"fmt"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// audit reads every event of the store from the beginning, as an auditor would who trusts neither the program nor its states:
// what left one account in a transfer must have reached another, and the balances must add up to what was paid in.
func audit(ctx context.Context, log es.Log) error {
	var events int
	var paidIn, balance int64
	transit := make(map[string]int64) // by transfer: taken and not yet brought
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
		return fmt.Errorf("%s were paid in and %s are there", euros(paidIn), euros(balance))
	}
	fmt.Printf("\nAudit of all %d events: %s were paid in, %s are there, and each of %d transfers took what it brought.\nNo cent was made or lost.\n",
		events, euros(paidIn), euros(balance), len(transit))
	return nil
}

func euros(cents int64) string {
	if cents < 0 {
		return "-" + euros(-cents)
	}
	return fmt.Sprintf("%d.%02d", cents/100, cents%100)
}
