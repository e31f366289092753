package stores_test

import (
	"context"
	"fmt"
	"log"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/stores"
)

// A read model is written once, and the URL of the store says where it is.
func Example() {
	ctx := context.Background()
	store, err := stores.Open(ctx, "mem:") // or a file, or postgres://
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	balances := projection.SQLProjection{
		Name:   "balances",
		Filter: es.Filter{Kinds: []string{"account"}},
		Prepare: func(ctx context.Context, tx projection.SQL) error {
			_, err := tx.Exec(ctx, "drop table if exists balances; create table balances (id text primary key, balance bigint not null)")
			return err
		},
		Handle: projection.Each(account.Codec, func(ctx context.Context, tx projection.SQL, r es.Record, event account.Event) (err error) {
			switch e := event.(type) {
			case account.Opened:
				_, err = tx.Exec(ctx, "insert into balances values ($1, 0)", r.Stream.ID)
			case account.Deposited:
				_, err = tx.Exec(ctx, "update balances set balance = balance + $1 where id = $2", e.Amount, r.Stream.ID)
			}
			return err
		}),
		Once: true, // until all is applied
	}

	accounts := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	for _, command := range []account.Command{account.Open{Owner: "Ann"}, account.Deposit{Amount: 100}} {
		if _, err := accounts.Execute(ctx, "ann", command); err != nil {
			log.Fatal(err)
		}
	}
	if err := store.Project(ctx, balances); err != nil {
		log.Fatal(err)
	}
	var balance int64
	if err := store.QueryRow(ctx, "select balance from balances where id = $1", "ann").Scan(&balance); err != nil {
		log.Fatal(err)
	}
	fmt.Println(balance)
	// Output: 100
}

// The commonest read model: a row for each aggregate, with its state, and columns to search by.
func Example_documents() {
	ctx := context.Background()
	store, err := stores.Open(ctx, "mem:")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	accounts := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	for id, amount := range map[string]int64{"ann": 100, "bob": 5} {
		for _, command := range []account.Command{account.Open{Owner: id}, account.Deposit{Amount: amount}} {
			if _, err := accounts.Execute(ctx, id, command); err != nil {
				log.Fatal(err)
			}
		}
	}

	list := projection.NewDocuments("accounts", account.Codec, account.Rules{}.Evolve).
		Column("balance", "bigint", func(a account.Account) any { return a.Balance })
	err = store.Project(ctx, projection.SQLProjection{
		Name: "accounts", Filter: es.Filter{Kinds: []string{"account"}}, Prepare: list.Prepare, Handle: list.Handle,
		Once: true, // until all is applied
	})
	if err != nil {
		log.Fatal(err)
	}

	ann, found, err := list.Get(ctx, store, "ann")
	fmt.Println(ann.Owner, ann.Balance, found, err)
	for row, err := range store.Query(ctx, "select key, state->>'Owner' from accounts where balance < $1", 50) {
		var id, owner string
		if err == nil {
			err = row.Scan(&id, &owner)
		}
		fmt.Println(id, owner, err)
	}
	// Output:
	// ann 100 true <nil>
	// bob bob <nil>
}
