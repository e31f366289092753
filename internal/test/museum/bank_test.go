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

// A bank executes a command on an account and reports whether it took effect: the layer between an application and a
// store.
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

// do executes commands on Ann's account that must take effect.
func (b bank) do(t testing.TB, commands ...rules.Command) {
	t.Helper()
	for _, c := range commands {
		must(t, b(t.Context(), "ann", c))
	}
}

// A meddler is a store in which another writer appends between the load and the append of one command.
type meddler struct {
	es.Store
	meddle atomic.Pointer[func()] // the other writer's action, which runs once
}

func (m *meddler) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	if meddle := m.meddle.Swap(nil); meddle != nil {
		(*meddle)()
	}
	return m.Store.Append(ctx, appends...)
}

func (m *meddler) next(meddle func()) { m.meddle.Store(&meddle) }

// balance returns the balance of Ann's account in the store.
func balance(t testing.TB, s es.Store) int64 {
	t.Helper()
	a, _, err := fold(t.Context(), s, "ann")
	must(t, err)
	return a.Balance
}

// fold folds the events of an account, and also returns the version.
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

// encode turns events into records for a store.
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

// payIn makes many callers deposit one cent each through several banks, and compares the acknowledgements with the
// balance.
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
		return fmt.Errorf("%d deposits of one cent were acknowledged, but the balance is %d cents", told.Load(), there)
	}
	return nil
}
