// Watched is a service that can be seen: it has metrics for Prometheus, health checks, and traces that follow a request to the read model. Beside it are
// a dashboard for Grafana (dashboard.json) and alert rules for Prometheus (alerts.yml).
//
//	go run ./examples/watched accounts.db
//	curl -X POST localhost:8080/accounts/ann -d '{"Amount": 100}'
//	curl localhost:8080/balances
//	curl localhost:8080/metrics
//	curl localhost:8080/health/ready
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/eshttp"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/otel"
	"github.com/thalo-go/es/sqlite"
)

func main() {
	listen := flag.String("listen", "localhost:8080", "the address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, flag.Arg(0), *listen, os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "watched:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, path, listen string, out io.Writer) (err error) {
	if path == "" {
		return errors.New("give the file of the database")
	}
	store, err := sqlite.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	s, err := newService(store, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return es.Run(ctx, s.project, eshttp.Serve(&http.Server{Addr: listen, Handler: s.handler(), ReadHeaderTimeout: time.Second}))
}

// service is a bank with telemetry.
type service struct {
	store    *sqlite.Store
	accounts *es.Repo[account.Account, account.Command, account.Event]
	tracer   trace.Tracer
	metrics  http.Handler
	close    func() error
}

// newService writes the traces to out. A real service gives a provider that exports them, such as one of otlptracehttp.
func newService(store *sqlite.Store, out io.Writer) (*service, error) {
	traces := sdktrace.NewTracerProvider(sdktrace.WithSyncer(printer{out}))
	s := &service{store: store, accounts: es.NewRepo(store, "account", account.Rules{}, account.Codec), tracer: traces.Tracer("watched")}
	s.accounts.Logger = slog.Default()
	otel.Commands(s.tracer, &s.accounts.Config)

	registry := prometheus.NewRegistry()
	exporter, err := promexporter.New(promexporter.WithRegisterer(registry), promexporter.WithoutScopeInfo())
	if err != nil {
		return nil, err
	}
	meters := metric.NewMeterProvider(metric.WithReader(exporter))
	registration, err := otel.Metrics(meters.Meter("watched"), store, map[string]otel.Counted{"account": s.accounts})
	if err != nil {
		return nil, err
	}
	s.metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}) // what the process counts is there without its database too
	s.close = func() error {
		ctx := context.Background()
		return errors.Join(s.accounts.Close(ctx), registration.Unregister(), meters.Shutdown(ctx), traces.Shutdown(ctx))
	}
	return s, nil
}
