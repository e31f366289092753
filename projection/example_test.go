package projection_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

type deposited struct{ Amount int }

var deposits = es.JSON(map[string]deposited{"deposited": {}})

// deposit appends an event to the stream of an account.
func deposit(ctx context.Context, store es.Store, id string, amount int) es.Position {
	r, err := deposits.Encode(deposited{amount})
	if err != nil {
		log.Fatal(err)
	}
	position, err := store.Append(ctx, es.Append{Stream: es.Stream{Kind: "account", ID: id}, Expected: es.AnyVersion, Events: []es.Record{r}})
	if err != nil {
		log.Fatal(err)
	}
	return position
}

// A projection keeps the balances of accounts in a table. WaitFor makes a caller's own writes visible.
func ExampleProjection() {
	store, err := sqlite.Open(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- store.Project(ctx, sqlite.Projection{
			Name: "balances",
			Prepare: func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, "drop table if exists balances; create table balances (id text primary key, amount integer)")
				return err
			},
			Handle: projection.Each(deposits, func(ctx context.Context, tx *sql.Tx, r es.Record, event deposited) error {
				_, err := tx.ExecContext(ctx, "insert into balances values (?, ?) on conflict do update set amount = amount + excluded.amount", r.Stream.ID, event.Amount)
				return err
			}),
		})
	}()

	deposit(ctx, store, "ann", 40)
	if err := store.WaitFor(ctx, "balances", deposit(ctx, store, "ann", 2)); err != nil {
		log.Fatal(err)
	}
	var amount int
	if err := store.DB().QueryRowContext(ctx, "select amount from balances where id = 'ann'").Scan(&amount); err != nil {
		log.Fatal(err)
	}
	fmt.Println(amount)
	cancel()
	fmt.Println(<-done)
	// Output:
	// 42
	// context canceled
}

// A reaction runs a side effect for each record, at least once.
func ExampleReaction() {
	store, err := sqlite.Open(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	mailed, done := make(chan string), make(chan error, 1)
	go func() {
		done <- store.React(ctx, projection.Reaction{
			Name:   "mail",
			From:   projection.Beginning(),
			Filter: es.Filter{Types: []string{"deposited"}},
			Handle: projection.Typed(deposits, func(_ context.Context, r es.Record, event deposited) error {
				mailed <- fmt.Sprintf("to %s: you have deposited %d", r.Stream.ID, event.Amount)
				return nil
			}),
		})
	}()
	deposit(ctx, store, "ann", 40)
	fmt.Println(<-mailed)
	cancel()
	fmt.Println(<-done)
	// Output:
	// to ann: you have deposited 40
	// context canceled
}

// A projection can read the log of another store.
func ExampleFromLog() {
	accounts := new(es.Mem) // the other store
	store, err := sqlite.Open(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	deposit(ctx, accounts, "ann", 40)
	deposit(ctx, accounts, "bob", 2)
	done := make(chan error, 1)
	go func() {
		done <- store.Project(ctx, sqlite.Projection{
			Name:   "total",
			Source: projection.FromLog(accounts),
			Handle: func(_ context.Context, _ *sql.Tx, records []es.Record) error {
				fmt.Println(len(records), "records")
				return nil
			},
		})
	}()
	if err := store.WaitFor(ctx, "total", 2); err != nil {
		log.Fatal(err)
	}
	cancel()
	fmt.Println(<-done)
	// Output:
	// 2 records
	// context canceled
}

// Each decodes the records of a batch.
func ExampleEach() {
	handle := projection.Each(deposits, func(_ context.Context, _ *sql.Tx, r es.Record, event deposited) error {
		fmt.Println(r.Stream, event.Amount)
		return nil
	})
	err := handle(context.Background(), nil, []es.Record{
		{Stream: es.Stream{Kind: "account", ID: "ann"}, Type: "deposited", Data: []byte(`{"Amount": 40}`)},
		{Stream: es.Stream{Kind: "account", ID: "bob"}, Type: "deposited", Data: []byte(`{"Amount": 2}`)},
	})
	fmt.Println(err)
	// Output:
	// account/ann 40
	// account/bob 2
	// <nil>
}

// Typed decodes one record. An event that the codec does not know is an error.
func ExampleTyped() {
	handle := projection.Typed(deposits, func(_ context.Context, r es.Record, event deposited) error {
		fmt.Println(r.Stream, event.Amount)
		return nil
	})
	ctx := context.Background()
	fmt.Println(handle(ctx, es.Record{Stream: es.Stream{Kind: "account", ID: "ann"}, Type: "deposited", Data: []byte(`{"Amount": 40}`)}))
	fmt.Println(handle(ctx, es.Record{Type: "renamed"}) != nil)
	// Output:
	// account/ann 40
	// <nil>
	// true
}
