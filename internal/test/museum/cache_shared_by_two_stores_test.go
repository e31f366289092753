package museum_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/thalo-go/es"
	rules "github.com/thalo-go/es/examples/bank/account"
)

// The failure: states are cached in a package variable by stream. A program with two stores, one for each tenant,
// decides on the state of the wrong tenant.
//
// Not here: there is no package state. A cache belongs to a Repo and a Repo to one store, and each append is checked
// against that store.
func TestCacheSharedByTwoStores(t *testing.T) {
	ours(t, func(t *testing.T, p place) error {
		other := es.Log(new(es.Mem))
		switch p.name {
		case "SQLite":
			other = onSQLite(t).open(t)
		case "Postgres":
			other = inSchema(t, p.url, "other")
		}
		return mixedUp(t, p.open(t), other, ourBank)
	})
	control(t, "a cache in a package variable", func(t *testing.T) error {
		return mixedUp(t, new(es.Mem), new(es.Mem), globallyCached)
	})
}

// mixedUp looks for a decision based on the account of the other store. Both accounts have the same version, so the
// version check does not detect it.
func mixedUp(t *testing.T, rich, poor es.Log, on func(es.Store) bank) error {
	open := func(log es.Log, events ...rules.Event) {
		records, err := encode(events...)
		must(t, err)
		_, err = log.Append(t.Context(), es.Append{Stream: account("ann"), Expected: 0, Events: records})
		must(t, err)
	}
	open(rich, rules.Opened{Owner: "Ann"}, rules.Deposited{Amount: 1000})
	open(poor, rules.Opened{Owner: "Ann"}, rules.Deposited{Amount: 1}, rules.Deposited{Amount: 1})
	on(rich).do(t, rules.Deposit{Amount: 1})
	err := on(poor)(t.Context(), "ann", rules.Withdraw{Amount: 500})
	if b := balance(t, poor); b != 2 || err == nil {
		return fmt.Errorf("500 were withdrawn from an account with 2: the balance is %d", b)
	}
	return nil
}

// cached is a cached state of globallyCached.
type cached struct {
	state   rules.Account
	version es.Version
}

// cache is the bug.
var cache sync.Map

// globallyCached is a bank that caches states by stream, regardless of the store.
func globallyCached(s es.Store) bank {
	return func(ctx context.Context, id string, c rules.Command) error {
		for {
			var a cached
			if there, found := cache.Load(account(id)); found {
				a = there.(cached)
			} else {
				var err error
				if a.state, a.version, err = fold(ctx, s, id); err != nil {
					return err
				}
			}
			events, err := rules.Rules{}.Decide(a.state, c)
			if err != nil {
				return err
			}
			records, err := encode(events...)
			if err != nil {
				return err
			}
			_, err = s.Append(ctx, es.Append{Stream: account(id), Expected: a.version, Events: records})
			if isConflict(err) {
				cache.Delete(account(id))
				continue
			} else if err != nil {
				return err
			}
			for _, e := range events {
				a.state, a.version = rules.Rules{}.Evolve(a.state, e), a.version+1
			}
			cache.Store(account(id), a)
			return nil
		}
	}
}
