// Notify is a separate service. It reads what the bank publishes to Kafka and stores notices to account owners in its own database, each exactly
// once, also when it is killed and restarted or when two instances run.
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
	brokers := flag.String("kafka", "localhost:9092", "`addresses` of brokers of the cluster to which the bank publishes")
	store := flag.String("store", "notices.db", "the SQLite file with the notices")
	once := flag.Bool("once", false, "exit when the topic has been read")
	lease := flag.Duration("lease", 10*time.Second, "how long until another instance takes over from one that was killed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *brokers, *store, *once, *lease); err != nil && ctx.Err() == nil {
		log.Fatal("notify: ", err)
	}
}

// errCaughtUp ends the projection with -once.
var errCaughtUp = errors.New("caught up")

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
		fmt.Printf("%d notices to the owners of %d accounts with %s in total. The last ones:\n", s.Notices, s.Accounts, notices.Euros(s.Cents))
		for _, text := range s.Last {
			fmt.Println("    " + text)
		}
		if once {
			return errCaughtUp
		}
		return nil
	}
	p.OnProgress = func(p projection.Progress) {
		if p.Records > 0 {
			fmt.Printf("%s: %d records up to offset %d of %d\n", p.Shard, p.Records, p.Cursor, p.End)
		}
	}
	if err := store.Project(ctx, p); !errors.Is(err, errCaughtUp) {
		return err
	}
	return nil
}
