package sqlite_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/sqlite"
)

// A repo on a database in a file. For tests the path ":memory:" does.
func ExampleOpen() {
	folder, err := os.MkdirTemp("", "bank")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	store, err := sqlite.Open(filepath.Join(folder, "bank.db"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	ctx := context.Background()
	accounts := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	for _, command := range []account.Command{account.Open{Owner: "Ann"}, account.Deposit{Amount: 5000}, account.Withdraw{Amount: 1250}} {
		if _, err := accounts.Execute(ctx, "42", command); err != nil {
			log.Fatal(err)
		}
	}
	for record, err := range store.All(ctx, 0, es.Filter{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(record.Position, record.ID(), record.Type, string(record.Data))
	}
	// Output:
	// 1 account/42/1 opened {"Owner":"Ann"}
	// 2 account/42/2 deposited {"Amount":5000}
	// 3 account/42/3 withdrawn {"Amount":1250}
}

// A backup is taken while the store is in use. It is a store itself.
func ExampleStore_Backup() {
	folder, err := os.MkdirTemp("", "bank")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	store, err := sqlite.Open(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	ctx := context.Background()
	accounts := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	if _, err := accounts.Execute(ctx, "42", account.Open{Owner: "Ann"}); err != nil {
		log.Fatal(err)
	}
	path := filepath.Join(folder, "monday.db")
	if err := store.Backup(ctx, path); err != nil {
		log.Fatal(err)
	}

	backup, err := sqlite.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer backup.Close()
	at, err := es.NewRepo(backup, "account", account.Rules{}, account.Codec).Load(ctx, "42")
	state, version := at.State, at.Version
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(state.Owner, version, backup.ID() == store.ID())
	// Output: Ann 1 true
}

// The events can be queried with SQL; the data of [es.JSON] with SQLite's functions for JSON.
func ExampleStore_DB() {
	store, err := sqlite.Open(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	ctx := context.Background()
	accounts := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	for i, owner := range []string{"Ann", "Bob"} {
		id := fmt.Sprint(i + 1)
		for _, command := range []account.Command{account.Open{Owner: owner}, account.Deposit{Amount: int64(100 * (i + 1))}, account.Deposit{Amount: 7}} {
			if _, err := accounts.Execute(ctx, id, command); err != nil {
				log.Fatal(err)
			}
		}
	}

	var deposits, cents int
	row := store.DB().QueryRowContext(ctx, "select count(*), sum(data ->> 'Amount') from es_events where type = 'deposited'")
	if err := row.Scan(&deposits, &cents); err != nil {
		log.Fatal(err)
	}
	fmt.Println(deposits, "deposits of", cents, "cents")
	// Output: 4 deposits of 314 cents
}
