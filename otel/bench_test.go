package otel_test

import (
	"path/filepath"
	"strconv"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/otel"
	"github.com/thalo-go/es/sqlite"
)

// BenchmarkNoop measures what a no-op provider adds to a command. The goal is 200 ns and no allocation.
func BenchmarkNoop(b *testing.B) {
	var c es.Config
	otel.Commands(noop.NewTracerProvider().Tracer("bench"), &c)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		c.Meta(ctx)
	}
}

// BenchmarkExecute measures warm commands on SQLite with and without a provider that samples one trace of ten. The goal is 0.95 of the rate.
func BenchmarkExecute(b *testing.B) {
	provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.TraceIDRatioBased(0.1)), sdktrace.WithBatcher(tracetest.NewNoopExporter()))
	defer func() { _ = provider.Shutdown(b.Context()) }()
	for name, tracer := range map[string]trace.Tracer{"none": nil, "noop": noop.NewTracerProvider().Tracer("bench"), "sampled": provider.Tracer("bench")} {
		b.Run(name, func(b *testing.B) {
			store, err := sqlite.Open(filepath.Join(b.TempDir(), "bench.db"))
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			repo := es.NewRepo(store, "account", account.Rules{}, account.Codec)
			if tracer != nil {
				otel.Commands(tracer, &repo.Config)
			}
			for i := range 64 {
				if _, err := repo.Execute(b.Context(), strconv.Itoa(i), account.Open{Owner: "ann"}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n++
				if _, err := repo.Execute(b.Context(), strconv.Itoa(n%64), account.Deposit{Amount: 1}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
