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

// The failure: a save that meets a conflict is tried again, but the first try has taken the pending events off the aggregate: nothing is saved, and that succeeds.
// Not here: no object has pending events. A retry runs Decide again on the new state and appends what comes of it.
func TestConflictToldAsSuccess(t *testing.T) {
	ours(t, func(t *testing.T, p place) error { return acknowledgedInVain(t, p.open(t), ourBank) })
	control(t, "an aggregate with pending events", func(t *testing.T) error {
		return acknowledgedInVain(t, inMemory().open(t), activeBank)
	})
	t.Run("control: an aggregate with pending events, 16 writers", func(t *testing.T) {
		log := inMemory().open(t)
		slow := &yielding{Store: log}
		activeBank(log).do(t, rules.Open{Owner: "Ann"})
		t.Logf("found: %v", payIn(t, log, []bank{activeBank(slow), activeBank(slow)}, 16, 20)) // how many is a matter of luck
	})
}

// acknowledgedInVain looks for a command that is acknowledged and of which nothing is there.
func acknowledgedInVain(t *testing.T, log es.Log, on func(es.Store) bank) error {
	m := &meddler{Store: log}
	ours, other := on(m), on(log)
	other.do(t, rules.Open{Owner: "Ann"})
	m.next(func() { other.do(t, rules.Deposit{Amount: 1}) })
	ours.do(t, rules.Deposit{Amount: 10})
	if b := balance(t, log); b != 11 {
		return fmt.Errorf("deposits of 1 and of 10 cents were acknowledged, and the balance is %d", b)
	}
	return payIn(t, log, []bank{ours, other}, 16, 20)
}

// An activeAccount is an aggregate as most libraries have it: methods change it and note what happened, and a repository saves that.
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

// An activeRepository saves them, and tries again when it meets a conflict.
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
	a.pending = nil // they are on their way
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

// A yielding store lets others run before each append, as one that is somewhere else does.
type yielding struct{ es.Store }

// Append implements [es.Store].
func (y *yielding) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	runtime.Gosched()
	return y.Store.Append(ctx, appends...)
}
