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
