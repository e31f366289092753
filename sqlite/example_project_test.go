package sqlite_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"log"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// The read model has the balance of every owner, in the same database as the events. A caller that waits for the position of its command
// reads its own write.
func ExampleStore_Project() {
	store, err := sqlite.Open(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	balances := sqlite.Projection{
		Name:   "balances",
		Filter: es.Filter{Kinds: []string{"account"}},
		Prepare: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `
				drop table if exists balances;
				create table balances (account text primary key, owner text not null, cents integer not null) strict`)
			return err
		},
		Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
			for _, r := range records {
				event, err := account.Codec.Decode(r)
				if err != nil {
					return err
				}
				switch e := event.(type) {
				case account.Opened:
					_, err = tx.ExecContext(ctx, "insert into balances values (?, ?, 0)", r.Stream.ID, e.Owner)
				case account.Deposited:
					_, err = tx.ExecContext(ctx, "update balances set cents = cents + ? where account = ?", e.Amount, r.Stream.ID)
				case account.Withdrawn:
					_, err = tx.ExecContext(ctx, "update balances set cents = cents - ? where account = ?", e.Amount, r.Stream.ID)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan error), make(chan bool)
	balances.OnCaughtUp = func(context.Context) error {
		close(ready)
		return nil
	}
	go func() { done <- store.Project(ctx, balances) }()
	<-ready

	accounts := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	for _, command := range []account.Command{account.Open{Owner: "Ann"}, account.Deposit{Amount: 50_00}, account.Withdraw{Amount: 12_50}} {
		result, err := accounts.Execute(ctx, "42", command)
		if err != nil {
			log.Fatal(err)
		}
		if err := store.WaitFor(ctx, "balances", result.Position); err != nil {
			log.Fatal(err)
		}
		var owner string
		var cents int
		if err := store.DB().QueryRowContext(ctx, "select owner, cents from balances where account = '42'").Scan(&owner, &cents); err != nil {
			log.Fatal(err)
		}
		fmt.Println(owner, cents)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
	// Output:
	// Ann 0
	// Ann 5000
	// Ann 3750
}

// Status can be published with expvar.
func ExampleStore_Status() {
	store, err := sqlite.Open(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	counter := sqlite.Projection{Name: "counter", Handle: func(context.Context, *sql.Tx, []es.Record) error { return nil }}
	counter.OnCaughtUp = func(context.Context) error {
		cancel()
		return nil
	}
	go func() { done <- store.Project(ctx, counter) }()
	if err := <-done; !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}

	expvar.Publish("projections", expvar.Func(func() any {
		status, err := store.Status(context.Background())
		if err != nil {
			return err.Error()
		}
		return status
	}))

	var status []projection.Status
	if err := json.Unmarshal([]byte(expvar.Get("projections").String()), &status); err != nil {
		log.Fatal(err)
	}
	for _, s := range status {
		fmt.Println(s.Name, s.Shard, "at", s.Cursor, "of", s.Lag.Head, "lag", s.Lag.Positions, "parked", s.Parked, "caught up", s.CaughtUp)
	}
	// Output: counter 0/1 at 0 of 0 lag 0 parked 0 caught up true
}

// A record that fails is parked with the later ones of its stream, and other streams continue. It is retried once the handler is fixed.
func ExampleStore_Retry() {
	store, err := sqlite.Open(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(context.Background())
	for _, id := range []string{"a", "b"} {
		stream := es.Stream{Kind: "order", ID: id}
		if _, err := store.Append(ctx, es.Append{Stream: stream, Events: []es.Record{{Type: "placed"}, {Type: "paid"}}}); err != nil {
			log.Fatal(err)
		}
	}
	projection := func(handle func(r es.Record) error) sqlite.Projection {
		return sqlite.Projection{Name: "orders", OnError: es.Park, Retries: -1, Handle: func(_ context.Context, _ *sql.Tx, records []es.Record) error {
			for _, r := range records {
				if err := handle(r); err != nil {
					return err
				}
			}
			return nil
		}}
	}
	run := func(p sqlite.Projection, until func()) {
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error)
		go func() { done <- store.Project(ctx, p) }()
		until()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			log.Fatal(err)
		}
	}
	ready := make(chan bool)
	broken := projection(func(r es.Record) error {
		if r.ID() == "order/a/1" {
			return fmt.Errorf("no such customer")
		}
		return nil
	})
	broken.OnCaughtUp = func(context.Context) error {
		close(ready)
		return nil
	}
	run(broken, func() { <-ready })
	for p, err := range store.Parked(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %q\n", p.Record.ID(), p.Error)
	}

	if err := store.Retry(ctx, "orders", 0, es.Stream{Kind: "order", ID: "a"}); err != nil {
		log.Fatal(err)
	}
	handled := make(chan string, 2)
	fixed := projection(func(r es.Record) error {
		handled <- r.ID()
		return nil
	})
	run(fixed, func() { fmt.Println("retried", <-handled, <-handled) })
	cancel()
	// Output:
	// order/a/1 "no such customer"
	// order/a/2 ""
	// retried order/a/1 order/a/2
}
