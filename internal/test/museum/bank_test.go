package museum_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/thalo-go/es"
	rules "github.com/thalo-go/es/examples/bank/account"
)

// A bank executes a command on an account and tells whether it took effect: what stands between an application and a store.
type bank func(ctx context.Context, id string, c rules.Command) error

type repo = es.Repo[rules.Account, rules.Command, rules.Event]

func newRepo(s es.Store) *repo { return es.NewRepo(s, "account", rules.Rules{}, rules.Codec) }

// ourBank is a Repo.
func ourBank(s es.Store) bank {
	r := newRepo(s)
	return func(ctx context.Context, id string, c rules.Command) error {
		_, err := r.Execute(ctx, id, c)
		return err
	}
}

// do executes commands on the account of Ann that must take effect.
func (b bank) do(t testing.TB, commands ...rules.Command) {
	t.Helper()
	for _, c := range commands {
		must(t, b(t.Context(), "ann", c))
	}
}

// A meddler is a store on which another writer comes first: between the load and the append of one command.
type meddler struct {
	es.Store
	meddle atomic.Pointer[func()] // what the other does, once
}

func (m *meddler) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	if meddle := m.meddle.Swap(nil); meddle != nil {
		(*meddle)()
	}
	return m.Store.Append(ctx, appends...)
}

func (m *meddler) next(meddle func()) { m.meddle.Store(&meddle) }

// balance folds what the store has of Ann's account.
func balance(t testing.TB, s es.Store) int64 {
	t.Helper()
	a, _, err := fold(t.Context(), s, "ann")
	must(t, err)
	return a.Balance
}

// fold folds the events of an account, and returns the version too.
func fold(ctx context.Context, s es.Store, id string) (a rules.Account, v es.Version, err error) {
	for r, err := range s.Read(ctx, account(id), 0) {
		if err != nil {
			return a, v, err
		}
		e, err := rules.Codec.Decode(r)
		if err != nil {
			return a, v, err
		}
		a, v = rules.Rules{}.Evolve(a, e), r.Version
	}
	return a, v, nil
}

// encode turns events into what a store takes.
func encode(events ...rules.Event) (records []es.Record, err error) {
	for _, e := range events {
		r, err := rules.Codec.Encode(e)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

// payIn lets many deposit a cent each, through several banks, and compares what they were told with what is there.
func payIn(t *testing.T, s es.Store, banks []bank, writers, each int) error {
	before := balance(t, s)
	var told atomic.Int64
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for range each {
				if err := banks[w%len(banks)](t.Context(), "ann", rules.Deposit{Amount: 1}); err == nil {
					told.Add(1)
				}
			}
		})
	}
	all.Wait()
	if there := balance(t, s) - before; there != told.Load() {
		return fmt.Errorf("%d deposits of a cent acknowledged, %d cents are there", told.Load(), there)
	}
	return nil
}
