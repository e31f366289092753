package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// errorClauses are about handlers that fail, and projections that stop then.
func errorClauses() []clause {
	return []clause{
		{"failed handler is retried",
			"Retries times with pauses in between, and no record is lost or applied twice on the way.",
			retries},
		{"ErrUnavailable is retried indefinitely",
			"An error that wraps es.ErrUnavailable says that another store or service is away. It is no fault of the record, which must not be parked for it, nor stop anything.",
			outlasts},
		{"failing record stops the projection before it",
			"What stands before it is applied, also of the same batch; it and what comes behind is not. The *projection.Error names the record.",
			stops},
		{"stopped projection resumes once the handler is fixed",
			"From the record that it stopped before, in the same place.",
			mends},
		{"stopped projection does not stop the others",
			"One bug in one handler must not stop every read model of the service.",
			stopsAlone},
		{"panic in Handle is an error with its stack",
			"It must not end the process, and whoever mends it must learn where it was.",
			panics},
		{"panic in Prepare, OnCaughtUp or OnProgress is an error",
			"They run in goroutines of the store's, where a panic that nobody catches ends the process. What was committed before stays.",
			panicsBeside},
		{"Status has the error until it is fixed",
			"At three in the morning somebody looks there first.",
			tellsError},
	}
}

// failingOn is a handler that adds lines, and fails at each record with bad data, as long as it is told to.
func (t *trial) failingOn(list string, fails func() bool) func(context.Context, any, []es.Record) error {
	return func(ctx context.Context, tx any, records []es.Record) error {
		for _, r := range records {
			if string(r.Data) == "bad" && fails() {
				return errMend
			}
			if err := t.lists.Add(ctx, tx, list, r.ID()); err != nil {
				return err
			}
		}
		return nil
	}
}

func always() bool { return true }

// poison appends so many records, of which one has other data.
func (t *trial) poison(l es.Log, n, at int) es.Position {
	records := make([]es.Record, n)
	for i := range records {
		records[i] = event("good")
	}
	records[at] = event("bad")
	return t.append(l, es.Append{Stream: stream("p"), Expected: es.AnyVersion, Events: records})
}

func retries(t *trial) {
	s := t.side()
	last := t.poison(s, 10, 4)
	// To divide a batch is to try again too, so one is of a single record.
	for _, batch := range []int{10, 1} {
		p, left := t.listing(fmt.Sprint("retried", batch)), 3
		p.Retries, p.Batch = 3, batch
		p.Handle = t.failingOn(p.Name, func() bool { left--; return left >= 0 })
		t.project(s, p)
		t.reach(s, p.Name, last)
		t.enlisted(p.Name, s, es.Filter{})
	}
}

func outlasts(t *trial) {
	s, d := t.side(), new(diary)
	last := t.poison(s, 10, 4)
	const outage = 4 // tries, where a record has 2
	p, away := t.listing("patient"), outage
	p.OnError, p.Batch = es.Park, 1 // to divide a batch is to try again too
	add := p.Handle
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		if away--; away >= 0 {
			return fmt.Errorf("the other store: %w", es.ErrUnavailable)
		}
		return add(ctx, tx, records)
	}
	t.project(s, p)
	t.reach(s, p.Name, last)
	t.enlisted(p.Name, s, es.Filter{})

	r, away := t.reaction("patient too", d, nil), outage
	r.OnError = es.Park
	note := r.Handle
	r.Handle = func(ctx context.Context, r es.Record) error {
		if away > 0 && string(r.Data) == "bad" {
			away--
			return fmt.Errorf("the other store: %w", es.ErrUnavailable)
		}
		return note(ctx, r)
	}
	t.reacting(s, r)
	t.reach(s, r.Name, last)
	t.equal("what was reacted to", d.read(), ids(t.all(s)))
}

// stopped runs a projection that stops, and returns why.
func (t *trial) stopped(s ReadSide[any], p anyProjection) *projection.Error {
	err := t.stops(t.project(s, p))
	var stopped *projection.Error
	if !errors.As(err, &stopped) {
		t.Fatalf("Project returned %v: want a *projection.Error", err)
	}
	return stopped
}

func stops(t *trial) {
	s := t.side()
	for _, bad := range []int{0, 1, 6, 18, 19} {
		own := es.Stream{Kind: fmt.Sprint("bad-", bad), ID: "p"} // for its projection alone
		records := events(20)
		records[bad] = event("bad")
		t.append(s, es.Append{Stream: own, Expected: 0, Events: records})
		p := t.listing(fmt.Sprint("stopped", bad))
		p.Batch, p.Filter.Kinds = 16, []string{own.Kind}
		p.Handle = t.failingOn(p.Name, always)
		stopped, first := t.stopped(s, p), fmt.Sprint(own, "/", bad+1)
		if stopped.Name != p.Name || stopped.Record.ID() != first || !errors.Is(stopped, errMend) || !strings.Contains(stopped.Error(), first) {
			t.Errorf("Project returned %v: want one about %s of the error of the handler", stopped, first)
		}
		if lines := t.lines(p.Name); len(lines) != bad {
			t.Errorf("%d records are applied when the record %s cannot be: want those before it", len(lines), first)
		}
	}
}

func mends(t *trial) {
	s := t.side()
	last := t.poison(s, 20, 11)
	p := t.listing("mended")
	p.Handle = t.failingOn(p.Name, always)
	_ = t.stopped(s, p)
	_ = t.stopped(t.side(), p)
	p.Handle = t.listing(p.Name).Handle
	t.project(s, p)
	t.reach(s, p.Name, last)
	t.enlisted(p.Name, s, es.Filter{})
}

func stopsAlone(t *trial) {
	s := t.side()
	bad, good := t.listing("lame"), t.listing("sound")
	bad.Handle = t.failingOn(bad.Name, always)
	t.project(s, good)
	t.poison(s, 3, 1)
	_ = t.stopped(s, bad)
	t.reach(s, good.Name, t.appendSome(s, 3))
	t.enlisted(good.Name, s, es.Filter{})
}

func panics(t *trial) {
	s := t.side()
	last := t.poison(s, 5, 2)
	p := t.listing("panics")
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		if err := t.enlist(ctx, tx, p.Name, records); err != nil {
			return err
		}
		for _, r := range records {
			if string(r.Data) == "bad" {
				panic(errMend)
			}
		}
		return nil
	}
	var panicked *es.PanicError
	if err := t.stopped(s, p); !errors.As(err, &panicked) || !errors.Is(err, errMend) || !strings.Contains(string(panicked.Stack), "panics") {
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
	for name, spoil := range map[string]func(p *anyProjection){
		"Prepare":    func(p *anyProjection) { p.Prepare = func(context.Context, any) error { panic(errMend) } },
		"OnCaughtUp": func(p *anyProjection) { p.OnCaughtUp = func(context.Context) error { panic(errMend) } },
		"OnProgress": func(p *anyProjection) { p.OnProgress = func(projection.Progress) { panic(errMend) } },
	} {
		p := t.listing("panics in " + name)
		p.Partitions = 3 // whose workers wait for each other when they tell of progress
		spoilt := p
		spoil(&spoilt)
		err := t.stops(t.project(s, spoilt))
		if panicked := (*es.PanicError)(nil); !errors.As(err, &panicked) || !errors.Is(err, errMend) || !strings.Contains(string(panicked.Stack), "panicsBeside") {
			t.Errorf("Project returned %v when %s panicked: want a *es.PanicError with the stack of it", err, name)
		}
		t.project(s, p)
		t.reach(s, p.Name, last)
		t.enlistedByStream(p.Name, s)
	}
}

func tellsError(t *trial) {
	s := t.side()
	last := t.poison(s, 5, 2)
	p := t.listing("telling")
	p.Handle = t.failingOn(p.Name, always)
	_ = t.stopped(s, p)
	if status := t.status(s, p.Name); len(status) != 1 || !strings.Contains(status[0].Error, errMend.Error()) || status[0].ErrorAt.IsZero() || status[0].Cursor != 2 {
		t.Errorf("Status says %+v of one that stopped at 2: want its error and when it was", status)
	}
	p.Handle = t.listing(p.Name).Handle
	t.project(s, p)
	t.reach(s, p.Name, last)
	if status := t.status(s, p.Name); len(status) != 1 || status[0].Error != "" || !status[0].ErrorAt.IsZero() {
		t.Errorf("Status says %+v of one that goes on: want no error", status)
	}
}
