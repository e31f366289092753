package museum_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/thalo-go/es"
	rules "github.com/thalo-go/es/examples/bank/account"
)

// The failure: the expected version of an append is looked up when it is saved. It always matches, and a decision on an
// older state is written after events that it did not consider.
//
// Not here: a state and its version are one value from the read to the append, and the store compares under its lock.
func TestVersionReadAgainAtSave(t *testing.T) {
	ours(t, func(t *testing.T, p place) error { return paidTwice(t, p.open(t), ourBank) })
	control(t, "a repository that asks for the version when it saves", func(t *testing.T) error {
		return paidTwice(t, inMemory().open(t), forgetfulBank)
	})
}

// paidTwice looks for an account that pays out more than it has.
func paidTwice(t *testing.T, log es.Log, on func(es.Store) bank) error {
	m := &meddler{Store: log}
	ours, other := on(m), on(log)
	other.do(t, rules.Open{Owner: "Ann"}, rules.Deposit{Amount: 50})
	m.next(func() { other.do(t, rules.Withdraw{Amount: 26}) })
	err := ours(t.Context(), "ann", rules.Withdraw{Amount: 26})
	if b := balance(t, log); b < 0 {
		return fmt.Errorf("an account with 50 has paid out %d", 50-b)
	}
	if err == nil {
		return fmt.Errorf("26 were withdrawn from 24: the balance is %d", balance(t, log))
	}
	return nil
}

func forgetfulBank(s es.Store) bank {
	return func(ctx context.Context, id string, c rules.Command) error {
		a, _, err := fold(ctx, s, id)
		if err != nil {
			return err
		}
		events, err := rules.Rules{}.Decide(a, c)
		if err != nil {
			return err
		}
		records, err := encode(events...)
		if err != nil {
			return err
		}
		return (&latecomer{s}).save(ctx, id, records)
	}
}

// A latecomer is a store that looks up the version in its save.
type latecomer struct{ store es.Store }

func (l *latecomer) save(ctx context.Context, id string, records []es.Record) error {
	for {
		_, version, err := fold(ctx, l.store, id)
		if err != nil {
			return err
		}
		if _, err = l.store.Append(ctx, es.Append{Stream: account(id), Expected: version, Events: records}); !isConflict(err) {
			return err
		}
	}
}
