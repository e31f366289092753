// Package otel gives programs OpenTelemetry: traces that follow a command from a request to the read models and topics that it changes, and metrics of
// stores, projections, relays and Repos. A program that does not import it links nothing of OpenTelemetry.
//
// # Traces
//
// [Commands] traces the commands of a Repo or Decisions, each as a child of the span in its context. The events of a trace that is sampled keep it in the
// metadata traceparent and tracestate, which a relay also writes into the header ce_traceparent of its messages.
//
// What happens to the events later has traces of its own, with links to those of the commands: [Projection] for each batch, [Reaction] and
// [Handler] for each record. A trace that went on would have a span for each effect of an effect, and no end. A command that a reaction executes
// is part of the reaction's trace.
//
// # Metrics
//
// [Metrics] reads the counters of the process and the tables of the store at each collection. So a metric is there while the worker that it is about is
// dead. No label has the id of a stream, an event or a command.
//
// OpenTelemetry has no instrument that observes a histogram. Each histogram is a counter of buckets with the label le, as Prometheus has it,
// and two counters of the sum and the number of values. In Prometheus:
//
//	histogram_quantile(0.99, sum by (le) (rate(es_append_duration_bucket_total[5m])))
//
// Labels have the names of the keys in the log, and attributes of spans have them after "es.".
package otel
