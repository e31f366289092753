package otel

import (
	"context"
	"errors"
	"maps"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/thalo-go/es"
)

// Attributes of spans.
const (
	attrStream     = attribute.Key("es.stream")
	attrRecord     = attribute.Key("es.record")
	attrPosition   = attribute.Key("es.position")
	attrType       = attribute.Key("es.type")
	attrProjection = attribute.Key("es.projection")
	attrRecords    = attribute.Key("es.records")
	attrEvents     = attribute.Key("es.events")
	attrAttempts   = attribute.Key("es.attempts")
	attrRepeated   = attribute.Key("es.repeated")
	attrBatchSize  = attribute.Key("es.batch.size")
	attrBatchWait  = attribute.Key("es.batch.wait") // seconds
	attrQueueWait  = attribute.Key("es.queue.wait") // seconds
	attrCode       = attribute.Key("es.code")       // of an es.InvariantError
	attrErrorType  = attribute.Key("error.type")    // as in the semantic conventions
)

// Commands traces the commands of a Repo or Decisions, and has their events keep the trace:
//
//	otel.Commands(tracer, &accounts.Config)
//
// Each command is a span with the name "execute" and the kind of its aggregate. Its attributes say how many events it wrote, after how many attempts, how
// many commands its transaction had (es.batch.size), and for how many seconds it waited for that (es.batch.wait) and for earlier commands on its
// aggregate (es.queue.wait). The transaction has no span: it belongs to no single command. A refusal by the rules is no error of the span; it has
// the attributes error.type and es.code.
//
// Metadata of an earlier Config.Meta is kept. An earlier Config.Tracer is replaced. Call Commands before the first command.
func Commands(tracer trace.Tracer, c *es.Config) {
	c.Tracer = nil
	if _, off := tracer.(noop.Tracer); !off {
		c.Tracer = commands{tracer}
	}
	before := c.Meta
	c.Meta = func(ctx context.Context) map[string]string {
		meta := Meta(ctx)
		if before == nil {
			return meta
		}
		own := before(ctx)
		if len(meta) == 0 {
			return own
		}
		maps.Copy(meta, own)
		return meta
	}
}

// Meta returns the trace of a context as metadata, traceparent and tracestate. It is for programs that append without a Repo, and for
// [es.Config.Meta] without spans. It returns nil if the context has no trace, and also if that is not sampled: nothing is recorded of it
// that a link could lead to, so the events need not keep it.
func Meta(ctx context.Context) map[string]string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return nil
	}
	meta := make(propagation.MapCarrier, 2)
	propagation.TraceContext{}.Inject(ctx, meta)
	return meta
}

// spanContextOf returns the trace that a record's metadata has. It is not valid if there is none.
func spanContextOf(r es.Record) trace.SpanContext {
	if r.Meta["traceparent"] == "" {
		return trace.SpanContext{}
	}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier(r.Meta)))
}

// commands is an es.Tracer.
type commands struct{ tracer trace.Tracer }

func (c commands) StartCommand(ctx context.Context, stream es.Stream) context.Context {
	ctx, span := c.tracer.Start(ctx, "execute "+stream.Kind)
	if span.IsRecording() {
		span.SetAttributes(attrStream.String(stream.String()))
	}
	return ctx
}

func (c commands) EndCommand(ctx context.Context, done es.CommandTrace) {
	span := trace.SpanFromContext(ctx)
	defer span.End()
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(
		attrEvents.Int(done.Events), attrAttempts.Int(done.Attempts), attrRepeated.Bool(done.Repeated), attrBatchSize.Int(done.BatchSize),
		attrBatchWait.Float64(done.Waited.Seconds()), attrQueueWait.Float64(done.Queued.Seconds()),
	)
	fail(span, done.Err)
}

// fail notes an error in a span.
func fail(span trace.Span, err error) {
	if err == nil {
		return
	}
	kind := errorType(err)
	span.SetAttributes(attrErrorType.String(kind))
	if kind == typeInvariant {
		refusal, _ := errors.AsType[*es.InvariantError](err)
		span.SetAttributes(attrCode.String(refusal.Code))
		return
	}
	span.SetStatus(codes.Error, err.Error())
}

const typeInvariant = "invariant"

// errorType returns the kind of an error, of which there are few.
func errorType(err error) string {
	if _, is := errors.AsType[*es.PanicError](err); is {
		return "panic"
	}
	switch {
	case errors.Is(err, es.ErrUnknownOutcome): // before that of the context, which it wraps too
		return "unknown_outcome"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline_exceeded"
	case errors.Is(err, es.ErrExpired):
		return "expired"
	case errors.Is(err, es.ErrClosed):
		return "closed"
	case errors.Is(err, es.ErrUnavailable):
		return "unavailable"
	case errors.Is(err, es.ErrInvalid):
		return "invalid"
	}
	if _, is := errors.AsType[*es.ConflictError](err); is {
		return "conflict"
	}
	if _, is := errors.AsType[*es.InvariantError](err); is {
		return typeInvariant
	}
	return "_OTHER" // as in the semantic conventions
}
