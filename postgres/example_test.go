package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	rules "github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/postgres"
)

// These examples need a server. TestExamples runs them on one, and compares what they print with the comment at their end.

// Open creates the schema on first use. DATABASE_URL is for example postgres://user:password@localhost/bank.
func ExampleOpen() {
	ctx := context.Background()
	store, err := postgres.Open(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	accounts := es.NewRepo(store, "account", rules.Rules{}, rules.Codec)
	for _, command := range []rules.Command{rules.Open{Owner: "Ann"}, rules.Deposit{Amount: 5000}, rules.Withdraw{Amount: 1250}} {
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
	// Prints:
	// 1 account/42/1 opened {"Owner":"Ann"}
	// 2 account/42/2 deposited {"Amount":5000}
	// 3 account/42/3 withdrawn {"Amount":1250}
}

// Two stores share a database, each in its own schema. The pool is the application's: closing the stores leaves it open.
func ExampleConfig() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	for _, schema := range []string{"orders", "stock"} {
		store, err := postgres.Config{Schema: schema, ConnectTimeout: 3 * time.Second}.New(ctx, pool)
		if err != nil {
			log.Fatal(err)
		}
		position, err := store.Append(ctx, es.Append{
			Stream: es.Stream{Kind: schema, ID: "1"},
			Events: []es.Record{{Type: "created", Data: []byte(`{}`)}},
		})
		fmt.Println(schema, position, err)
		if err := store.Close(); err != nil {
			log.Fatal(err)
		}
	}
	// Prints:
	// orders 1 <nil>
	// stock 1 <nil>
}

// An event and a row of the application commit together. Append is the last statement before the commit, because from then on the
// transaction holds the lock that all appends need.
func ExampleStore_In() {
	ctx := context.Background()
	store, err := postgres.Open(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Pool().Exec(ctx, "create table outbox (message text)"); err != nil {
		log.Fatal(err)
	}

	err = pgx.BeginFunc(ctx, store.Pool(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "insert into outbox values ('order 1 was placed')"); err != nil {
			return err
		}
		_, err := store.In(tx).Append(ctx, es.Append{
			Stream: es.Stream{Kind: "order", ID: "1"},
			Events: []es.Record{{Type: "placed", Data: []byte(`{"total":1250}`)}},
		})
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	for record, err := range store.Read(ctx, es.Stream{Kind: "order", ID: "1"}, 0) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(record.ID(), record.Type)
	}
	// Prints:
	// order/1/1 placed
}

// Names are unique across all streams: the projection is part of each append and refuses a name that is taken.
func ExampleConfig_inline() {
	names := postgres.Projection{
		Name:   "names",
		Filter: es.Filter{Types: []string{"named"}},
		Prepare: func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "drop table if exists names; create table names (name text primary key, holder text)")
			return err
		},
		Handle: func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
			for _, r := range records {
				inserted, err := tx.Exec(ctx, "insert into names values ($1, $2) on conflict do nothing", string(r.Data), r.Stream.ID)
				if err != nil {
					return err
				}
				if inserted.RowsAffected() == 0 {
					return es.Invariant("NAME_TAKEN", "the name %s is taken", r.Data)
				}
			}
			return nil
		},
	}
	ctx := context.Background()
	store, err := postgres.Config{Inline: []postgres.Projection{names}}.Open(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	for _, id := range []string{"1", "2"} {
		named := []es.Record{{Type: "named", Data: []byte("ann")}}
		_, err := store.Append(ctx, es.Append{Stream: es.Stream{Kind: "user", ID: id}, Events: named})
		var refused *es.InvariantError
		fmt.Println(id, errors.As(err, &refused))
	}
	// Prints:
	// 1 false
	// 2 true
}

// visits counts the visits of each page in a table.
var visits = postgres.Projection{
	Name:   "visits",
	Filter: es.Filter{Kinds: []string{"page"}},
	Prepare: func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "drop table if exists visits; create table visits (page text primary key, n bigint not null)")
		return err
	},
	Handle: func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
		for _, r := range records {
			_, err := tx.Exec(ctx, "insert into visits values ($1, 1) on conflict (page) do update set n = visits.n + 1", r.Stream.ID)
			if err != nil {
				return err
			}
		}
		return nil
	},
}

// Project runs until its context ends. Each record is applied in the transaction that moves the checkpoint, so it counts once.
func ExampleStore_Project() {
	ctx, stop := context.WithCancel(context.Background())
	store, err := postgres.Open(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	page := es.Append{
		Stream: es.Stream{Kind: "page", ID: "home"}, Expected: es.AnyVersion,
		Events: []es.Record{{Type: "visited"}, {Type: "visited"}},
	}
	if _, err := store.Append(ctx, page); err != nil {
		log.Fatal(err)
	}

	p := visits
	p.OnCaughtUp = func(context.Context) error {
		stop() // a server would run on
		return nil
	}
	err = store.Project(ctx, p)
	fmt.Println(errors.Is(err, context.Canceled))
	var n int
	if err := store.Pool().QueryRow(context.Background(), "select n from visits where page = 'home'").Scan(&n); err != nil {
		log.Fatal(err)
	}
	fmt.Println(n, "visits")
	// Prints:
	// true
	// 2 visits
}

// To read its own write from a read model, a caller waits for the position of its append.
func ExampleStore_WaitFor() {
	ctx, stop := context.WithCancel(context.Background())
	store, err := postgres.Open(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	p, ready, done := visits, make(chan struct{}), make(chan error)
	p.OnCaughtUp = func(context.Context) error {
		close(ready)
		return nil
	}
	go func() { done <- store.Project(ctx, p) }()
	<-ready

	for range 3 {
		position, err := store.Append(ctx, es.Append{
			Stream: es.Stream{Kind: "page", ID: "home"}, Expected: es.AnyVersion,
			Events: []es.Record{{Type: "visited"}},
		})
		if err != nil {
			log.Fatal(err)
		}
		if err := store.WaitFor(ctx, "visits", position); err != nil {
			log.Fatal(err)
		}
		var n int
		if err := store.Pool().QueryRow(ctx, "select n from visits where page = 'home'").Scan(&n); err != nil {
			log.Fatal(err)
		}
		fmt.Println(n, "visits")
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
	// Prints:
	// 1 visits
	// 2 visits
	// 3 visits
}

// The store resolves an append whose connection broke. If the context ends first, the outcome is unknown. An append with a command id can
// then be repeated: if the first one was written, the second returns a DuplicateError.
func ExampleStore_Append_unknownOutcome() {
	ctx := context.Background()
	store, err := postgres.Open(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	transfer := es.Append{
		Stream: es.Stream{Kind: "account", ID: "42"}, Expected: es.AnyVersion, Command: "transfer-17",
		Events: []es.Record{{Type: "deposited", Data: []byte(`{"Amount":100}`)}},
	}
	once := func() error {
		for {
			attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err := store.Append(attempt, transfer)
			cancel()
			var duplicate *es.DuplicateError
			switch {
			case errors.As(err, &duplicate):
				return nil // it was written before
			case !errors.Is(err, es.ErrUnknownOutcome):
				return err
			}
		}
	}
	fmt.Println(once(), once())
	head, err := es.Head(ctx, store)
	fmt.Println(head, err)
	// Prints:
	// <nil> <nil>
	// 1 <nil>
}

// ErrUnavailable separates temporary failures from faults of the call. Here another transaction holds the lock that appends need, for longer
// than lock_timeout.
func ExampleStore_Append_unavailable() {
	ctx := context.Background()
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["lock_timeout"] = "50ms"
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	store, err := postgres.New(ctx, pool)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	order := func(id string) es.Append {
		return es.Append{Stream: es.Stream{Kind: "order", ID: id}, Events: []es.Record{{Type: "placed"}}}
	}
	tx, err := pool.Begin(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := store.In(tx).Append(ctx, order("1")); err != nil {
		log.Fatal(err)
	}
	_, err = store.Append(ctx, order("2"))
	fmt.Println("unavailable:", errors.Is(err, es.ErrUnavailable))
	if err := tx.Commit(ctx); err != nil {
		log.Fatal(err)
	}
	position, err := store.Append(ctx, order("2"))
	fmt.Println(position, err)
	// Prints:
	// unavailable: true
	// 2 <nil>
}
