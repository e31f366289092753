package museum_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/thalo-go/es"
	rules "github.com/thalo-go/es/examples/bank/account"
)

// The failure: a save that meets a conflict is retried, but the first attempt has cleared the aggregate's pending
// events. The retry saves nothing and succeeds.
//
// Not here: there are no objects with pending events. A retry runs Decide again on the new state and appends its
// result.
func TestConflictToldAsSuccess(t *testing.T) {
	ours(t, func(t *testing.T, p place) error { return acknowledgedButLost(t, p.open(t), ourBank) })
	control(t, "an aggregate with pending events", func(t *testing.T) error {
		return acknowledgedButLost(t, inMemory().open(t), activeBank)
	})
	t.Run("control: an aggregate with pending events, 16 writers", func(t *testing.T) {
		log := inMemory().open(t)
		slow := &yielding{Store: log}
		activeBank(log).do(t, rules.Open{Owner: "Ann"})
		t.Logf("found: %v", payIn(t, log, []bank{activeBank(slow), activeBank(slow)}, 16, 20)) // their number depends on timing
	})
}

// acknowledgedButLost looks for an acknowledged command that wrote nothing.
func acknowledgedButLost(t *testing.T, log es.Log, on func(es.Store) bank) error {
	m := &meddler{Store: log}
	ours, other := on(m), on(log)
	other.do(t, rules.Open{Owner: "Ann"})
	m.next(func() { other.do(t, rules.Deposit{Amount: 1}) })
	ours.do(t, rules.Deposit{Amount: 10})
	if b := balance(t, log); b != 11 {
		return fmt.Errorf("deposits of 1 and of 10 cents were acknowledged, but the balance is %d", b)
	}
	return payIn(t, log, []bank{ours, other}, 16, 20)
}

// An activeAccount is an aggregate as in most libraries: methods change it and record events, which a repository saves.
type activeAccount struct {
	id      string
	state   rules.Account
	version es.Version
	pending []rules.Event
}

func (a *activeAccount) handle(c rules.Command) error {
	events, err := rules.Rules{}.Decide(a.state, c)
	for _, e := range events {
		a.state = rules.Rules{}.Evolve(a.state, e)
		a.pending = append(a.pending, e)
	}
	return err
}

// An activeRepository saves the recorded events, and retries on a conflict.
type activeRepository struct{ store es.Store }

func (r activeRepository) load(ctx context.Context, id string) (*activeAccount, error) {
	s, v, err := fold(ctx, r.store, id)
	return &activeAccount{id: id, state: s, version: v}, err
}

func (r activeRepository) save(ctx context.Context, a *activeAccount) error {
	records, err := encode(a.pending...)
	if err != nil {
		return err
	}
	a.pending = nil // they are being saved
	_, err = r.store.Append(ctx, es.Append{Stream: account(a.id), Expected: a.version, Events: records})
	return err
}

func activeBank(s es.Store) bank {
	r := activeRepository{s}
	return func(ctx context.Context, id string, c rules.Command) error {
		a, err := r.load(ctx, id)
		if err == nil {
			err = a.handle(c)
		}
		if err != nil {
			return err
		}
		for range 10 {
			var conflict *es.ConflictError
			if err = r.save(ctx, a); !errors.As(err, &conflict) {
				return err
			}
			fresh, err := r.load(ctx, id)
			if err != nil {
				return err
			}
			a.version = fresh.version
		}
		return err
	}
}

// A yielding store yields to other goroutines before each append, as a remote one does.
type yielding struct{ es.Store }

// Append implements [es.Store].
func (y *yielding) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	runtime.Gosched()
	return y.Store.Append(ctx, appends...)
}
