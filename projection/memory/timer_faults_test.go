package memory_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/internal/part"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/projection/memory"
)

// effects is the state of an aggregate that counts its commands by name.
type effects map[string]int

type effectRules struct{}

func (effectRules) Decide(_ effects, name string) ([]string, error) { return []string{name}, nil }

func (effectRules) Evolve(e effects, name string) effects {
	e = maps.Clone(e)
	if e == nil {
		e = make(effects)
	}
	e[name]++
	return e
}

// delayed is a reaction with timers, from its first run over a new division to the last timer.
type delayed struct {
	store, faulty *memory.Store
	in            *injector
	effects       *es.Repo[effects, string, string]
	appended      int
	early         atomic.Int64
	replaced      atomic.Bool
}

const (
	delay     = time.Minute
	timerName = "later"
)

func newDelayed(f fault, at int, breakIt func(l memory.Ledger) memory.Ledger) *delayed {
	d := &delayed{store: memory.New(new(es.Mem))}
	d.effects = es.NewRepo(d.store, "effects", effectRules{}, es.CodecFunc(
		func(name string) (es.Record, error) { return es.Record{Type: name}, nil },
		func(r es.Record) (string, error) { return r.Type, nil }))
	d.faulty = d.store.Wrapped(func(l memory.Ledger) memory.Ledger {
		d.in = &injector{Ledger: breakIt(l), fault: f, at: at, replace: d.replace}
		return d.in
	})
	return d
}

func (d *delayed) reaction(partitions int) projection.Reaction {
	return projection.Reaction{
		Name: timerName, From: projection.Beginning(), Filter: es.Filter{Kinds: []string{"k"}}, Partitions: partitions, Batch: 4, Retries: -1, Lease: faultLease,
		Due: func(r es.Record) (time.Time, error) { return r.Time.Add(delay), nil },
		Handle: func(ctx context.Context, r es.Record) error {
			if time.Since(r.Time) < delay {
				d.early.Add(1)
			}
			_, err := d.effects.Execute(ctx, "all", r.ID(), es.Step("fire"))
			return err
		},
	}
}

// replace lets another worker take the shards and work for a while.
func (d *delayed) replace(ctx context.Context) {
	d.replaced.Store(true)
	defer d.replaced.Store(false)
	key := engine.Key{Name: timerName}
	o, err := d.in.Ledger.Overview(ctx, key)
	if err != nil || !o.Found {
		return
	}
	for _, shard := range o.Shards {
		if err := d.in.Ledger.Leave(ctx, key, shard.Holder); err != nil {
			return
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_ = d.store.React(ctx, d.reaction(max(o.Partitions, 1))) // ends with the context
}

// run appends records and runs the reaction until each has had its effect and no timer is left.
func (d *delayed) run(ctx context.Context, partitions, n int) error {
	for range n {
		for _, id := range []string{"a", "b", "c"} {
			if _, err := d.store.Append(ctx, es.Append{Stream: es.Stream{Kind: "k", ID: id}, Expected: es.AnyVersion, Events: []es.Record{{Type: "t"}}}); err != nil {
				return err
			}
			d.appended++
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ended error
	var all sync.WaitGroup
	all.Go(func() {
		ended = d.faulty.React(ctx, d.reaction(partitions))
		cancel()
	})
	err := d.until(ctx)
	cancel()
	all.Wait()
	if !errors.Is(ended, context.Canceled) {
		return errors.Join(err, fmt.Errorf("React returned: %w", ended))
	}
	return err
}

func (d *delayed) until(ctx context.Context) error {
	for {
		at, err := d.effects.Load(ctx, "all")
		if err != nil {
			return err
		}
		status, err := d.store.Status(ctx)
		if err != nil {
			return err
		}
		waiting := 0
		for _, s := range status {
			waiting += s.Waiting
		}
		if len(at.State) == d.appended && waiting == 0 && !d.replaced.Load() {
			for name, n := range at.State {
				if n != 1 || d.early.Load() > 0 {
					return fmt.Errorf("the timer of %s had its effect %d times, and %d timers fired early", name, n, d.early.Load())
				}
			}
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return fmt.Errorf("%d of %d timers had their effect, and %d wait: %w", len(at.State), d.appended, waiting, ctx.Err())
		}
	}
}

func (d *delayed) play(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Hour) // of the bubble
	defer cancel()
	if err := d.run(ctx, 1, 2); err != nil {
		return fmt.Errorf("the first run: %w", err)
	}
	if err := d.run(ctx, 2, 2); err != nil {
		return fmt.Errorf("the run with two partitions: %w", err)
	}
	return nil
}

func intact(l memory.Ledger) memory.Ledger { return l }

// Each timer has its effect once and never early, whichever call of the ledger fails: between enrolment, firing and removal too.
func TestAFaultAtAnyCallRepeatsNoTimer(t *testing.T) {
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
					d := newDelayed(f, at, intact)
					err := d.play(t.Context())
					if method = d.in.happened(); err != nil {
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

// lossy is a ledger whose timers are not part of the transaction.
type lossy struct {
	memory.Ledger
	enrol, settle bool // what is lost
}

func (l *lossy) Enrol(ctx context.Context, tx *memory.Tx, k engine.Key, timers []engine.Timer) error {
	if l.enrol {
		return nil
	}
	return l.Ledger.Enrol(ctx, tx, k, timers)
}

func (l *lossy) Settle(ctx context.Context, tx *memory.Tx, k engine.Key, p part.Part, first, last engine.Timer) error {
	if l.settle {
		time.Sleep(time.Second) // or the timers would fire again at once, and the time of the bubble would not pass
		return nil
	}
	return l.Ledger.Settle(ctx, tx, k, p, first, last)
}

func TestALedgerThatLosesTimersIsNoticed(t *testing.T) {
	for name, broken := range map[string]lossy{"enrolment": {enrol: true}, "removal": {settle: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDelayed(failBefore, 0, func(l memory.Ledger) memory.Ledger {
					broken.Ledger = l
					return &broken
				})
				if err := d.play(t.Context()); err == nil {
					t.Errorf("a lost %s is not noticed", name)
				}
			})
		})
	}
}
