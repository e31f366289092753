package inlinetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

type (
	counter struct{}
	counted struct{ By int }
)

func (counter) Decide(_, by int) ([]counted, error) { return []counted{{by}}, nil }
func (counter) Evolve(state int, e counted) int     { return state + e.By }

func notWritten[Tx any](f *fixture[Tx]) {
	var tape tape
	s := f.opened(on(f.sums(), &tape))
	once := es.Append{Stream: stream("once"), Expected: es.AnyVersion, Command: "c", Events: []es.Record{event("good", "1")}}
	f.append(s, once)
	f.append(s, at("a", 0, "good"))
	tape.clear()
	_, errs := f.Together(f.Context(), s, [][]es.Append{
		{at("a", 0, "lost")}, {once}, {at("b", 0, "good")}, {at("b", 0, "lost")}, {at("c", 0, "lost"), at("a", 9, "lost")},
	})
	for i, err := range errs {
		if (err == nil) != (i == 2) {
			f.Errorf("append %d returned %v", i, err)
		}
	}
	for _, call := range [][]es.Append{{once}, {at("a", 7, "lost")}} {
		if _, err := s.Append(f.Context(), call...); err == nil {
			f.Errorf("%v was written", call)
		}
	}
	if got := tape.records(); len(got) != 1 || got[0].Stream != stream("b") {
		f.Errorf("the handler got %v, want the record that was written", got)
	}
	f.agrees()
}

// unique tests an invariant across streams, the main purpose of inline projections.
func unique[Tx any](f *fixture[Tx]) {
	s := f.opened(projection.Projection[Tx]{
		Name: "names",
		Prepare: func(ctx context.Context, tx Tx) error {
			return f.Exec(ctx, tx, "create table names (name text primary key, id text not null)")
		},
		Handle: func(ctx context.Context, tx Tx, records []es.Record) error {
			for _, r := range records {
				if err := f.Exec(ctx, tx, "insert into names values ($1, $2)", r.Type, r.Stream.ID); err != nil {
					return es.Invariant("NAME_TAKEN", "%s is taken: %v", r.Type, err)
				}
			}
			return nil
		},
	})
	var calls [][]es.Append
	for i := range 12 {
		calls = append(calls, []es.Append{at(fmt.Sprint(i), 0, fmt.Sprint("name", i%5))})
	}
	_, errs := f.Together(f.Context(), s, calls)
	for i, err := range errs {
		var taken *es.InvariantError
		if i < 5 && err != nil || i >= 5 && (!errors.As(err, &taken) || taken.Code != "NAME_TAKEN") {
			f.Errorf("append %d returned %v", i, err)
		}
	}
	if n := len(f.all(s)); n != 5 {
		f.Errorf("%d names are taken, want 5", n)
	}
}

func several[Tx any](f *fixture[Tx]) {
	first, second := f.sums(), f.sumsIn("second")
	first.Filter.Types = []string{"good", "other"} // so that only the second one fails
	s := f.opened(first, second)
	_, errs := f.Together(f.Context(), s, [][]es.Append{{at("a", 0, "good")}, {at("b", 0, "good"), at("b", 1, "bad")}, {at("c", 0, "other")}})
	if errs[0] != nil || errs[2] != nil || errs[1] == nil || !strings.Contains(errs[1].Error(), "second") {
		f.Errorf("the appends returned %v", errs)
	}
	f.agrees()
	if n := f.differencesIn("second"); n != "0" {
		f.Errorf("%s streams differ in the second read model", n)
	}
}

func filtered[Tx any](f *fixture[Tx]) {
	p := f.sums()
	p.Filter = es.Filter{Kinds: []string{"account"}, Types: []string{"good"}}
	var tape tape
	s := f.opened(on(p, &tape))
	f.append(s, at("a", 0, "good"), at("a", 1, "other"), at("b", 0, "good"))
	f.append(s, at("a", 2, "other"))
	other := at("a", 0, "good")
	other.Stream.Kind = "order"
	last := f.append(s, other)
	if got := tape.records(); len(got) != 2 || got[0].Position != 1 || got[1].Position != 3 {
		f.Errorf("the handler got %v, want positions 1 and 3", got)
	}
	if st := f.status(s, "sums"); st.Cursor != projection.Cursor(last) || st.Lag == nil || st.Lag.Positions != 0 {
		f.Errorf("the checkpoint is %d, want %d", st.Cursor, last)
	}
}

func batches[Tx any](f *fixture[Tx]) {
	var tape tape
	p := f.sums()
	p.Batch = 10
	s := f.opened(on(p, &tape))
	f.append(s, many("a", 25))
	if len(tape.calls) != 3 || len(tape.calls[2]) != 5 {
		f.Errorf("25 records were handled in %d calls, want 3", len(tape.calls))
	}
	f.same(tape.records(), f.all(s))
	f.agrees()
}

func checks[Tx any](f *fixture[Tx]) {
	var tape tape
	s := f.opened(on(f.sums(), &tape))
	f.append(s, at("a", 0, "good"))
	tape.clear()
	if position, err := s.Append(f.Context(), es.Append{Stream: stream("a"), Expected: 1}); position != 0 || err != nil {
		f.Errorf("a check with the right version returned %d, %v", position, err)
	}
	if _, err := s.Append(f.Context(), es.Append{Stream: stream("a"), Expected: 2}); err == nil {
		f.Error("a check with the wrong version returned no error")
	}
	if position, err := s.Append(f.Context()); position != 0 || err != nil {
		f.Errorf("an empty call returned %d, %v", position, err)
	}
	_, errs := f.Together(f.Context(), s, [][]es.Append{{{Stream: stream("a"), Expected: 1}}, {at("b", 0, "good")}, {{Stream: stream("b"), Expected: 1}}})
	if err := errors.Join(errs...); err != nil {
		f.Error(err)
	}
	if got := tape.records(); len(got) != 1 {
		f.Errorf("the handler got %v, want one record", got)
	}
	f.agrees()
}

func handlerAppends[Tx any](f *fixture[Tx]) {
	var s Store[Tx]
	p := f.sums()
	var got error
	p.Handle = func(ctx context.Context, _ Tx, _ []es.Record) error {
		_, got = s.Append(ctx, at("b", 0, "good"))
		return got
	}
	s = f.opened(p)
	_, err := s.Append(f.Context(), at("a", 0, "good"))
	if !errors.Is(got, es.ErrInvalid) || !errors.Is(err, es.ErrInvalid) {
		f.Errorf("Append returned %v to the handler and %v to the caller; want es.ErrInvalid", got, err)
	}
}

func hidden[Tx any](f *fixture[Tx]) {
	p := f.sums()
	handle := p.Handle
	p.Handle = func(ctx context.Context, tx Tx, records []es.Record) error {
		_ = handle(ctx, tx, records)
		for _, r := range records {
			if r.Type == "worse" {
				_ = f.Exec(ctx, tx, "insert into nowhere values (1)")
			}
		}
		return nil
	}
	s := f.opened(p)
	_, errs := f.Together(f.Context(), s, [][]es.Append{{at("a", 0, "good")}, {at("b", 0, "worse")}, {at("c", 0, "good")}})
	if err := errors.Join(errs[0], errs[2]); err != nil {
		f.Error(err)
	}
	// In SQLite a failed statement leaves the transaction intact, so the store cannot notice it.
	if errs[1] == nil && f.Events != "es_events" {
		f.Error("the append on which the handler hid an error was written")
	}
	f.agrees()
}

func endsTransaction[Tx any](f *fixture[Tx]) {
	p := f.sums()
	ends := true
	handle := p.Handle
	var got error
	p.Handle = func(ctx context.Context, tx Tx, records []es.Record) error {
		if err := handle(ctx, tx, records); err != nil || !ends {
			return err
		}
		got = f.End(ctx, tx)
		return got
	}
	s := f.opened(p)
	if _, err := s.Append(f.Context(), at("a", 0, "good")); err == nil {
		f.Error("the append was written")
	}
	ends = false
	f.append(s, at("b", 0, "good"))
	f.append(s, many("a", 1))
	if got != nil { // otherwise the handler itself committed a read model that differs
		f.agrees()
	}
}

func contextEnds[Tx any](f *fixture[Tx]) {
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	p := f.sums()
	handle := p.Handle
	p.Handle = func(inner context.Context, tx Tx, records []es.Record) error {
		if records[0].Stream.ID == "gone" {
			cancel()
			<-inner.Done()
		}
		return handle(inner, tx, records)
	}
	s := f.opened(p)
	done := make(chan error)
	go func() {
		_, err := s.Append(f.Context(), at("first", 0, "good"))
		done <- err
	}()
	if err := <-done; err != nil {
		f.Fatal(err)
	}
	position, err := s.Append(ctx, at("gone", 0, "good"))
	if err == nil || position != 0 || !errors.Is(err, context.Canceled) {
		f.Errorf("the append returned %d, %v; want the context's error", position, err)
	}
	f.append(s, at("b", 0, "good"))
	f.agrees()
	if i := slices.IndexFunc(f.all(s), func(r es.Record) bool { return r.Stream.ID == "gone" }); i >= 0 && !errors.Is(err, es.ErrUnknownOutcome) {
		f.Error("the append was written")
	}
}

func refused[Tx any](f *fixture[Tx]) {
	for name, change := range map[string]func(p *projection.Projection[Tx]){
		"without a name":        func(p *projection.Projection[Tx]) { p.Name = "" },
		"without a handler":     func(p *projection.Projection[Tx]) { p.Handle = nil },
		"with a negative batch": func(p *projection.Projection[Tx]) { p.Batch = -1 },
		"with partitions":       func(p *projection.Projection[Tx]) { p.Partitions = 2 },
		"that parks":            func(p *projection.Projection[Tx]) { p.OnError = es.Park },
		"with a source":         func(p *projection.Projection[Tx]) { p.Source = projection.FromLog(new(es.Mem)) },
	} {
		f.Run(name, func(t *testing.T) {
			p := f.sums()
			change(&p)
			if s, err := f.open(p); !errors.Is(err, es.ErrInvalid) {
				t.Errorf("opening returned %v, want es.ErrInvalid", err)
				if err == nil {
					_ = s.Close()
				}
			}
		})
	}
	if _, err := f.open(f.sums(), f.sums()); !errors.Is(err, es.ErrInvalid) {
		f.Errorf("opening with the same projection twice returned %v, want es.ErrInvalid", err)
	}
	boom := errors.New("boom")
	p := f.sums()
	p.Prepare = func(context.Context, Tx) error { return boom }
	if _, err := f.open(p); !errors.Is(err, boom) {
		f.Errorf("opening with a Prepare that fails returned %v, want its error", err)
	}
	p = f.sums()
	p.OnCaughtUp = func(context.Context) error { return boom }
	if _, err := f.open(p); !errors.Is(err, boom) {
		f.Errorf("opening with an OnCaughtUp that fails returned %v, want its error", err)
	}
	f.append(f.opened(f.sums()), at("a", 0, "good"))
	f.agrees()
}
