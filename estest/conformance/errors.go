package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// errorClauses test handlers that fail and projections that stop because of it.
func errorClauses() []clause {
	return []clause{
		{"failed handler is retried",
			"A handler is called again Retries times, with pauses. No record is lost or applied twice by that.",
			retries},
		{"ErrUnavailable is retried indefinitely",
			"An error that wraps es.ErrUnavailable means that another store or service is unavailable, not that the record is at fault. The record must not be parked for it and the projection must not stop.",
			retriesUnavailable},
		{"failing record stops the projection before it",
			"The records before it are applied, even those of the same batch; it and the later ones are not. The *projection.Error names the record.",
			stops},
		{"stopped projection resumes once the handler is fixed",
			"It continues with the record that it stopped before. Otherwise that record is lost or others are applied twice.",
			resumesFixed},
		{"stopped projection does not stop the others",
			"A bug in one handler must not stop every read model of the service.",
			stopsAlone},
		{"panic in Handle is an error with its stack",
			"A panic must not end the process. Without the stack, its cause cannot be found.",
			panics},
		{"panic in Prepare, OnCaughtUp or OnProgress is an error",
			"These functions run in goroutines of the store, where a panic that is not recovered ends the process. What was committed before the panic stays.",
			panicsBeside},
		{"Status has the error until it is fixed",
			"Operators look at Status first. An error that is missing, or remains after it is fixed, misleads them.",
			reportsError},
	}
}

// failingOn returns a handler that adds lines and fails on each bad record while fails returns true.
func (t *trial) failingOn(list string, fails func() bool) func(context.Context, any, []es.Record) error {
	return func(ctx context.Context, tx any, records []es.Record) error {
		for _, r := range records {
			if string(r.Data) == "bad" && fails() {
				return errHandler
			}
			if err := t.lists.Add(ctx, tx, list, r.ID()); err != nil {
				return err
			}
		}
		return nil
	}
}

func always() bool { return true }

// appendBad appends n records to one stream. The record at index at is bad.
func (t *trial) appendBad(l es.Log, n, at int) es.Position {
	records := make([]es.Record, n)
	for i := range records {
		records[i] = event("good")
	}
	records[at] = event("bad")
	return t.append(l, es.Append{Stream: stream("p"), Expected: es.AnyVersion, Events: records})
}

func retries(t *trial) {
	s := t.side()
	last := t.appendBad(s, 10, 4)
	// Dividing a batch is a retry too, so one batch has a single record.
	for _, batch := range []int{10, 1} {
		p, left := t.listing(fmt.Sprint("retried", batch)), 3
		p.Retries, p.Batch = 3, batch
		p.Handle = t.failingOn(p.Name, func() bool { left--; return left >= 0 })
		t.project(s, p)
		t.reach(s, p.Name, last)
		t.enlisted(p.Name, s, es.Filter{})
	}
}

func retriesUnavailable(t *trial) {
	s, j := t.side(), new(journal)
	last := t.appendBad(s, 10, 4)
	const outage = 4 // calls, where a record has 2 attempts
	p, left := t.listing("patient"), outage
	p.OnError, p.Batch = es.Park, 1 // dividing a batch is a retry too
	add := p.Handle
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		if left--; left >= 0 {
			return fmt.Errorf("the other store: %w", es.ErrUnavailable)
		}
		return add(ctx, tx, records)
	}
	t.project(s, p)
	t.reach(s, p.Name, last)
	t.enlisted(p.Name, s, es.Filter{})

	r, left := t.reaction("patient too", j, nil), outage
	r.OnError = es.Park
	handle := r.Handle
	r.Handle = func(ctx context.Context, r es.Record) error {
		if left > 0 && string(r.Data) == "bad" {
			left--
			return fmt.Errorf("the other store: %w", es.ErrUnavailable)
		}
		return handle(ctx, r)
	}
	t.react(s, r)
	t.reach(s, r.Name, last)
	t.handledInOrder(j, s)
}

func stops(t *trial) {
	s := t.side()
	for _, bad := range []int{0, 1, 6, 18, 19} {
		own := es.Stream{Kind: fmt.Sprint("bad-", bad), ID: "p"} // only this projection's filter matches it
		records := events(20)
		records[bad] = event("bad")
		t.append(s, es.Append{Stream: own, Expected: 0, Events: records})
		p := t.listing(fmt.Sprint("stopped", bad))
		p.Batch, p.Filter.Kinds = 16, []string{own.Kind}
		p.Handle = t.failingOn(p.Name, always)
		stopped, first := t.failure(s, p), fmt.Sprint(own, "/", bad+1)
		if stopped.Name != p.Name || stopped.Record.ID() != first || !errors.Is(stopped, errHandler) || !strings.Contains(stopped.Error(), first) {
			t.Errorf("Project returned %v: want a *projection.Error about %s with the handler's error", stopped, first)
		}
		if lines := t.lines(p.Name); len(lines) != bad {
			t.Errorf("%d records are applied when %s fails: want those before it", len(lines), first)
		}
	}
}

func resumesFixed(t *trial) {
	s := t.side()
	last := t.appendBad(s, 20, 11)
	p := t.listing("fixed")
	p.Handle = t.failingOn(p.Name, always)
	_ = t.failure(s, p)
	_ = t.failure(t.side(), p)
	p.Handle = t.listing(p.Name).Handle
	t.project(s, p)
	t.reach(s, p.Name, last)
	t.enlisted(p.Name, s, es.Filter{})
}

func stopsAlone(t *trial) {
	s := t.side()
	bad, good := t.listing("bad"), t.listing("good")
	bad.Handle = t.failingOn(bad.Name, always)
	t.project(s, good)
	t.appendBad(s, 3, 1)
	_ = t.failure(s, bad)
	t.reach(s, good.Name, t.appendSome(s, 3))
	t.enlisted(good.Name, s, es.Filter{})
}

func panics(t *trial) {
	s := t.side()
	last := t.appendBad(s, 5, 2)
	p := t.listing("panics")
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		if err := t.enlist(ctx, tx, p.Name, records); err != nil {
			return err
		}
		for _, r := range records {
			if string(r.Data) == "bad" {
				panic(errHandler)
			}
		}
		return nil
	}
	var panicked *es.PanicError
	if err := t.failure(s, p); !errors.As(err, &panicked) || !errors.Is(err, errHandler) || !strings.Contains(string(panicked.Stack), "panics") {
		t.Errorf("Project returned %v: want a *es.PanicError with the stack of the handler", err)
	}
	p.Handle = t.listing(p.Name).Handle
	t.project(s, p)
	t.reach(s, p.Name, last)
	t.enlisted(p.Name, s, es.Filter{})
}

func panicsBeside(t *trial) {
	s := t.side()
	last := t.appendSome(s, 5)
	for name, breakIt := range map[string]func(p *anyProjection){
		"Prepare":    func(p *anyProjection) { p.Prepare = func(context.Context, any) error { panic(errHandler) } },
		"OnCaughtUp": func(p *anyProjection) { p.OnCaughtUp = func(context.Context) error { panic(errHandler) } },
		"OnProgress": func(p *anyProjection) { p.OnProgress = func(projection.Progress) { panic(errHandler) } },
	} {
		p := t.listing("panics in " + name)
		p.Partitions = 3 // calls of OnProgress from several shards wait for each other
		broken := p
		breakIt(&broken)
		err := t.wait(t.project(s, broken))
		if panicked := (*es.PanicError)(nil); !errors.As(err, &panicked) || !errors.Is(err, errHandler) || !strings.Contains(string(panicked.Stack), "panicsBeside") {
			t.Errorf("Project returned %v when %s panicked: want a *es.PanicError with its stack", err, name)
		}
		t.project(s, p)
		t.reach(s, p.Name, last)
		t.enlistedByStream(p.Name, s)
	}
}

func reportsError(t *trial) {
	s := t.side()
	last := t.appendBad(s, 5, 2)
	p := t.listing("reported")
	p.Handle = t.failingOn(p.Name, always)
	_ = t.failure(s, p)
	if status := t.status(s, p.Name); len(status) != 1 || !strings.Contains(status[0].Error, errHandler.Error()) || status[0].ErrorAt.IsZero() || status[0].Cursor != 2 {
		t.Errorf("Status returned %+v for a projection that stopped at 2: want its error and the time", status)
	}
	p.Handle = t.listing(p.Name).Handle
	t.project(s, p)
	t.reach(s, p.Name, last)
	if status := t.status(s, p.Name); len(status) != 1 || status[0].Error != "" || !status[0].ErrorAt.IsZero() {
		t.Errorf("Status returned %+v for a projection that continues: want no error", status)
	}
}
