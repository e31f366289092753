package otel

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/relaynote"
	"github.com/thalo-go/es/projection"
)

// Store is a store of package sqlite or postgres.
type Store interface {
	es.Leases
	projection.Admin

	// Stats returns the counters since the store was opened.
	Stats() es.Stats
}

// Counted is a Repo or Decisions.
type Counted interface {
	// Stats returns the counters since it was made.
	Stats() es.RepoStats
}

// timeout is how long a collection waits for the database.
const timeout = 5 * time.Second

// Metrics registers the metrics of a store, of the projections, reactions and relays that have their state in it, and of Repos and Decisions by a name
// of each, usually its kind. They are read at each collection, by two queries on the database. If that does not answer within five seconds,
// es.store.available is 0 and the metrics from the database are missing.
//
// All processes report the same values for projections and relays: take the maximum. Counters are those of the process: add them.
// If a program has two stores, give each a meter with instrumentation attributes of its own.
func Metrics(meter metric.Meter, store Store, repos map[string]Counted) (metric.Registration, error) {
	if store == nil {
		return nil, fmt.Errorf("otel: %w: the store is nil", es.ErrInvalid)
	}
	for name, repo := range repos {
		if repo == nil {
			return nil, fmt.Errorf("otel: %w: the repo %q is nil", es.ErrInvalid, name)
		}
	}
	m := &metrics{store: store, repos: repos, instruments: instruments{meter: meter}}
	m.make()
	if m.err != nil {
		return nil, fmt.Errorf("otel: %w", m.err)
	}
	registration, err := meter.RegisterCallback(m.observe, m.all...)
	if err != nil {
		return nil, fmt.Errorf("otel: %w", err)
	}
	return registration, nil
}

// instruments makes the instruments of a meter.
type instruments struct {
	meter metric.Meter
	all   []metric.Observable
	err   error
}

func keep[T metric.Observable](i *instruments, made T, err error) T {
	i.all, i.err = append(i.all, made), errors.Join(i.err, err)
	return made
}

func (i *instruments) count(name, what string) metric.Int64ObservableCounter {
	made, err := i.meter.Int64ObservableCounter(name, metric.WithDescription(what))
	return keep(i, made, err)
}

func (i *instruments) sum(name, what string) metric.Float64ObservableCounter {
	made, err := i.meter.Float64ObservableCounter(name, metric.WithUnit("s"), metric.WithDescription(what))
	return keep(i, made, err)
}

func (i *instruments) gauge(name, what string) metric.Int64ObservableGauge {
	made, err := i.meter.Int64ObservableGauge(name, metric.WithDescription(what))
	return keep(i, made, err)
}

func (i *instruments) seconds(name, what string) metric.Float64ObservableGauge {
	made, err := i.meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(what))
	return keep(i, made, err)
}

// durations is a histogram of seconds.
type durations struct {
	sum     metric.Float64ObservableCounter
	buckets metric.Int64ObservableCounter
}

func (i *instruments) durations(name, what string) durations {
	return durations{i.sum(name, what), i.count(name+".bucket", what+": values up to le")}
}

func (d durations) observe(o metric.Observer, h es.Histogram, of ...attribute.KeyValue) {
	o.ObserveFloat64(d.sum, h.Sum, metric.WithAttributes(of...))
	observeBuckets(o, d.buckets, h, of)
}

// sizes is a histogram of numbers.
type sizes struct{ sum, buckets metric.Int64ObservableCounter }

func (i *instruments) sizes(name, what string) sizes {
	return sizes{i.count(name, what), i.count(name+".bucket", what+": values up to le")}
}

func (s sizes) observe(o metric.Observer, h es.Histogram) {
	o.ObserveInt64(s.sum, int64(h.Sum))
	observeBuckets(o, s.buckets, h, nil)
}

// observeBuckets observes how many values are at most as large as each bound.
func observeBuckets(o metric.Observer, buckets metric.Int64ObservableCounter, h es.Histogram, of []attribute.KeyValue) {
	n := int64(0)
	for i, count := range h.Counts {
		n += count
		le := "+Inf"
		if i < len(h.Bounds) {
			le = strconv.FormatFloat(h.Bounds[i], 'g', -1, 64)
		}
		attributes := append([]attribute.KeyValue{attribute.String("le", le)}, of...)
		o.ObserveInt64(buckets, n, metric.WithAttributes(attributes...))
	}
}

// metrics are the instruments of one store.
type metrics struct {
	instruments
	store Store
	repos map[string]Counted

	calls, events, batches   metric.Int64ObservableCounter
	waiting, available       metric.Int64ObservableGauge
	append, batch            durations
	size                     sizes
	commands, retries, cache metric.Int64ObservableCounter
	execute                  durations

	lag, parked, worker, failing, caughtUp, position, timers metric.Int64ObservableGauge
	age, overdue                                             metric.Float64ObservableGauge

	relayLag, relayWorker, relayPosition metric.Int64ObservableGauge
	relayAge                             metric.Float64ObservableGauge
}

func (m *metrics) make() {
	m.calls = m.count("es.append.calls", "Calls of Append, by outcome")
	m.events = m.count("es.append.events", "Events written")
	m.append = m.durations("es.append.duration", "Time of calls of Append")
	m.batches = m.count("es.append.batches", "Transactions that appends have shared")
	m.batch = m.durations("es.append.batch.duration", "Time of transactions")
	m.size = m.sizes("es.append.batch.size", "Appends in transactions")
	m.waiting = m.gauge("es.append.waiting", "Calls of Append that wait for a transaction")
	m.available = m.gauge("es.store.available", "1 if the database has answered this collection, 0 if not")

	m.commands = m.count("es.command.calls", "Commands, by outcome")
	m.retries = m.count("es.command.retries", "Attempts of commands after a conflict")
	m.cache = m.count("es.cache.rounds", "Rounds of commands, by whether their state was in the cache")
	m.execute = m.durations("es.command.duration", "Time of commands")

	m.lag = m.gauge("es.projection.lag", "Records from the checkpoint to the end of the log")
	m.age = m.seconds("es.projection.age", "Time since the first record after the checkpoint was written")
	m.parked = m.gauge("es.projection.parked", "Records that are set aside")
	m.worker = m.gauge("es.projection.worker", "1 if a process works on the shard, 0 if none does")
	m.failing = m.gauge("es.projection.error", "1 if the last attempt failed, or if no worker knows the next type of event")
	m.caughtUp = m.gauge("es.projection.caught_up", "1 if the shard has ever reached the end of its source")
	m.position = m.gauge("es.projection.cursor", "The checkpoint")
	m.timers = m.gauge("es.projection.waiting", "Records that a reaction will handle when they are due")
	m.overdue = m.seconds("es.projection.overdue", "Time since the earliest of them was due; 0 if it is not")

	m.relayLag = m.gauge("es.relay.lag", "Records from the checkpoint of a relay to the end of the log")
	m.relayAge = m.seconds("es.relay.age", "Time since the first record after the checkpoint of a relay was written")
	m.relayWorker = m.gauge("es.relay.worker", "1 if a process has the lease of the relay, 0 if it has expired")
	m.relayPosition = m.gauge("es.relay.position", "The checkpoint of a relay")
}

// observe is the callback of a collection.
func (m *metrics) observe(ctx context.Context, o metric.Observer) error {
	m.observeStore(o)
	for name, repo := range m.repos {
		m.observeRepo(o, name, repo.Stats())
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	shards, err := m.store.Status(ctx)
	var leases []es.Lease
	if err == nil {
		leases, err = m.store.ListLeases(ctx)
	}
	o.ObserveInt64(m.available, flag(err == nil))
	if err != nil {
		return fmt.Errorf("otel: read the state of projections: %w", err)
	}
	now := time.Now()
	for i := range shards {
		m.observeShard(o, &shards[i], now)
	}
	for _, l := range leases {
		if err := m.observeRelay(ctx, o, l, now); err != nil {
			return err
		}
	}
	return nil
}

func outcome(name string) metric.ObserveOption {
	return metric.WithAttributes(attribute.String("outcome", name))
}

func (m *metrics) observeStore(o metric.Observer) {
	s := m.store.Stats()
	written := s.Appends
	for _, c := range []struct {
		name string
		n    int64
	}{
		{"conflict", s.Conflicts}, {"duplicate", s.Duplicates}, {"refused", s.Refused}, {"unknown", s.Unknown}, {"failed", s.Failed},
	} {
		written -= c.n
		o.ObserveInt64(m.calls, c.n, outcome(c.name))
	}
	o.ObserveInt64(m.calls, max(0, written), outcome("written")) // a call may be counted while they are read
	o.ObserveInt64(m.events, s.Events)
	o.ObserveInt64(m.batches, s.Batches)
	o.ObserveInt64(m.waiting, int64(s.Waiting))
	m.append.observe(o, s.Append)
	m.batch.observe(o, s.Batch)
	m.size.observe(o, s.BatchSize)
}

func (m *metrics) observeRepo(o metric.Observer, name string, s es.RepoStats) {
	kind := attribute.String("kind", name)
	for _, c := range []struct {
		outcome string
		n       int64
	}{
		{"refused", s.Refused}, {"repeated", s.Repeated}, {"other", s.Commands - s.Refused - s.Repeated},
	} {
		o.ObserveInt64(m.commands, c.n, metric.WithAttributes(kind, attribute.String("outcome", c.outcome)))
	}
	o.ObserveInt64(m.retries, s.Retries, metric.WithAttributes(kind))
	o.ObserveInt64(m.cache, s.CacheHits, metric.WithAttributes(kind, attribute.Bool("hit", true)))
	o.ObserveInt64(m.cache, s.CacheMisses, metric.WithAttributes(kind, attribute.Bool("hit", false)))
	m.execute.observe(o, s.Execute, kind)
}

func (m *metrics) observeShard(o metric.Observer, s *projection.Status, now time.Time) {
	of := metric.WithAttributes(attribute.String("projection", s.Name), attribute.Int("version", s.Version), attribute.String("shard", s.Shard), attribute.String("kind", string(s.Kind)))
	if s.Lag != nil {
		o.ObserveInt64(m.lag, s.Lag.Positions, of)
		o.ObserveFloat64(m.age, s.Lag.Age.Seconds(), of)
	}
	o.ObserveInt64(m.parked, int64(s.Parked), of)
	o.ObserveInt64(m.worker, flag(s.Worker != ""), of)
	o.ObserveInt64(m.failing, flag(s.Error != "" || s.NeedsType != ""), of)
	o.ObserveInt64(m.caughtUp, flag(s.CaughtUp), of)
	o.ObserveInt64(m.position, int64(s.Cursor), of)
	if s.Kind == projection.KindReaction {
		overdue := time.Duration(0)
		if !s.NextDue.IsZero() {
			overdue = max(0, now.Sub(s.NextDue))
		}
		o.ObserveInt64(m.timers, int64(s.Waiting), of)
		o.ObserveFloat64(m.overdue, overdue.Seconds(), of)
	}
}

// observeRelay observes the relay that has a lease, as it was when the lease was last extended. A relay that is dead since then is behind by what
// the log has after its checkpoint now.
func (m *metrics) observeRelay(ctx context.Context, o metric.Observer, l es.Lease, now time.Time) error {
	topics, name, is := relaynote.Relay(l.Name)
	if !is {
		return nil
	}
	of := metric.WithAttributes(attribute.String("prefix", topics), attribute.String("relay", name))
	working := l.Until.After(now)
	o.ObserveInt64(m.relayWorker, flag(working), of)
	note, known := relaynote.Parse(l.Note)
	if !known {
		return nil
	}
	if log, is := m.store.(es.Log); is && !working {
		head, err := es.Head(ctx, log)
		if err != nil {
			return fmt.Errorf("otel: read the end of the log: %w", err)
		}
		note.Behind = max(0, int64(head)-note.Position)
		if note.Behind > 0 {
			note.Age = max(note.Age, now.Sub(l.Until))
		}
	}
	o.ObserveInt64(m.relayPosition, note.Position, of)
	o.ObserveInt64(m.relayLag, note.Behind, of)
	o.ObserveFloat64(m.relayAge, note.Age.Seconds(), of)
	return nil
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
