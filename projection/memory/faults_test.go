package memory_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/projection/memory"
)

// scenario is a projection from its first run to Forget: a record is parked and retried, partitions change, and it is rebuilt.
// All its workers share the read model.
type scenario struct {
	store    *memory.Store // without faults
	faulty   *memory.Store
	in       *injector
	model    map[string][]es.Version // by stream
	built    map[string]int          // "times" is how often Prepare has been committed
	versions map[string]es.Version
	fixed    bool        // whether the handler is; guarded by the transactions
	replaced atomic.Bool // whether another worker works instead; the scenario waits until the first one has gone on
}

const faultLease = 10 * time.Second

// newScenario returns a scenario with a fault at a call. breakIt adds a defect to the ledger.
func newScenario(f fault, at int, breakIt func(f *faulty)) *scenario {
	s := &scenario{
		store: memory.New(new(es.Mem)), model: make(map[string][]es.Version), built: make(map[string]int), versions: make(map[string]es.Version),
	}
	s.faulty = s.store.Wrapped(func(l memory.Ledger) memory.Ledger {
		broken := &faulty{Ledger: l}
		breakIt(broken)
		s.in = &injector{Ledger: broken, fault: f, at: at, replace: s.replace}
		return s.in
	})
	return s
}

func (s *scenario) projection(partitions int) memory.Projection {
	return memory.Projection{
		Name: "p", Partitions: partitions, Batch: 4, Retries: -1, Lease: faultLease, OnError: es.Park,
		Prepare: func(_ context.Context, tx *memory.Tx) error {
			memory.Clear(tx, s.model)
			memory.Set(tx, s.built, "times", s.built["times"]+1)
			return nil
		},
		Handle: func(_ context.Context, tx *memory.Tx, records []es.Record) error {
			for _, r := range records {
				if !s.fixed && r.Stream.ID == "b" && r.Version == 3 {
					return errors.New("the handler has a bug")
				}
				list := s.model[r.Stream.ID]
				memory.Set(tx, s.model, r.Stream.ID, append(slices.Clip(list), r.Version))
			}
			return nil
		},
	}
}

// replace makes the heartbeats of all workers expire and lets another worker work for a while.
func (s *scenario) replace(ctx context.Context) {
	s.replaced.Store(true)
	defer s.replaced.Store(false)
	key := engine.Key{Name: "p"}
	o, err := s.in.Ledger.Overview(ctx, key)
	if err != nil || !o.Found {
		return
	}
	for _, shard := range o.Shards {
		if err := s.in.Ledger.Leave(ctx, key, shard.Holder); err != nil {
			return
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_ = s.store.Project(ctx, s.projection(max(o.Partitions, 1))) // ends with the context
}

func (s *scenario) append(ctx context.Context, n int) error {
	for range n {
		for _, id := range []string{"a", "b", "c"} {
			_, err := s.store.Append(ctx, es.Append{Stream: es.Stream{Kind: "k", ID: id}, Expected: es.AnyVersion, Events: []es.Record{{Type: "t"}}})
			if err != nil {
				return err
			}
			s.versions[id]++
		}
	}
	return nil
}

// until waits until the read model has the records of each stream, but not those from skip on of stream b, and for some time more. At any
// time it must have the first of them, each once and in order.
func (s *scenario) until(ctx context.Context, skip es.Version, built int) error {
	for calm := 0; ; {
		complete, wrong := true, error(nil)
		if err := s.store.View(ctx, func() {
			complete = s.built["times"] >= built
			for id, last := range s.versions {
				if id == "b" && skip > 0 {
					last = skip - 1
				}
				list := s.model[id]
				for i, v := range list {
					if v != es.Version(i+1) {
						wrong = fmt.Errorf("stream %s was applied as %v", id, list)
					}
				}
				complete = complete && es.Version(len(list)) == last
			}
		}); err != nil {
			return fmt.Errorf("the read model is %v, want the versions up to %v: %w", s.model, s.versions, err)
		}
		if complete && !s.replaced.Load() {
			calm++
		}
		if wrong != nil || calm == 10 {
			return wrong
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// insist makes a call until it is not a transient error.
func insist(do func() error) error {
	for {
		if err := do(); !errors.Is(err, errTransient) {
			return err
		}
	}
}

// run runs the projection while do runs.
func (s *scenario) run(ctx context.Context, partitions int, do func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ended error
	var all sync.WaitGroup
	all.Go(func() {
		ended = s.faulty.Project(ctx, s.projection(partitions))
		cancel()
	})
	err := do()
	cancel()
	all.Wait()
	if !errors.Is(ended, context.Canceled) {
		return errors.Join(err, fmt.Errorf("Project returned: %w", ended))
	}
	return err
}

// play runs the scenario and returns what is wrong.
func (s *scenario) play(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Hour) // of the bubble
	defer cancel()
	b := es.Stream{Kind: "k", ID: "b"}
	if err := s.append(ctx, 5); err != nil {
		return err
	}
	err := s.run(ctx, 1, func() error {
		if err := s.until(ctx, 3, 1); err != nil {
			return fmt.Errorf("until the record is parked: %w", err)
		}
		if err := s.append(ctx, 1); err != nil {
			return err
		}
		if err := s.until(ctx, 3, 1); err != nil {
			return fmt.Errorf("until the next record waits behind it: %w", err)
		}
		if err := s.store.View(ctx, func() { s.fixed = true }); err != nil {
			return err
		}
		for { // the record may not be parked yet
			if err := insist(func() error { return s.faulty.Retry(ctx, "p", 0, b) }); !errors.Is(err, es.ErrInvalid) {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		return s.until(ctx, 0, 1)
	})
	if err != nil {
		return fmt.Errorf("the first run: %w", err)
	}
	err = s.run(ctx, 2, func() error {
		if err := s.append(ctx, 2); err != nil {
			return err
		}
		if err := s.until(ctx, 0, 1); err != nil {
			return err
		}
		if err := insist(func() error { return s.faulty.Rebuild(ctx, "p", 0) }); err != nil {
			return err
		}
		return s.until(ctx, 0, 2)
	})
	if err != nil {
		return fmt.Errorf("the run with two partitions: %w", err)
	}
	return s.forget(ctx)
}

// forget removes the projection, as soon as its workers are gone.
func (s *scenario) forget(ctx context.Context) error {
	time.Sleep(2 * faultLease)
	if err := insist(func() error { return s.faulty.Forget(ctx, "p", 0) }); err != nil && s.in.happened() != "Transact" {
		return err
	}
	all, err := s.store.Status(ctx)
	if err == nil && len(all) > 0 {
		err = fmt.Errorf("after Forget there is %+v", all)
	}
	return err
}

// TestAFaultAtAnyCallChangesNoReadModel plays the scenario once for each call of the ledger, with a fault at this call.
func TestAFaultAtAnyCallChangesNoReadModel(t *testing.T) {
	for _, f := range []fault{failBefore, failAfter, replaced} {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			step := 1
			if testing.Short() {
				step = 7
			}
			seen := make(map[string]int)
			for at := 1; ; at += step {
				method := ""
				synctest.Test(t, func(t *testing.T) {
					s := newScenario(f, at, func(*faulty) {})
					err := s.play(t.Context())
					if method = s.in.happened(); err != nil {
						t.Fatalf("with a fault at call %d, of %s: %v", at, method, err)
					}
				})
				if method == "" {
					break
				}
				seen[method]++
			}
			t.Logf("calls with a fault: %v", seen)
		})
	}
}

// TestAFaultIsNoticed plays the scenario on ledgers with a defect, which the faults must show.
func TestAFaultIsNoticed(t *testing.T) {
	for _, d := range waitingDefects {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			for at := 1; ; at++ {
				var found error
				method := ""
				synctest.Test(t, func(t *testing.T) {
					s := newScenario(d.fault, at, d.breakIt)
					found, method = s.play(t.Context()), s.in.happened()
				})
				if found != nil {
					t.Logf("with a fault at call %d, of %s: %v", at, method, found)
					return
				}
				if method == "" {
					t.Fatalf("%d faults have not shown that %s", at-1, d.name)
				}
			}
		})
	}
}
