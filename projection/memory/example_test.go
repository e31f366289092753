package memory_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/projection/memory"
	"github.com/thalo-go/es/sqlite"
)

type deposited struct{ Amount int }

var deposits = es.JSON(map[string]deposited{"deposited": {}})

// deposit appends an event to the stream of an account.
func deposit(ctx context.Context, store es.Store, amount int) es.Position {
	r, err := deposits.Encode(deposited{amount})
	if err != nil {
		log.Fatal(err)
	}
	position, err := store.Append(ctx, es.Append{Stream: es.Stream{Kind: "account", ID: "ann"}, Expected: es.AnyVersion, Events: []es.Record{r}})
	if err != nil {
		log.Fatal(err)
	}
	return position
}

// A projection keeps balances in a map.
func Example() {
	store := memory.New(new(es.Mem))
	defer store.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	balances, done := make(map[string]int), make(chan error, 1)
	go func() {
		done <- store.Project(ctx, memory.Projection{
			Name: "balances",
			Handle: projection.Each(deposits, func(_ context.Context, tx *memory.Tx, r es.Record, event deposited) error {
				memory.Set(tx, balances, r.Stream.ID, balances[r.Stream.ID]+event.Amount)
				return nil
			}),
		})
	}()
	deposit(ctx, store, 40)
	if err := store.WaitFor(ctx, "balances", deposit(ctx, store, 2)); err != nil {
		log.Fatal(err)
	}
	if err := store.View(ctx, func() { fmt.Println(balances["ann"]) }); err != nil {
		log.Fatal(err)
	}
	cancel()
	fmt.Println(<-done)
	// Output:
	// 42
	// context canceled
}

// Balances is a read model as the handler of a service sees it: what the handler does, without the database that it does it in.
type Balances interface {
	Add(ctx context.Context, id string, amount int) error
}

// balances returns the projection of a service. A backend says how a transaction is seen as Balances.
func balances[Tx any](in func(tx Tx) Balances) projection.Projection[Tx] {
	return projection.Projection[Tx]{
		Name: "balances",
		Handle: projection.Each(deposits, func(ctx context.Context, tx Tx, r es.Record, event deposited) error {
			return in(tx).Add(ctx, r.Stream.ID, event.Amount)
		}),
	}
}

// inSQLite is Balances in a table.
type inSQLite struct{ tx *sql.Tx }

func (b inSQLite) Add(ctx context.Context, id string, amount int) error {
	_, err := b.tx.ExecContext(ctx, "insert into balances values (?, ?) on conflict do update set amount = amount + excluded.amount", id, amount)
	return err
}

// inMap is Balances in a map.
type inMap struct {
	tx      *memory.Tx
	amounts map[string]int
}

func (b inMap) Add(_ context.Context, id string, amount int) error {
	memory.Set(b.tx, b.amounts, id, b.amounts[id]+amount)
	return nil
}

// run projects until the read model has reached a position, and then calls read.
func run[Tx any](store projection.Projections[Tx], p projection.Projection[Tx], position es.Position, read func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- store.Project(ctx, p) }()
	if err := store.WaitFor(ctx, p.Name, position); err != nil {
		return err
	}
	if err := read(ctx); err != nil {
		return err
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// A service has one projection and two implementations of its read model, one for production and one for unit tests.
func ExampleNew() {
	file, err := sqlite.Open(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	production := balances(func(tx *sql.Tx) Balances { return inSQLite{tx} })
	production.Prepare = func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "create table balances (id text primary key, amount integer)")
		return err
	}
	ctx := context.Background()
	if err := run(file, production, deposit(ctx, file, 42), func(ctx context.Context) error {
		var amount int
		err := file.DB().QueryRowContext(ctx, "select amount from balances where id = 'ann'").Scan(&amount)
		fmt.Println(amount)
		return err
	}); err != nil {
		log.Fatal(err)
	}

	mem, amounts := memory.New(new(es.Mem)), make(map[string]int)
	defer mem.Close()
	unit := balances(func(tx *memory.Tx) Balances { return inMap{tx, amounts} })
	if err := run(mem, unit, deposit(ctx, mem, 42), func(ctx context.Context) error {
		return mem.View(ctx, func() { fmt.Println(amounts["ann"]) })
	}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 42
	// 42
}

// A read model that is no map undoes its own changes.
func ExampleTx_OnRollback() {
	store := memory.New(new(es.Mem))
	defer store.Close()
	total := 0
	deposit(context.Background(), store, 40)
	err := store.Project(context.Background(), memory.Projection{
		Name: "total", Retries: -1,
		Handle: projection.Each(deposits, func(_ context.Context, tx *memory.Tx, _ es.Record, event deposited) error {
			old := total
			tx.OnRollback(func() { total = old })
			total += event.Amount
			return fmt.Errorf("the total was %d", total)
		}),
	})
	fmt.Println(err)
	fmt.Println(total)
	// Output:
	// projection total stopped before account/ann/1, a "deposited" at position 1: the total was 40; fix the handler and restart, or use es.Park
	// 0
}
