// Orders is a shop with a web handler: an order that is not paid in time expires, and its stock is free again.
//
//	go run ./examples/orders orders.db      or postgres://user@host/database
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
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/eshttp"
	"github.com/thalo-go/es/examples/orders/shop"
	"github.com/thalo-go/es/stores"
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
func run(ctx context.Context, where, listen string, limit time.Duration) (err error) {
	if where == "" {
		return errors.New("give the file of the database, or its URL")
	}
	store, err := stores.Config{Logger: slog.Default()}.Open(ctx, where) // it says what it waits for
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	process := shop.NewProcess(store, limit)
	tasks := []func(context.Context) error{func(ctx context.Context) error { return store.Project(ctx, overview()) }}
	for _, r := range process.Reactions() {
		r.Lease = lease
		tasks = append(tasks, func(ctx context.Context) error { return store.React(ctx, r) })
	}
	server := &http.Server{Addr: listen, Handler: web(store, process), ReadHeaderTimeout: time.Second}
	return es.Run(ctx, append(tasks, eshttp.Serve(server))...)
}
