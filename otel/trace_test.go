package otel_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/otel"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/projection/memory"
)

// spans returns a tracer, and what has ended with it so far.
func spans() (trace.Tracer, func() tracetest.SpanStubs) {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	return provider.Tracer("test"), func() tracetest.SpanStubs {
		defer exporter.Reset()
		return exporter.GetSpans()
	}
}

// attributes returns the attributes of a span that have a value which does not depend on time.
func attributes(s tracetest.SpanStub) map[string]any {
	m := make(map[string]any)
	for _, a := range s.Attributes {
		if !strings.HasSuffix(string(a.Key), ".wait") {
			m[string(a.Key)] = a.Value.AsInterface()
		}
	}
	return m
}

func newRepo(store es.Store, tracer trace.Tracer) *es.Repo[account.Account, account.Command, account.Event] {
	repo := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	otel.Commands(tracer, &repo.Config)
	return repo
}

func records(t *testing.T, log es.Log) (all []es.Record) {
	t.Helper()
	for r, err := range log.All(t.Context(), 0, es.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// handler is a web server that takes the trace of its client over, as middleware does.
func handler(tracer trace.Tracer, h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := tracer.Start(ctx, "POST /accounts")
		defer span.End()
		h(w, r.WithContext(ctx))
	})
}

const (
	clientTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientState = "vendor=x"
)

// A command is part of the request's trace, and its events have that trace.
func TestACommandIsTracedFromTheRequestToItsEvents(t *testing.T) {
	tracer, ended := spans()
	log := new(es.Mem)
	repo := newRepo(log, tracer)
	h := handler(tracer, func(_ http.ResponseWriter, r *http.Request) {
		if _, err := repo.Execute(r.Context(), "ann", account.Open{Owner: "ann"}); err != nil {
			t.Error(err)
		}
	})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/accounts", http.NoBody)
	r.Header.Set("traceparent", "00-"+clientTrace+"-00f067aa0ba902b7-01")
	r.Header.Set("tracestate", clientState)
	h.ServeHTTP(httptest.NewRecorder(), r)

	got := ended()
	if len(got) != 2 || got[0].Name != "execute account" || got[1].Name != "POST /accounts" {
		t.Fatalf("got the spans %v", got)
	}
	command, request := got[0], got[1]
	if command.Parent.SpanID() != request.SpanContext.SpanID() || command.SpanContext.TraceID().String() != clientTrace {
		t.Errorf("the command's span has the parent %v in the trace %v", command.Parent.SpanID(), command.SpanContext.TraceID())
	}
	want := map[string]any{"es.stream": "account/ann", "es.events": int64(1), "es.attempts": int64(1), "es.repeated": false, "es.batch.size": int64(1)}
	if diff := cmp.Diff(want, attributes(command)); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	for _, key := range []attribute.Key{"es.batch.wait", "es.queue.wait"} {
		if set := attribute.NewSet(command.Attributes...); !set.HasValue(key) {
			t.Errorf("there is no attribute %s", key)
		}
	}
	meta := map[string]string{"traceparent": "00-" + clientTrace + "-" + command.SpanContext.SpanID().String() + "-01", "tracestate": clientState}
	if diff := cmp.Diff(meta, records(t, log)[0].Meta); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

// The events of a trace that is not sampled do not keep it, and a client's decision holds. A program without a provider passes a client's trace on.
func TestSampling(t *testing.T) {
	never := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test")
	always := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample()))).Tracer("test")
	off := noop.NewTracerProvider().Tracer("test")
	for _, test := range []struct {
		name   string
		tracer trace.Tracer
		flags  string
		kept   bool
	}{
		{"the provider never samples", never, "01", false},
		{"the client does not sample", always, "00", false},
		{"the client samples", always, "01", true},
		{"no-op, and the client does not sample", off, "00", false},
		{"no-op, and the client samples", off, "01", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := new(es.Mem)
			repo := newRepo(log, test.tracer)
			ctx := propagation.TraceContext{}.Extract(t.Context(), propagation.MapCarrier{"traceparent": "00-" + clientTrace + "-00f067aa0ba902b7-" + test.flags})
			if _, err := repo.Execute(ctx, "ann", account.Open{Owner: "ann"}); err != nil {
				t.Fatal(err)
			}
			parent := records(t, log)[0].Meta["traceparent"]
			if kept := strings.HasPrefix(parent, "00-"+clientTrace); kept != test.kept || !kept && parent != "" {
				t.Errorf("the event has the traceparent %q", parent)
			}
		})
	}
}

// A span says which kind of error ended it. A refusal is an answer, and no error.
func TestErrorsOfSpans(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{es.Invariant("NO_MONEY", "no"), "invariant"},
		{&es.ConflictError{}, "conflict"},
		{fmt.Errorf("x: %w: %w", es.ErrUnknownOutcome, context.Canceled), "unknown_outcome"},
		{context.Canceled, "canceled"},
		{context.DeadlineExceeded, "deadline_exceeded"},
		{es.ErrExpired, "expired"},
		{es.ErrClosed, "closed"},
		{es.ErrUnavailable, "unavailable"},
		{es.ErrInvalid, "invalid"},
		{&es.PanicError{Value: "x"}, "panic"},
		{errors.New("account ann has no money"), "_OTHER"},
	} {
		t.Run(test.want, func(t *testing.T) {
			tracer, ended := spans()
			var c es.Config
			otel.Commands(tracer, &c)
			c.Tracer.EndCommand(c.Tracer.StartCommand(t.Context(), es.Stream{Kind: "k", ID: "i"}), es.CommandTrace{Err: test.err})
			got := ended()[0]
			refused := test.want == "invariant"
			if a := attributes(got); a["error.type"] != test.want || refused && a["es.code"] != "NO_MONEY" {
				t.Errorf("attributes %v", a)
			}
			if (got.Status.Code == codes.Error) == refused {
				t.Errorf("status %v", got.Status)
			}
		})
	}
}

// A projection's batch is a trace of its own, linked to the commands whose events it has.
func TestProjectionAndReactionLinkToCommands(t *testing.T) {
	tracer, ended := spans()
	log := new(es.Mem)
	repo := newRepo(log, tracer)
	if _, err := repo.Execute(t.Context(), "ann", account.Open{Owner: "ann"}); err != nil {
		t.Fatal(err)
	}
	command := ended()[0].SpanContext
	store := memory.New(log)
	var inside trace.SpanContext
	err := store.Project(t.Context(), otel.Projection(tracer, memory.Projection{Name: "balances", Once: true, Handle: func(ctx context.Context, _ *memory.Tx, _ []es.Record) error {
		inside = trace.SpanContextFromContext(ctx)
		return nil
	}}))
	if err != nil {
		t.Fatal(err)
	}
	batch := ended()
	expectLinked(t, batch, "project balances", command)
	if !inside.Equal(batch[0].SpanContext) {
		t.Error("the context of Handle does not have the span of the batch")
	}
	want := map[string]any{"es.projection": "balances", "es.records": int64(1), "es.position": int64(1)}
	if diff := cmp.Diff(want, attributes(batch[0])); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}

	err = store.React(t.Context(), otel.Reaction(tracer, projection.Reaction{
		Name: "greet", Once: true, From: projection.Beginning(), Filter: es.Filter{Types: []string{"opened"}},
		Handle: func(ctx context.Context, _ es.Record) error {
			_, err := repo.Execute(ctx, "ann", account.Deposit{Amount: 1}, es.Step("gift"))
			return err
		},
	}))
	if err != nil {
		t.Fatal(err)
	}
	got := ended()
	expectLinked(t, got[1:], "react greet", command)
	if got[0].Name != "execute account" || got[0].Parent.SpanID() != got[1].SpanContext.SpanID() {
		t.Errorf("the command of the reaction has the span %v, not one below that of the reaction", got[0])
	}
	want = map[string]any{"es.projection": "greet", "es.record": "account/ann/1", "es.type": "opened", "es.position": int64(1)}
	if diff := cmp.Diff(want, attributes(got[1])); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

// expectLinked expects one span that begins a trace and has one link.
func expectLinked(t *testing.T, got tracetest.SpanStubs, name string, to trace.SpanContext) {
	t.Helper()
	if len(got) != 1 || got[0].Name != name || got[0].Parent.IsValid() || got[0].SpanKind != trace.SpanKindConsumer {
		t.Fatalf("got the spans %+v, want one without a parent", got)
	}
	if l := got[0].Links; len(l) != 1 || l[0].SpanContext.TraceID() != to.TraceID() || l[0].SpanContext.SpanID() != to.SpanID() {
		t.Errorf("%s has the links %+v, want one to %v", name, got[0].Links, to)
	}
}

// A batch of many commands has at most 128 links, each once. What is no trace is no link, and no error.
func TestLinksAreBounded(t *testing.T) {
	tracer, ended := spans()
	parent := func(n int) map[string]string {
		return map[string]string{"traceparent": fmt.Sprintf("00-%s-%016x-01", clientTrace, n)}
	}
	batch := []es.Record{{}, {Meta: map[string]string{"traceparent": "no trace"}}, {Meta: map[string]string{"traceparent": strings.Repeat("0", 1<<16)}}, {Meta: parent(0)}}
	for n := range 300 {
		batch = append(batch, es.Record{Meta: parent(n/2 + 1)})
	}
	p := otel.Projection(tracer, projection.Projection[int]{Name: "p", Handle: func(context.Context, int, []es.Record) error { return nil }})
	if err := p.Handle(t.Context(), 0, batch); err != nil {
		t.Fatal(err)
	}
	links := ended()[0].Links
	seen := make(map[trace.SpanID]bool)
	for _, l := range links {
		seen[l.SpanContext.SpanID()] = true
	}
	if len(links) != 128 || len(seen) != 128 {
		t.Errorf("%d links, of which %d are different; want 128", len(links), len(seen))
	}
}

// The error of a handler and its panic are those of the span, and reach the caller.
func TestHandlersThatFail(t *testing.T) {
	tracer, ended := spans()
	broken := errors.New("broken")
	h := otel.Handler(tracer, "mail", func(context.Context, es.Record) error { return broken })
	if err := h(t.Context(), es.Record{}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if got := ended(); len(got) != 1 || got[0].Name != "consume mail" || got[0].Status.Code != codes.Error || got[0].Status.Description != "broken" {
		t.Errorf("got the spans %+v", got)
	}
	h = otel.Handler(tracer, "mail", func(context.Context, es.Record) error { panic("broken") })
	func() {
		defer func() {
			if v := recover(); v != "broken" {
				t.Errorf("the panic became %v", v)
			}
		}()
		_ = h(t.Context(), es.Record{})
	}()
	if got := ended(); len(got) != 1 || got[0].Status.Code != codes.Error {
		t.Errorf("got the spans %+v", got)
	}
}

// Metadata of the program and of the call takes precedence.
func TestCommandsKeepsMeta(t *testing.T) {
	tracer, _ := spans()
	log := new(es.Mem)
	repo := es.NewRepo(log, "account", account.Rules{}, account.Codec)
	repo.Meta = func(context.Context) map[string]string {
		return map[string]string{"user": "ann", "tracestate": "own=1"}
	}
	otel.Commands(tracer, &repo.Config)
	if _, err := repo.Execute(t.Context(), "ann", account.Open{Owner: "ann"}); err != nil {
		t.Fatal(err)
	}
	if meta := records(t, log)[0].Meta; meta["user"] != "ann" || meta["tracestate"] != "own=1" || meta["traceparent"] == "" {
		t.Errorf("metadata %v", meta)
	}
}

// What a program without a provider pays.
func TestNoopAllocatesNothing(t *testing.T) {
	tracer := noop.NewTracerProvider().Tracer("test")
	var c es.Config
	otel.Commands(tracer, &c)
	if c.Tracer != nil {
		t.Error("a no-op provider traces commands")
	}
	if allocs := testing.AllocsPerRun(100, func() { c.Meta(t.Context()) }); allocs != 0 {
		t.Errorf("%v allocations for a command", allocs)
	}
	h := otel.Handler(tracer, "x", func(context.Context, es.Record) error { return nil })
	p := otel.Projection(tracer, projection.Projection[int]{Handle: func(context.Context, int, []es.Record) error { return nil }})
	if allocs := testing.AllocsPerRun(100, func() { _, _ = h(t.Context(), es.Record{}), p.Handle(t.Context(), 0, nil) }); allocs != 0 {
		t.Errorf("%v allocations for a record", allocs)
	}
}
