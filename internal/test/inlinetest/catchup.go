package inlinetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

func (f *fixture[Tx]) status(s Store[Tx], name string) projection.Status {
	f.Helper()
	all, err := s.Status(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	for _, st := range all {
		if st.Name == name {
			return st
		}
	}
	f.Fatalf("%v has no %s", all, name)
	return projection.Status{}
}

func addedLater[Tx any](f *fixture[Tx]) {
	before := f.opened()
	f.append(before, many("a", 2300))
	f.append(before, at("b", 0, "good"))
	var tape tape
	p := on(f.sums(), &tape)
	prepared, caughtUp := 0, 0
	prepare := p.Prepare
	p.Prepare = func(ctx context.Context, tx Tx) error { prepared++; return prepare(ctx, tx) }
	p.OnCaughtUp = func(context.Context) error { caughtUp++; return nil }
	p.Batch = 500
	var last projection.Progress
	p.OnProgress = func(p projection.Progress) { last = p }
	s := f.opened(p)
	f.agrees()
	if len(tape.calls) != 5 || prepared != 1 || caughtUp != 1 || last.Cursor != 2301 || last.End != 2301 || last.Position != 2301 {
		f.Errorf("there were %d calls of Handle, %d of Prepare and %d of OnCaughtUp, with the last progress %+v", len(tape.calls), prepared, caughtUp, last)
	}
	f.append(s, at("b", 1, "good"))
	f.same(tape.records(), f.all(s))
	if st := f.status(s, "sums"); st.Kind != projection.KindInline || st.Worker != projection.InlineWorker || st.Lag.Positions != 0 {
		f.Errorf("the status of an inline projection that is up to date is %+v: want that it is inline, with no lag", st)
	}
	tape.clear()
	again := f.opened(p)
	f.append(again, at("b", 2, "good"))
	f.agrees()
	if len(tape.calls) != 1 || prepared != 1 {
		f.Errorf("after reopening there were %d calls of Handle, and %d of Prepare in total", len(tape.calls), prepared)
	}
}

// openedMeanwhile opens stores while another one moves both the log and the checkpoint.
func openedMeanwhile[Tx any](f *fixture[Tx]) {
	first := f.opened(f.sums())
	ctx, cancel := context.WithCancel(f.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for ctx.Err() == nil {
			if _, err := first.Append(f.Context(), at("a", es.AnyVersion, "good")); err != nil {
				f.Error(err)
				return
			}
		}
	})
	for range 40 {
		s, err := f.open(f.sums())
		if err != nil {
			f.Errorf("open: %v", err)
			break
		}
		if err := s.Close(); err != nil {
			f.Error(err)
		}
	}
	cancel()
	writer.Wait()
	f.agrees()
}

func others[Tx any](f *fixture[Tx]) {
	var tape tape
	p := on(f.sums(), &tape)
	p.Batch = 20
	with, without := f.opened(p), f.opened()
	f.append(with, at("a", 0, "good"))
	f.append(without, many("b", 50))
	f.append(without, at("a", 1, "good"))
	_, errs := f.Together(f.Context(), with, [][]es.Append{{at("a", 2, "good")}, {at("c", 0, "bad")}, {at("c", 0, "good")}})
	if errs[0] != nil || errs[1] == nil || errs[2] != nil {
		f.Errorf("the appends returned %v", errs)
	}
	f.agrees()
	f.append(without, at("a", 3, "good"))
	second := f.opened(p)
	f.agrees()
	f.append(without, at("a", 4, "good"))
	f.append(second, at("a", 5, "good"))
	f.append(with, at("a", 6, "good"))
	f.agrees()
}

func manyOthers[Tx any](f *fixture[Tx]) {
	with, without := f.opened(f.sums()), f.opened()
	f.append(without, many("b", es.MaxEvents))
	f.append(without, many("c", 10))
	f.append(with, at("a", 0, "good"))
	f.agrees()
}

func othersFail[Tx any](f *fixture[Tx]) {
	p := f.sums()
	fixed := false
	handle := p.Handle
	p.Handle = func(ctx context.Context, tx Tx, records []es.Record) error {
		if fixed {
			for i := range records {
				records[i].Type = "good"
			}
		}
		return handle(ctx, tx, records)
	}
	with, without := f.opened(p), f.opened()
	f.append(without, many("b", 20), at("x", 0, "bad"), many("c", 20))
	for _, a := range []es.Append{at("a", 0, "good"), at("d", 0, "good")} {
		_, err := with.Append(f.Context(), a)
		var stopped *projection.Error
		var bad *badError
		if !errors.As(err, &stopped) || !errors.As(err, &bad) || stopped.Record.Position != 21 || stopped.Record.ID() != "account/x/1" {
			f.Fatalf("Append returned %v, want an error about account/x/1", err)
		}
	}
	if _, err := f.open(p); err == nil {
		f.Error("the store was opened")
	}
	if st := f.status(without, "sums"); st.Cursor != 20 || st.Error != "account/x/1 is bad" {
		f.Errorf("the status is %+v, want a checkpoint of 20 and the error", st)
	}
	if n := len(f.all(without)); n != 41 {
		f.Errorf("the log has %d records, want 41", n)
	}
	fixed = true
	f.append(with, at("a", 0, "good"))
	f.agrees()
	if st := f.status(without, "sums"); st.Error != "" {
		f.Errorf("the status still has the error %q", st.Error)
	}
}

func racing[Tx any](f *fixture[Tx]) {
	const writers, rounds = 6, 15
	stores := []Store[Tx]{f.opened(f.sums()), f.opened(f.sums()), f.opened()}
	var all sync.WaitGroup
	done := make(chan struct{})
	for w := range writers * len(stores) {
		all.Go(func() {
			s := stores[w%len(stores)]
			for i := range rounds {
				kind := "good"
				if w%len(stores) < 2 && i%7 == 3 {
					kind = "bad"
				}
				_, err := s.Append(f.Context(), at(fmt.Sprint(w), es.AnyVersion, kind), at("hot", es.AnyVersion, "good"))
				if (err == nil) != (kind == "good") {
					f.Errorf("Append of writer %d returned %v for a %s event", w, err, kind)
				}
			}
		})
	}
	go func() { all.Wait(); close(done) }()
	// The events of the two stores with the projection are always in the read model. Those of the third are missing until one of the
	// two appends again, so the read model is compared with the events up to its last position.
	for reads := 0; ; reads++ {
		n := f.query(`select count(*) from (select id, count(*) as n from ` + f.Events + ` where position <= (select last from sums order by last desc limit 1) group by id) e
			full join sums s on s.id = e.id where coalesce(s.n, 0) <> coalesce(e.n, 0)`)
		if n != "0" {
			f.Errorf("%s streams differ in the read model from their events up to its last position", n)
		}
		select {
		case <-done:
			f.append(stores[0], at("end", 0, "good"))
			f.agrees()
			f.Logf("compared %d times", reads)
			return
		default:
		}
	}
}

func status[Tx any](f *fixture[Tx]) {
	s := f.opened(f.sums())
	if st := f.status(s, "sums"); st.Cursor != 0 || st.Source != s.ID() || st.Lag == nil || *st.Lag != (projection.Lag{}) {
		f.Errorf("before the first append the status is %+v", st)
	}
	position := f.append(s, many("a", 3))
	last := f.all(s)[2]
	if st := f.status(s, "sums"); st.Cursor != 3 || st.Lag == nil || *st.Lag != (projection.Lag{Head: 3}) || !st.CaughtUp || !st.Time.Equal(last.Time) || st.Error != "" {
		f.Errorf("after an append the status is %+v, want the checkpoint 3 at %v", st, last.Time)
	}
	if err := s.WaitFor(f.Context(), "sums", position); err != nil {
		f.Error(err)
	}
	ctx, cancel := context.WithCancel(f.Context())
	done := make(chan error)
	go func() { done <- f.opened().WaitFor(ctx, "sums", position+1) }()
	f.append(s, at("a", 3, "good"))
	if err := <-done; err != nil {
		f.Error(err)
	}
	cancel()
}

func rebuild[Tx any](f *fixture[Tx]) {
	var tape tape
	s := f.opened(on(f.sums(), &tape))
	f.append(s, many("a", 10))
	tape.clear()
	if err := s.Rebuild(f.Context(), "sums", 0); err != nil {
		f.Fatal(err)
	}
	f.append(s, at("b", 0, "good"))
	f.same(tape.records(), f.all(s))
	f.agrees()
	if err := s.Rebuild(f.Context(), "sums", 0); err != nil {
		f.Fatal(err)
	}
	tape.clear()
	again := f.opened(on(f.sums(), &tape))
	f.same(tape.records(), f.all(again))
	f.agrees()
	if err := s.Forget(f.Context(), "sums", 0); err != nil {
		f.Fatal(err)
	}
	tape.clear()
	f.append(again, at("b", 1, "good"))
	f.same(tape.records(), f.all(again))
	f.agrees()
}

func newVersion[Tx any](f *fixture[Tx]) {
	old := f.opened(f.sums())
	f.append(old, many("a", 5))
	second := f.sumsIn("second")
	second.Name, second.Version = "sums", 2
	both := f.opened(f.sums(), second)
	f.append(old, at("b", 0, "good"))
	f.append(both, at("c", 0, "good"))
	f.agrees()
	if n := f.differencesIn("second"); n != "0" {
		f.Errorf("%s streams differ in the second read model", n)
	}
	f.append(f.opened(second), at("d", 0, "good"))
	if n := f.differencesIn("second"); n != "0" {
		f.Errorf("%s streams differ in the second read model", n)
	}
	if n := f.differences(); n != "1" {
		f.Errorf("%s streams differ in the first read model, which did not run for d; want 1", n)
	}
}

func handedOver[Tx any](f *fixture[Tx]) {
	var tape tape
	s := f.opened()
	f.append(s, many("a", 50))
	run := func() {
		ctx, cancel := context.WithCancel(f.Context())
		p := on(f.sums(), &tape)
		p.OnCaughtUp = func(context.Context) error { cancel(); return nil }
		if err := s.Project(ctx, p); !errors.Is(err, context.Canceled) {
			f.Error(err)
		}
	}
	run()
	f.agrees()
	f.append(s, many("b", 10))
	inline := f.opened(on(f.sums(), &tape))
	f.append(inline, at("c", 0, "good"))
	f.agrees()
	f.append(s, at("d", 0, "good"))
	run()
	f.agrees()
	f.append(inline, at("e", 0, "good"))
	f.agrees()
	f.same(tape.records(), f.all(s))
	f.Run("but not with partitions", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := f.sumsIn("partitioned")
		p.Partitions = 3
		p.OnCaughtUp = func(context.Context) error { cancel(); return nil }
		if err := s.Project(ctx, p); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := f.open(f.sumsIn("partitioned")); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("opening returned %v, want es.ErrInvalid", err)
		}
	})
}
