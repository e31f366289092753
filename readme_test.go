package es_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sqlite"
)

// This is the code of README.md, so that it compiles and is tested.

func Example_tasks() {
	ctx := context.Background()
	store, err := sqlite.Open(":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	accounts := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	accounts.Snapshots = store
	accounts.SnapshotEvery = 500
	accounts.SnapshotSchema = 2 // raise it when the state or Evolve changes
	defer accounts.Close(ctx)

	check := func(_ es.Result[account.Account, account.Event], err error) {
		if err != nil {
			fmt.Println(err)
		}
	}
	check(accounts.Execute(ctx, "ann", account.Open{Owner: "Ann"}))
	for range 3 {
		result, err :=
			accounts.Execute(ctx, "ann", account.Deposit{Amount: 50_00}, es.CommandID("salary-2026-11"))
		check(result, err)
	}
	seen, _ := accounts.Load(ctx, "ann")
	check(accounts.Execute(ctx, "ann", account.Withdraw{Amount: 20_00}))

	_, err =
		accounts.Execute(ctx, "ann", account.Close{}, es.ExpectVersion(seen.Version))
	var conflict *es.ConflictError
	fmt.Println(errors.As(err, &conflict), err)

	then, err :=
		accounts.LoadAt(ctx, "ann", 2)
	fmt.Println(then.State.Balance, err)

	position := es.Position(1)
	for record, err := range es.Follow(ctx, store, position, es.Filter{Kinds: []string{"account"}}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(record.Position, record.ID(), record.Type)
		if record.Position == 3 {
			break
		}
	}
	// Output:
	// true es: execute on account/ann: conflict: stream account/ann is not at version 2
	// 5000 <nil>
	// 2 account/ann/2 deposited
	// 3 account/ann/3 withdrawn
}

// This needs a server, so it is only compiled.
var _ = func(ctx context.Context, store *postgres.Store, tx pgx.Tx) error {
	accounts := es.NewRepo(store.In(tx), "account", account.Rules{}, account.Codec)
	if _, err := accounts.Execute(ctx, "ann", account.Deposit{Amount: 50_00}); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

type docEvent any

type (
	accountOpened  struct{}
	moneyDeposited struct{ Cents int64 }
)

func Example_changedEvents() {
	codec := es.JSON(map[string]docEvent{
		"opened":       accountOpened{},
		"deposited.v2": moneyDeposited{},
	}).
		Rename("account-opened", "opened").
		Upcast("deposited", es.From(func(old struct{ Euros int64 }) docEvent { return moneyDeposited{Cents: 100 * old.Euros} })).
		Retire("statement-printed")

	fmt.Println(codec.Decode(es.Record{Type: "deposited", Data: []byte(`{"Euros": 7}`)}))
	fmt.Println(codec.Decode(es.Record{Type: "statement-printed"}))
	// Output:
	// {700} <nil>
	// <nil> retired event type
}
