// Notify is another service than the bank: it reads what the bank publishes to Kafka, and keeps notices to the owners of accounts in a database
// of its own, each exactly once. Kill it whenever you like, start it again, start two of them.
//
//	go run ./examples/bank -kafka localhost:9092 -store bank.db
//	go run ./examples/bank/notify -kafka localhost:9092 -store notices.db
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/thalo-go/es/examples/bank/notices"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

func main() {
	log.SetFlags(0)
	brokers := flag.String("kafka", "localhost:9092", "the addresses of some brokers of the cluster to which the bank publishes")
	store := flag.String("store", "notices.db", "the SQLite file with the notices")
	once := flag.Bool("once", false, "end when everything there is has been read")
	lease := flag.Duration("lease", 10*time.Second, "how long the work of one that was killed is left alone before another takes it over")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *brokers, *store, *once, *lease); err != nil && ctx.Err() == nil {
		log.Fatal("notify: ", err)
	}
}

// errEnough ends the projection when there is nothing more to do.
var errEnough = errors.New("everything has been read")

func run(ctx context.Context, brokers, path string, once bool, lease time.Duration) (err error) {
	source, err := notices.Open(ctx, brokers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	store, err := sqlite.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	p := notices.Projection(source)
	p.Lease = lease
	p.OnCaughtUp = func(ctx context.Context) error {
		s, err := notices.Summarize(ctx, store, 3)
		if err != nil {
			return err
		}
		fmt.Printf("%d notices to the owners of %d accounts, who have %s together. The last ones:\n", s.Notices, s.Accounts, notices.Euros(s.Cents))
		for _, text := range s.Last {
			fmt.Println("    " + text)
		}
		if once {
			return errEnough
		}
		return nil
	}
	p.OnProgress = func(p projection.Progress) {
		if p.Records > 0 {
			fmt.Printf("%s: %d records up to offset %d of %d\n", p.Shard, p.Records, p.Cursor, p.End)
		}
	}
	if err := store.Project(ctx, p); !errors.Is(err, errEnough) {
		return err
	}
	return nil
}
