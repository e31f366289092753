package kafka_test

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
	"github.com/thalo-go/es/otel"
	"github.com/thalo-go/es/sqlite"
)

// A trace can be followed from a client's request to the command, the metadata of its event, the batch of a projection, the header of
// the message, and the consumer of that.
func TestATraceFromARequestToAConsumer(t *testing.T) {
	t.Parallel()
	broker := testserver.FakeBroker(t, kafkatest.Options{})
	exporter := tracetest.NewInMemoryExporter()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter)).Tracer("test")
	store, _ := openFile(t)
	accounts := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	otel.Commands(tracer, &accounts.Config)
	server := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header)) // as middleware does
		ctx, span := tracer.Start(ctx, "POST /accounts", trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		if _, err := accounts.Execute(ctx, "ann", account.Open{Owner: "ann"}); err != nil {
			t.Error(err)
		}
	})
	const client = "4bf92f3577b34da6a3ce929d0e0e4736"
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/accounts", http.NoBody)
	request.Header.Set("traceparent", "00-"+client+"-00f067aa0ba902b7-01")
	server.ServeHTTP(httptest.NewRecorder(), request)

	balances := sqlite.Projection{Name: "balances", Once: true, Handle: func(context.Context, *sql.Tx, []es.Record) error { return nil }}
	if err := store.Project(t.Context(), otel.Projection(tracer, balances)); err != nil {
		t.Fatal(err)
	}

	cluster := kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": broker.Bootstrap}}
	relay := &kafka.Relay{Log: store, Prefix: broker.Prefix, Cluster: cluster, Topics: kafka.Topics{Partitions: 1}}
	consumer := &kafka.Consumer{Cluster: cluster, Group: broker.Prefix + ".mail", Topics: []string{broker.Prefix + ".account"}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var received es.Record
	err := es.Run(ctx, relay.Run, func(ctx context.Context) error {
		return consumer.Run(ctx, otel.Handler(tracer, "mail", func(_ context.Context, r es.Record) error {
			received = r
			cancel()
			return nil
		}))
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}

	spans := make(map[string]tracetest.SpanStub)
	for _, s := range exporter.GetSpans() {
		spans[s.Name] = s
	}
	command := spans["execute account"]
	if command.SpanContext.TraceID().String() != client || command.Parent.SpanID() != spans["POST /accounts"].SpanContext.SpanID() {
		t.Errorf("the command is in the trace %v below %v", command.SpanContext.TraceID(), command.Parent.SpanID())
	}
	want := "00-" + client + "-" + command.SpanContext.SpanID().String() + "-01"
	if received.Meta["traceparent"] != want {
		t.Errorf("the consumer got the traceparent %q, want %q", received.Meta["traceparent"], want)
	}
	header := ""
	reader := watcher(t, broker.Bootstrap, kgo.ConsumeTopics(broker.Prefix+".account"))
	patient, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	for header == "" && patient.Err() == nil {
		reader.PollFetches(patient).EachRecord(func(r *kgo.Record) {
			for _, h := range r.Headers {
				if h.Key == "ce_traceparent" {
					header = string(h.Value)
				}
			}
		})
	}
	if header != want {
		t.Errorf("the message has the header ce_traceparent %q, want %q", header, want)
	}
	for _, name := range []string{"project balances", "consume mail"} {
		s, found := spans[name]
		if !found || s.Parent.IsValid() || len(s.Links) != 1 || s.Links[0].SpanContext.SpanID() != command.SpanContext.SpanID() {
			t.Errorf("%s has the span %+v, want a trace of its own with a link to the command", name, s)
		}
	}
}
