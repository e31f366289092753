package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/internal/test/testserver"
)

func TestBankRunsTwice(t *testing.T) {
	transfers := 300
	if testing.Short() {
		transfers = 40
	}
	for name, where := range map[string]string{"in memory": "mem:", "in a file": filepath.Join(t.TempDir(), "bank.db")} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second run on a file with the accounts of the first
				if err := run(t.Context(), where, transfers, ""); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestBankRunsOnPostgres(t *testing.T) {
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	for range 2 {
		if err := run(t.Context(), url, 40, ""); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBankRejectsNumberOfTransfers(t *testing.T) {
	for _, transfers := range []int{0, -5} {
		if err := run(t.Context(), "mem:", transfers, ""); err == nil || !strings.Contains(err.Error(), "-transfers") {
			t.Errorf("%d transfers: %v", transfers, err)
		}
	}
}

func TestAuditFinds(t *testing.T) {
	transfer := es.Meta(map[string]string{es.MetaCorrelation: "transfer-1"})
	for _, test := range []struct {
		name, want string
		commands   func(do func(id string, c account.Command, options ...es.ExecuteOption))
	}{{
		"lost money", "transfer-1 of 0.30 is not complete",
		func(do func(string, account.Command, ...es.ExecuteOption)) {
			do("ann", account.Withdraw{Amount: 30}, transfer)
		},
	}, {
		"money deposited twice", "transfer-1 of -0.30 is not complete",
		func(do func(string, account.Command, ...es.ExecuteOption)) {
			do("ann", account.Withdraw{Amount: 30}, transfer)
			do("bob", account.Deposit{Amount: 30}, transfer)
			do("bob", account.Deposit{Amount: 30}, transfer)
		},
	}} {
		t.Run(test.name, func(t *testing.T) {
			store := new(es.Mem)
			accounts := es.NewRepo(store, "account", account.Rules{}, account.Codec)
			do := func(id string, c account.Command, options ...es.ExecuteOption) {
				if _, err := accounts.Execute(t.Context(), id, c, options...); err != nil {
					t.Fatal(err)
				}
			}
			do("ann", account.Open{Owner: "ann"})
			do("bob", account.Open{Owner: "bob"})
			do("ann", account.Deposit{Amount: 100})
			test.commands(do)
			if err := audit(t.Context(), store); err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}
