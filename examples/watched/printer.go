package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// printer is an exporter that writes a line for each span: its trace, itself, its parent, its name, its duration, attributes and links.
type printer struct{ out io.Writer }

// ExportSpans implements the exporter of the SDK.
func (p printer) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, s := range spans {
		var line strings.Builder
		fmt.Fprintf(&line, "%s %s", s.SpanContext().TraceID(), s.SpanContext().SpanID())
		if s.Parent().IsValid() {
			fmt.Fprintf(&line, " in %s", s.Parent().SpanID())
		}
		fmt.Fprintf(&line, " %s %s", s.Name(), s.EndTime().Sub(s.StartTime()).Round(time.Microsecond))
		for _, a := range s.Attributes() {
			fmt.Fprintf(&line, " %s=%s", a.Key, a.Value.String())
		}
		for _, l := range s.Links() {
			fmt.Fprintf(&line, " link=%s/%s", l.SpanContext.TraceID(), l.SpanContext.SpanID())
		}
		if _, err := fmt.Fprintln(p.out, line.String()); err != nil {
			return err
		}
	}
	return nil
}

// Shutdown implements the exporter of the SDK.
func (printer) Shutdown(context.Context) error { return nil }
