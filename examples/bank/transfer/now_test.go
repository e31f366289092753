package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/examples/bank/transfer"
)

type accounts = es.Repo[account.Account, account.Command, account.Event]

func bankOn(t *testing.T, log es.Log, ids ...string) *accounts {
	t.Helper()
	a := es.NewRepo(log, "account", account.Rules{}, account.Codec)
	for _, id := range ids {
		for _, c := range []account.Command{account.Open{Owner: id}, account.Deposit{Amount: 100}} {
			if _, err := a.Execute(t.Context(), id, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	return a
}

func balanceOf(t *testing.T, a *accounts, id string) int64 {
	t.Helper()
	at, err := a.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return at.State.Balance
}

// The program is killed before or after the append, and the caller sends the transfer again.
func TestNowIsBothOrNeither(t *testing.T) {
	for _, after := range []bool{false, true} {
		log := &mortal{Log: new(es.Mem)}
		bankOn(t, log, "ann", "bob")
		log.left, log.after = 1, after
		if _, err := transfer.Now(t.Context(), bankOn(t, log), "x", "ann", "bob", 70); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		log.left = -1
		a := bankOn(t, log)
		repeated, err := transfer.Now(t.Context(), a, "x", "ann", "bob", 70)
		if err != nil || repeated != after || balanceOf(t, a, "ann") != 30 || balanceOf(t, a, "bob") != 170 {
			t.Errorf("killed after the append %t: repeated %t, %v, %d and %d", after, repeated, err, balanceOf(t, a, "ann"), balanceOf(t, a, "bob"))
		}
	}
}

func TestNowIsRefusedAsAWhole(t *testing.T) {
	a := bankOn(t, new(es.Mem), "ann", "bob")
	for _, test := range []struct {
		to, code string
		amount   int64
	}{{"bob", "INSUFFICIENT_FUNDS", 101}, {"zoe", "ACCOUNT_NOT_OPEN", 1}} {
		_, err := transfer.Now(t.Context(), a, test.to, "ann", test.to, test.amount)
		var refusal *es.InvariantError
		if !errors.As(err, &refusal) || refusal.Code != test.code || balanceOf(t, a, "ann") != 100 {
			t.Errorf("%d to %s: %v, ann has %d; want %s and nothing changed", test.amount, test.to, err, balanceOf(t, a, "ann"), test.code)
		}
	}
}

func TestNowInBothDirectionsAtOnce(t *testing.T) {
	log := new(es.Mem)
	bankOn(t, log, "ann", "bob")
	a, b := bankOn(t, log), bankOn(t, log)
	a.Retries, b.Retries = 10_000, 10_000
	var all sync.WaitGroup
	for n := range 40 {
		all.Go(func() {
			repo, from, to := []*accounts{a, b}[n/2%2], []string{"ann", "bob"}[n%2], []string{"bob", "ann"}[n%2]
			if _, err := transfer.Now(context.WithoutCancel(t.Context()), repo, fmt.Sprint(n), from, to, 1); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	fresh := bankOn(t, log)
	if ann, bob := balanceOf(t, fresh, "ann"), balanceOf(t, fresh, "bob"); ann != 100 || bob != 100 {
		t.Errorf("ann has %d and bob %d: want 100 each", ann, bob)
	}
}
