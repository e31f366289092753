package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
)

func timerFigures() []figure {
	const (
		atOnce = "100,000 records that are due when they are read, as when a process begins with the past, into an empty handler, against a reaction without Due over the same records"
		later  = "enrolment of 100,000 timers, and in another run, when all are due at once, firing into an empty handler, against a reaction without Due over the same records"
	)
	return []figure{
		{"pg-timers", atOnce, atLeast(0.4), once(3, pgTimers(timersAtOnce))},
		{"sqlite-timers", atOnce, atLeast(0.4), once(3, sqliteTimers(timersAtOnce))},
		{"pg-timers-later", later, atLeast(0.4), once(3, pgTimers(timersLater))},
		{"sqlite-timers-later", later, atLeast(0.4), once(3, sqliteTimers(timersLater))},
		{"pg-timer-late-p99", "lateness of a timer on an idle system, 99th percentile", atMost(50, "ms"), pgTimerLate},
		{
			"pg-timers-enrol", "appends by 128 writers while a reaction enrols each of them, over 1,000,000 timers not yet due, against a reaction without Due",
			atLeast(0.7), rates(pgTimersEnrol),
		},
	}
}

// reactive is a store that runs reactions.
type reactive interface {
	es.Store
	React(ctx context.Context, r projection.Reaction) error
}

// sides returns the sides of a round over the records of a store.
type sides func(store reactive, records int) (ours, theirs measure.Side)

func timersAtOnce(store reactive, records int) (ours, theirs measure.Side) {
	due := func(r es.Record) (time.Time, error) { return r.Time, nil }
	return reacts("with Due", store, records, due, 0), reacts("without Due", store, records, nil, 0)
}

func timersLater(store reactive, records int) (ours, theirs measure.Side) {
	at := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	due := func(es.Record) (time.Time, error) { return at, nil }
	return reacts("with Due", store, records, due, time.Until(at)), reacts("without Due", store, records, nil, 0)
}

func pgTimers(of sides) setUp {
	return func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		store, _, err := r.session.pgStore(ctx, r)
		if err != nil {
			return ours, theirs, err
		}
		return timersOf(ctx, r, store, of)
	}
}

func sqliteTimers(of sides) setUp {
	return func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		store, err := sqliteStore(r)
		if err != nil {
			return ours, theirs, err
		}
		return timersOf(ctx, r, store, of)
	}
}

func timersOf(ctx context.Context, r *round, store reactive, of sides) (ours, theirs measure.Side, err error) {
	records := min(100_000, r.session.records)
	if err := work.Fill(ctx, work.To(store), records, payload); err != nil {
		return ours, theirs, err
	}
	ours, theirs = of(store, records)
	return ours, theirs, nil
}

// reacts returns one caller that runs a new reaction over the whole log, again and again. With a delay, one run enrols the records, and another
// handles them when the clock has been moved by the delay.
func reacts(name string, store reactive, records int, due func(es.Record) (time.Time, error), delay time.Duration) measure.Side {
	runs := 0
	return measure.Side{Name: name, Callers: 1, Units: records, Op: func(ctx context.Context, _ int) error {
		var handled atomic.Int64
		runs++
		now := time.Now()
		reaction := projection.Reaction{
			Name: fmt.Sprint(name, " ", runs), From: projection.Beginning(), Due: due, Once: true, Now: func() time.Time { return now },
			Handle: func(context.Context, es.Record) error { handled.Add(1); return nil },
		}
		err := store.React(ctx, reaction)
		if err == nil && delay > 0 {
			if n := handled.Load(); n > 0 {
				return fmt.Errorf("%s: %d records were handled early", name, n)
			}
			now = now.Add(delay)
			err = store.React(ctx, reaction)
		}
		if n := handled.Load(); err == nil && n != int64(records) {
			err = fmt.Errorf("%s: %d records were handled, want %d", name, n, records)
		}
		return err
	}}
}

// pgTimerLate appends one event at a time, which is due 50 ms later.
func pgTimerLate(ctx context.Context, s *session) (o outcome, err error) {
	err = s.round(func(r *round) error {
		store, _, err := s.pgStore(ctx, r)
		if err != nil {
			return err
		}
		n := 500
		if s.rounds == 1 {
			n = 20
		}
		late, err := lateness(ctx, store, n)
		if err != nil {
			return err
		}
		o.value = milliseconds(measure.Percentile(late, 99))
		o.details = []string{fmt.Sprintf("%d timers\tp50 %.3g ms\tp99 %.3g ms", len(late), milliseconds(measure.Percentile(late, 50)), o.value)}
		return nil
	})
	return o, err
}

func lateness(ctx context.Context, store *postgres.Store, n int) (late []time.Duration, err error) {
	const delay = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(ctx)
	fired, ended := make(chan time.Duration, n), make(chan error, 1)
	go func() {
		ended <- store.React(ctx, projection.Reaction{
			Name: "late", From: projection.Beginning(),
			Due: func(r es.Record) (time.Time, error) { return r.Time.Add(delay), nil },
			Handle: func(_ context.Context, r es.Record) error {
				fired <- time.Since(r.Time) - delay // the server runs on this machine
				return nil
			},
		})
	}()
	defer func() {
		cancel()
		<-ended //nolint:errcheck // the end of the context, which was just ended
	}()
	event := es.Record{Type: "due", Data: []byte("{}")}
	for range n {
		if _, err := store.Append(ctx, es.Append{Stream: es.Stream{Kind: "timer", ID: "a"}, Expected: es.AnyVersion, Events: []es.Record{event}}); err != nil {
			return nil, err
		}
		select {
		case d := <-fired:
			late = append(late, max(0, d))
		case err := <-ended:
			ended <- nil
			return nil, fmt.Errorf("the reaction ended: %w", err)
		}
	}
	return late[n/10:], nil // the first ones warm up: connections, LISTEN
}

func pgTimersEnrol(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
	later := func(r es.Record) (time.Time, error) { return r.Time.Add(24 * time.Hour), nil }
	if ours, err = appendsBeside(ctx, r, "with Due", later); err == nil {
		theirs, err = appendsBeside(ctx, r, "without Due", nil)
	}
	return ours, theirs, err
}

// appendsBeside returns appends beside a reaction that has handled, or enrolled, what was appended before.
func appendsBeside(ctx context.Context, r *round, name string, due func(es.Record) (time.Time, error)) (side measure.Side, err error) {
	store, _, err := r.session.pgStore(ctx, r)
	if err != nil {
		return side, err
	}
	before := func(ctx context.Context, stream es.Stream, after es.Version, events []es.Record) error {
		return work.To(store)(ctx, es.Stream{Kind: "before", ID: stream.ID}, after, events)
	}
	if err := work.Fill(ctx, before, min(1_000_000, r.session.records), payload); err != nil {
		return side, err
	}
	reaction := projection.Reaction{Name: "beside", From: projection.Beginning(), Due: due, Once: true, Handle: func(context.Context, es.Record) error { return nil }}
	if err := store.React(ctx, reaction); err != nil {
		return side, err
	}
	reaction.Once = false
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- store.React(ctx, reaction) }()
	r.cleanup(func() error {
		cancel()
		<-ended //nolint:errcheck // the end of the context, which was just ended
		return nil
	})
	return work.Appends(name, work.To(store), 128, 1, payload), nil
}
