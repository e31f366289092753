package museum_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/thalo-go/es"
	rules "github.com/thalo-go/es/examples/bank/account"
)

// The failure: a release changes the type of the state, finds the snapshots of the release before, and reads what it
// can of them: an empty balance.
//
// Not here: a snapshot has the number of its schema. One with another number is not used, and an old program does not
// replace a newer snapshot.
func TestSnapshotOfAnotherSchema(t *testing.T) {
	ours(t, func(t *testing.T, p place) error {
		log := p.open(t)
		return oldSnapshotUsed(t, log, ourRelease(log, rules.Rules{}, 1, func(a rules.Account) int64 { return a.Balance }),
			ourRelease(log, ledgerRules{}, 2, ledger.balance))
	})
	control(t, "snapshots without a schema", func(t *testing.T) error {
		log := inMemory().open(t)
		snapshots := make(map[string]snapshot)
		return oldSnapshotUsed(t, log, snapshotting(log, snapshots, rules.Rules{}, func(a rules.Account) int64 { return a.Balance }),
			snapshotting(log, snapshots, ledgerRules{}, ledger.balance))
	})
}

// A release of a program runs commands, and returns the balance of an account after a restart.
type release struct {
	do      bank
	balance func(ctx context.Context, id string) (int64, error)
}

// oldSnapshotUsed looks for a wrong balance after a new release, and after the rollback to the previous one.
func oldSnapshotUsed(t *testing.T, log es.Log, before, after func() release) error {
	steps := []struct {
		name  string
		start func() release
	}{{"the release before", before}, {"the release after", after}, {"the release before, again", before}, {"the release after, again", after}}
	steps[0].start().do.do(t, rules.Open{Owner: "Ann"})
	for _, step := range steps {
		r := step.start()
		r.do.do(t, rules.Deposit{Amount: 60}, rules.Withdraw{Amount: 50})
		got, err := step.start().balance(t.Context(), "ann")
		must(t, err)
		if want := balance(t, log); got != want {
			return fmt.Errorf("%s has a balance of %d, want %d", step.name, got, want)
		}
	}
	return nil
}

// A ledger is the state in the new release: total deposits and withdrawals instead of a balance.
type ledger struct {
	Owner        string
	In, Out      int64
	Open, Closed bool
}

func (l ledger) balance() int64 { return l.In - l.Out }

type ledgerRules struct{}

// Decide implements [es.Aggregate].
func (ledgerRules) Decide(l ledger, c rules.Command) ([]rules.Event, error) {
	return rules.Rules{}.Decide(rules.Account{Owner: l.Owner, Balance: l.In - l.Out, Open: l.Open, Closed: l.Closed}, c)
}

// Evolve implements [es.Aggregate].
func (ledgerRules) Evolve(l ledger, e rules.Event) ledger {
	switch e := e.(type) {
	case rules.Opened:
		l.Owner, l.Open = e.Owner, true
	case rules.Deposited:
		l.In += e.Amount
	case rules.Withdrawn:
		l.Out += e.Amount
	case rules.Closed:
		l.Open, l.Closed = false, true
	}
	return l
}

// ourRelease is a program with a Repo that takes a snapshot after every event.
func ourRelease[S any](log es.Log, a es.Aggregate[S, rules.Command, rules.Event], schema int, balance func(S) int64) func() release {
	start := func() *es.Repo[S, rules.Command, rules.Event] {
		r := es.NewRepo(log, "account", a, rules.Codec)
		r.Snapshots, r.SnapshotEvery, r.SnapshotSchema = log.(es.Snapshots), 1, schema
		return r
	}
	return func() release {
		return release{
			do: func(ctx context.Context, id string, c rules.Command) error {
				r := start()
				defer r.Close(context.Background()) // waits for the snapshot
				_, err := r.Execute(ctx, id, c)
				return err
			},
			balance: func(ctx context.Context, id string) (int64, error) {
				r := start()
				defer r.Close(context.Background())
				at, err := r.Load(ctx, id)
				s := at.State
				return balance(s), err
			},
		}
	}
}

// A snapshot is the JSON of a state, and its version.
type snapshot struct {
	version es.Version
	data    []byte
}

// snapshotting is a program that loads an account from its snapshot and the later events.
func snapshotting[S any](log es.Log, snapshots map[string]snapshot, a es.Aggregate[S, rules.Command, rules.Event], balance func(S) int64) func() release {
	load := func(ctx context.Context, id string) (state S, v es.Version, err error) {
		if s, found := snapshots[id]; found {
			if err := json.Unmarshal(s.data, &state); err != nil {
				return state, 0, err
			}
			v = s.version
		}
		for r, err := range log.Read(ctx, account(id), v) {
			if err != nil {
				return state, v, err
			}
			e, err := rules.Codec.Decode(r)
			if err != nil {
				return state, v, err
			}
			state, v = a.Evolve(state, e), r.Version
		}
		return state, v, nil
	}
	do := func(ctx context.Context, id string, c rules.Command) error {
		state, v, err := load(ctx, id)
		if err != nil {
			return err
		}
		events, err := a.Decide(state, c)
		if err != nil {
			return err
		}
		records, err := encode(events...)
		if err != nil {
			return err
		}
		if _, err := log.Append(ctx, es.Append{Stream: account(id), Expected: v, Events: records}); err != nil {
			return err
		}
		for _, e := range events {
			state, v = a.Evolve(state, e), v+1
		}
		data, err := json.Marshal(state)
		snapshots[id] = snapshot{v, data}
		return err
	}
	return func() release {
		return release{do: do, balance: func(ctx context.Context, id string) (int64, error) {
			s, _, err := load(ctx, id)
			return balance(s), err
		}}
	}
}
