package kafka_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// publishedBank returns a broker with the topic bank.account, in which a relay has published what happened to an account.
func publishedBank(ctx context.Context) *kafkatest.Broker {
	broker, err := kafkatest.New(kafkatest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	store := new(es.Mem)
	accounts := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	for _, command := range []account.Command{account.Open{Owner: "Ann"}, account.Deposit{Amount: 100_00}, account.Withdraw{Amount: 30_00}} {
		if _, err := accounts.Execute(ctx, "ann", command); err != nil {
			log.Fatal(err)
		}
	}
	relay := &kafka.Relay{
		Log: store, Prefix: "bank",
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": broker.Bootstrap()}},
		Topics:  kafka.Topics{Partitions: 3},
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	for relay.Stats().Position < 3 && len(ended) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
	return broker
}

// A consumer handles each record at least once, those of an account in order.
func ExampleConsumer() {
	ctx, cancel := context.WithCancel(context.Background())
	broker := publishedBank(ctx)
	defer broker.Close()

	consumer := &kafka.Consumer{
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": broker.Bootstrap()}},
		Group:   "mail",
		Topics:  []string{"bank.account"},
		Filter:  es.Filter{Types: []string{"deposited", "withdrawn"}},
	}
	err := consumer.Run(ctx, projection.Typed(account.Codec, func(ctx context.Context, r es.Record, event account.Event) error {
		switch e := event.(type) {
		case account.Deposited:
			fmt.Printf("%s: %d cents came in\n", r.Stream, e.Amount)
		case account.Withdrawn:
			fmt.Printf("%s: %d cents went out\n", r.Stream, e.Amount)
			cancel()
		}
		return nil
	}))
	fmt.Println(err)
	// Output:
	// account/ann: 10000 cents came in
	// account/ann: 3000 cents went out
	// context canceled
}

// A source feeds a read model in another database, each record exactly once.
func ExampleSource() {
	ctx := context.Background()
	broker := publishedBank(ctx)
	defer broker.Close()

	source, err := kafka.SourceConfig{
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": broker.Bootstrap()}},
		Topics:  []string{"bank.account"},
	}.Open(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer source.Close()
	store, err := sqlite.Open(":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	enough := errors.New("caught up")
	err = store.Project(ctx, sqlite.Projection{
		Name:   "movements",
		Source: source,
		Prepare: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "create table if not exists movements (account text primary key, number integer not null); delete from movements")
			return err
		},
		Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
			for _, r := range records {
				_, err := tx.ExecContext(ctx, "insert into movements values (?, 1) on conflict do update set number = number + 1", r.Stream.ID)
				if err != nil {
					return err
				}
			}
			return nil
		},
		OnCaughtUp: func(context.Context) error { return enough },
	})
	var number int
	if !errors.Is(err, enough) || store.DB().QueryRowContext(ctx, "select number from movements where account = 'ann'").Scan(&number) != nil {
		log.Fatal(err)
	}
	fmt.Println(number, "events")
	// Output: 3 events
}
