package otel

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// maxLinks is the number of links of a span, and the default limit of the SDK.
const maxLinks = 128

// errAborted is the error of a span whose function panicked.
var errAborted = errors.New("the handler panicked or called runtime.Goexit")

// Projection traces a projection. Each batch is a trace of its own, with links to the traces of its records: at most 128, and those of the first
// records. The context of Handle has its span. Another attempt at a batch is another trace.
func Projection[Tx any](tracer trace.Tracer, p projection.Projection[Tx]) projection.Projection[Tx] {
	handle := p.Handle
	if _, off := tracer.(noop.Tracer); off || handle == nil {
		return p
	}
	name := "project " + p.Name
	p.Handle = func(ctx context.Context, tx Tx, records []es.Record) error {
		return traced(ctx, tracer, name, records, func(ctx context.Context, span trace.Span) error {
			if span.IsRecording() {
				span.SetAttributes(attrProjection.String(p.Name), attrRecords.Int(len(records)))
				if len(records) > 0 {
					span.SetAttributes(attrPosition.Int64(int64(records[0].Position)))
				}
			}
			return handle(ctx, tx, records)
		})
	}
	return p
}

// Reaction traces a reaction. Each record is a trace of its own, with a link to that of the record's command. The commands that Handle
// executes with its context are part of it. Another attempt at a record is another trace.
func Reaction(tracer trace.Tracer, r projection.Reaction) projection.Reaction {
	if r.Handle != nil {
		r.Handle = each(tracer, "react "+r.Name, r.Name, r.Handle)
	}
	return r
}

// Handler traces the handler of a kafka.Consumer, or another function for records, as [Reaction] does. The name is that of the span, after "consume".
func Handler(tracer trace.Tracer, name string, handle func(ctx context.Context, r es.Record) error) func(ctx context.Context, r es.Record) error {
	return each(tracer, "consume "+name, "", handle)
}

// each traces a function for one record. reaction is "" for a consumer.
func each(tracer trace.Tracer, name, reaction string, handle func(ctx context.Context, r es.Record) error) func(ctx context.Context, r es.Record) error {
	if _, off := tracer.(noop.Tracer); off {
		return handle
	}
	return func(ctx context.Context, r es.Record) error {
		return traced(ctx, tracer, name, []es.Record{r}, func(ctx context.Context, span trace.Span) error {
			if span.IsRecording() {
				span.SetAttributes(attrRecord.String(r.ID()), attrPosition.Int64(int64(r.Position)), attrType.String(r.Type))
				if reaction != "" {
					span.SetAttributes(attrProjection.String(reaction))
				}
			}
			return handle(ctx, r)
		})
	}
}

// traced runs a function as a trace of its own that is linked to those of records.
func traced(ctx context.Context, tracer trace.Tracer, name string, records []es.Record, run func(ctx context.Context, span trace.Span) error) error {
	ctx, span := tracer.Start(ctx, name, trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer))
	if span.IsRecording() {
		link(span, records)
	}
	err := errAborted
	defer func() {
		fail(span, err)
		span.End()
	}()
	err = run(ctx, span)
	return err
}

// link adds links to the traces of records, each once.
func link(span trace.Span, records []es.Record) {
	type command struct {
		trace trace.TraceID
		span  trace.SpanID
	}
	var linked map[command]bool
	for _, r := range records {
		if len(linked) == maxLinks {
			return
		}
		c := spanContextOf(r)
		if at := (command{c.TraceID(), c.SpanID()}); c.IsValid() && !linked[at] {
			if linked == nil {
				linked = make(map[command]bool)
			}
			linked[at] = true
			span.AddLink(trace.Link{SpanContext: c})
		}
	}
}
