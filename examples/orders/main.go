// Orders is a shop with a web handler: an order that is not paid in time expires, and its stock is free again.
//
//	go run ./examples/orders orders.db
//	curl -X POST localhost:8080/stock/cup -d '{"Quantity": 10}'
//	curl -X POST localhost:8080/orders/1 -d '{"Item": "cup", "Quantity": 2}'
//	curl -X POST localhost:8080/orders/1/pay
//	curl localhost:8080/orders
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/thalo-go/es/examples/orders/shop"
	"github.com/thalo-go/es/sqlite"
)

func main() {
	listen := flag.String("listen", "localhost:8080", "the address to listen on")
	limit := flag.Duration("limit", 15*time.Minute, "how long an order waits for its payment")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, flag.Arg(0), *listen, *limit); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// lease is short, because the example is often interrupted and started again.
const lease = time.Second

// run serves until ctx is done.
func run(ctx context.Context, path, listen string, limit time.Duration) (err error) {
	if path == "" {
		return errors.New("give the file of the database")
	}
	store, err := sqlite.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	process := shop.NewProcess(store, limit)
	server := &http.Server{Handler: web(store, process), ReadHeaderTimeout: time.Second}
	group, ctx := errgroup.WithContext(ctx)
	for _, r := range process.Reactions() {
		r.Lease = lease
		group.Go(func() error { return store.React(ctx, r) })
	}
	list := overview()
	list.Lease = lease
	group.Go(func() error { return store.Project(ctx, list) })
	group.Go(func() error { return server.Serve(listener) })
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	return group.Wait()
}
