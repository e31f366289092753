package es_test

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/examples/courses/enrolment"
)

type traceKey struct{}

// tracer records what a Tracer learns, and whether it gets its own context back.
type tracer struct {
	mu      sync.Mutex
	streams []es.Stream
	done    []es.CommandTrace
	foreign int // ends with another context than that of the start
}

func (x *tracer) StartCommand(ctx context.Context, stream es.Stream) context.Context {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.streams = append(x.streams, stream)
	return context.WithValue(ctx, traceKey{}, x)
}

func (x *tracer) EndCommand(ctx context.Context, done es.CommandTrace) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ctx.Value(traceKey{}) != x {
		x.foreign++
	}
	x.done = append(x.done, done)
}

// take returns the traces since the last call.
func (x *tracer) take() []es.CommandTrace {
	x.mu.Lock()
	defer x.mu.Unlock()
	done := x.done
	x.done = nil
	return done
}

func (x *tracer) expect(t *testing.T, want ...es.CommandTrace) {
	t.Helper()
	if diff := cmp.Diff(want, x.take(), cmpopts.EquateErrors()); diff != "" {
		t.Errorf("traces (-want +got):\n%s", diff)
	}
	if x.foreign > 0 {
		t.Errorf("%d commands ended with another context than they began with", x.foreign)
	}
}

// The end of every command is traced once, whatever becomes of it.
func TestEveryEndIsTraced(t *testing.T) {
	store := newSpy()
	repo, x := newBank(store), new(tracer)
	repo.Tracer = x
	execute := func(id string, command account.Command, options ...es.ExecuteOption) error {
		t.Helper()
		_, err := repo.Execute(t.Context(), id, command, options...)
		return err
	}
	sent := es.CommandTrace{Events: 1, Attempts: 1, BatchSize: 1}

	if err := execute("1", account.Open{Owner: "ann"}); err != nil {
		t.Fatal(err)
	}
	x.expect(t, sent)
	if diff := cmp.Diff([]es.Stream{{Kind: "account", ID: "1"}}, x.streams); diff != "" {
		t.Errorf("streams (-want +got):\n%s", diff)
	}

	once := es.CommandID("once")
	_ = execute("1", account.Deposit{Amount: 1}, once)
	x.expect(t, sent)
	if err := execute("1", account.Deposit{Amount: 1}, once); err != nil {
		t.Fatal(err)
	}
	repeated := sent
	repeated.Repeated = true
	x.expect(t, repeated)

	err := execute("1", account.Withdraw{Amount: 100})
	x.expect(t, es.CommandTrace{Attempts: 1, Err: err})
	err = execute("", account.Open{})
	x.expect(t, es.CommandTrace{Err: es.ErrInvalid})
	if err == nil {
		t.Error("an empty id was accepted")
	}

	rival := newBank(store.Log)
	for range 2 {
		if _, err := rival.Execute(t.Context(), "1", account.Deposit{Amount: 1}); err != nil {
			t.Fatal(err)
		}
	}
	_ = execute("1", account.Deposit{Amount: 1})
	x.expect(t, es.CommandTrace{Events: 1, Attempts: 2, BatchSize: 1})

	away := errors.New("away")
	store.append = func(context.Context, []es.Append, func() (es.Position, error)) (es.Position, error) { return 0, away }
	_ = execute("1", account.Deposit{Amount: 1})
	x.expect(t, es.CommandTrace{Attempts: 1, BatchSize: 1, Err: away})
}

// rules are those of a kind whose commands are functions.
type funcRules struct{}

func (funcRules) Decide(_ int, f func() ([]account.Event, error)) ([]account.Event, error) {
	return f()
}
func (funcRules) Evolve(n int, _ account.Event) int { return n + 1 }

func TestPanicsAreTraced(t *testing.T) {
	x := new(tracer)
	repo := es.NewRepo(new(es.Mem), "account", funcRules{}, account.Codec)
	repo.Tracer = x
	run := func(f func() ([]account.Event, error)) (panicked any) {
		done := make(chan any)
		go func() {
			defer func() { done <- recover() }()
			_, _ = repo.Execute(t.Context(), "1", f)
		}()
		return <-done
	}
	p := run(func() ([]account.Event, error) { panic("broken") })
	if got := x.take(); len(got) != 1 || got[0].Err == nil || got[0].Err != p {
		t.Errorf("a panic has the trace %+v, want the error %v", got, p)
	}
	run(func() ([]account.Event, error) { runtime.Goexit(); return nil, nil })
	if got := x.take(); len(got) != 1 || got[0].Err == nil {
		t.Errorf("runtime.Goexit has the trace %+v, want an error", got)
	}
	repo = es.NewRepo(new(es.Mem), "account", funcRules{}, account.Codec)
	repo.Tracer, repo.Meta = x, func(context.Context) map[string]string { panic("no user") }
	if p := run(nil); p != "no user" {
		t.Errorf("the panic of Meta became %v", p)
	}
	if got := x.take(); len(got) != 1 || got[0].Err == nil {
		t.Errorf("a panic of Meta has the trace %+v, want an error", got)
	}
}

// Commands that share an append learn that, and how long they have waited for earlier commands. A caller that gave up
// learns nothing, as others may still work for it.
func TestCommandsThatWaitAreTraced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		x := new(tracer)
		repo := newBank(store)
		opened(t, repo, "1", 10)
		repo = newBank(store)
		repo.Tracer = x
		store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
			time.Sleep(time.Second)
			return write()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		var all sync.WaitGroup
		for _, ctx := range []context.Context{t.Context(), t.Context(), t.Context(), ctx} {
			all.Go(func() { _, _ = repo.Execute(ctx, "1", account.Deposit{Amount: 1}) })
			synctest.Wait()
		}
		all.Wait()
		got := x.take()
		slices.SortStableFunc(got, func(a, b es.CommandTrace) int { return a.BatchSize - b.BatchSize })
		want := []es.CommandTrace{
			{Err: context.DeadlineExceeded},
			{Events: 1, Attempts: 1, BatchSize: 1},
			{Events: 1, Attempts: 1, BatchSize: 3, Queued: time.Second},
			{Events: 1, Attempts: 1, BatchSize: 3, Queued: time.Second},
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateErrors()); diff != "" {
			t.Errorf("traces (-want +got):\n%s", diff)
		}
	})
}

func TestDecisionsAreTraced(t *testing.T) {
	log := new(es.Mem)
	x := new(tracer)
	d := enrolment.New(log)
	d.Tracer = x
	d.Meta = func(ctx context.Context) map[string]string {
		if ctx.Value(traceKey{}) != x {
			t.Error("Meta got another context than that of the Tracer")
		}
		return map[string]string{"user": "ann"}
	}
	if _, err := d.Execute(t.Context(), enrolment.Define{Course: "go", Capacity: 2}); err != nil {
		t.Fatal(err)
	}
	x.expect(t, es.CommandTrace{Events: 1, Attempts: 1, BatchSize: 1})
	for r, err := range log.All(t.Context(), 0, es.Filter{}) {
		if err != nil || r.Meta["user"] != "ann" {
			t.Errorf("a record has the metadata %v: %v", r.Meta, err)
		}
	}
}

// Metadata of the options takes precedence over that of Config, and that over the codec's. The map of the program is left as it is.
func TestMetaOfTheContext(t *testing.T) {
	log := new(es.Mem)
	own := map[string]string{"user": "ann", "trace": "1"}
	repo := newBank(log)
	calls := 0
	repo.Meta = func(context.Context) map[string]string { calls++; return own }
	cause := es.Record{Stream: es.Stream{Kind: "k", ID: "i"}, Version: 1}
	for _, test := range []struct {
		command account.Command
		options []es.ExecuteOption
		want    map[string]string
	}{
		{account.Open{Owner: "ann"}, nil, map[string]string{"user": "ann", "trace": "1"}},
		{account.Deposit{Amount: 1}, []es.ExecuteOption{es.Meta(map[string]string{"user": "bob"})}, map[string]string{"user": "bob", "trace": "1"}},
		{account.Deposit{Amount: 1}, []es.ExecuteOption{es.CausedBy(cause)}, map[string]string{"user": "ann", "trace": "1", "correlation": "k/i/1", "causation": "k/i/1"}},
	} {
		if _, err := repo.Execute(t.Context(), "1", test.command, test.options...); err != nil {
			t.Fatal(err)
		}
		all := stored(t, log, es.Stream{Kind: "account", ID: "1"})
		last := all[len(all)-1]
		if diff := cmp.Diff(test.want, last.Meta); diff != "" {
			t.Errorf("metadata of %s (-want +got):\n%s", last.ID(), diff)
		}
	}
	if calls != 3 || !maps.Equal(own, map[string]string{"user": "ann", "trace": "1"}) {
		t.Errorf("%d calls, and the program's map is %v", calls, own)
	}
	repo.Meta = nil // has no effect any more
	own["user"] = string(make([]byte, es.MaxMeta+1))
	if _, err := repo.Execute(t.Context(), "1", account.Deposit{Amount: 1}); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("metadata beyond the limit: %v, want ErrInvalid", err)
	}
}

// The histogram has each command that Commands counts.
func TestExecuteIsTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo := newBank(store)
		store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
			time.Sleep(3 * time.Second)
			return write()
		}
		opened(t, repo, "1", 10)
		_, _ = repo.Execute(t.Context(), "1", account.Withdraw{Amount: 100})
		stats := repo.Stats()
		if stats.Commands != 3 || stats.Execute.Count() != 3 || stats.Execute.Sum != 6 {
			t.Errorf("got %+v, want 3 commands and 6 s", stats)
		}
	})
}
