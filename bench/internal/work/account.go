package work

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/examples/bank/account"
)

// Repo is the bank's repository of accounts.
type Repo = es.Repo[account.Account, account.Command, account.Event]

// NewRepo returns a Repo of accounts with default settings.
func NewRepo(store es.Store) *Repo {
	return es.NewRepo(store, "account", account.Rules{}, account.Codec)
}

// An Execute runs a command on an account.
type Execute func(ctx context.Context, id string, command account.Command) error

// A Load loads an account and returns its version.
type Load func(ctx context.Context, id string) (es.Version, error)

// Accounts has the operations on accounts.
type Accounts struct {
	Execute Execute
	Load    Load
}

// On returns the Execute of a Repo.
func On(repo *Repo) Execute {
	return func(ctx context.Context, id string, command account.Command) error {
		_, err := repo.Execute(ctx, id, command)
		return err
	}
}

// OnRepo returns the operations of a Repo.
func OnRepo(repo *Repo) Accounts {
	return Accounts{On(repo), func(ctx context.Context, id string) (es.Version, error) {
		at, err := repo.Load(ctx, id)
		return at.Version, err
	}}
}

// OnPlain returns the operations of the baseline, which loads, decides and appends.
func OnPlain(accounts baseline.Accounts) Accounts {
	execute := func(ctx context.Context, id string, command account.Command) error {
		_, err := accounts.Execute(ctx, id, command)
		return err
	}
	return Accounts{execute, func(ctx context.Context, id string) (es.Version, error) {
		_, version, err := accounts.Load(ctx, id)
		return version, err
	}}
}

// AccountID returns the id of the nth account.
func AccountID(n int) string { return scatter(uint64(n) + 1) }

// Warm returns callers that each deposit on their own account. Warm opens the accounts, so they are cached.
func Warm(ctx context.Context, name string, execute Execute, callers int) (measure.Side, error) {
	opened := measure.Side{Callers: callers, Op: func(ctx context.Context, caller int) error {
		return execute(ctx, AccountID(caller), account.Open{Owner: "Ada"})
	}}
	_, err := opened.For(ctx, 0) // one operation of each caller
	return measure.Side{Name: name, Callers: callers, Op: func(ctx context.Context, caller int) error {
		return execute(ctx, AccountID(caller), account.Deposit{Amount: 1})
	}}, err
}

// Hot returns callers that all deposit on one account. Each turn has a new account, so that a side that always reads the whole account
// does not become slower from turn to turn.
func Hot(name string, execute Execute, callers int) measure.Side {
	accounts, id := 0, ""
	return measure.Side{
		Name:    name,
		Callers: callers,
		Before: func(ctx context.Context) error {
			accounts++
			id = fmt.Sprint("hot-", accounts)
			return execute(ctx, id, account.Open{Owner: "Ada"})
		},
		Op: func(ctx context.Context, _ int) error { return execute(ctx, id, account.Deposit{Amount: 1}) },
	}
}

// History returns the events of an account: an opening, then alternately deposits and withdrawals.
func History(events int) ([]es.Record, error) {
	records := make([]es.Record, events)
	for i := range records {
		var event account.Event = account.Deposited{Amount: 2}
		switch {
		case i == 0:
			event = account.Opened{Owner: "Ada Lovelace"}
		case i%2 == 0:
			event = account.Withdrawn{Amount: 1}
		}
		var err error
		if records[i], err = account.Codec.Encode(event); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// Deposits returns callers that each append the event of a deposit to their own stream.
func Deposits(name string, to Append, callers int) (measure.Side, error) {
	history, err := History(2)
	versions := make([]es.Version, callers)
	return measure.Side{Name: name, Callers: callers, Op: func(ctx context.Context, caller int) error {
		stream := es.Stream{Kind: "account", ID: AccountID(caller)}
		after := versions[caller]
		versions[caller]++
		return to(ctx, stream, after, history[1:])
	}}, err
}

// Loads returns a caller that loads the accounts one after the other. Each account has the given number of events.
func Loads(ctx context.Context, name string, to Append, load Load, accounts, events int) (measure.Side, error) {
	err := open(ctx, to, accounts, events)
	n := 0
	return measure.Side{Name: name, Callers: 1, Units: events, Op: func(ctx context.Context, _ int) error {
		n++
		id := AccountID(n % accounts)
		version, err := load(ctx, id)
		if err == nil && version != es.Version(events) {
			err = fmt.Errorf("account %s has version %d, want %d", id, version, events)
		}
		return err
	}}, err
}

// Cold returns callers that deposit on the accounts in turn. Each account starts with the given number of events.
func Cold(ctx context.Context, name string, to Append, execute Execute, callers, accounts, events int) (measure.Side, error) {
	err := open(ctx, to, accounts, events)
	var next atomic.Int64
	return measure.Side{Name: name, Callers: callers, Op: func(ctx context.Context, _ int) error {
		return execute(ctx, AccountID(int(next.Add(1))%accounts), account.Deposit{Amount: 1})
	}}, err
}

// Mixed returns callers that go through the accounts in turn. They load nine of ten, and deposit on the tenth. Each account starts with the
// given number of events.
func Mixed(ctx context.Context, name string, to Append, on Accounts, callers, accounts, events int) (measure.Side, error) {
	err := open(ctx, to, accounts, events)
	var next atomic.Int64
	return measure.Side{Name: name, Callers: callers, Op: func(ctx context.Context, _ int) error {
		n := int(next.Add(1))
		// Each round is shifted by one, so that every account changes in some round.
		id := AccountID(n % accounts)
		if (n+n/accounts)%10 == 0 {
			return on.Execute(ctx, id, account.Deposit{Amount: 1})
		}
		_, err := on.Load(ctx, id)
		return err
	}}, err
}

// open creates accounts with the given number of events, many concurrently. Long accounts are written in pieces.
func open(ctx context.Context, to Append, accounts, events int) error {
	const piece = 1000
	history, err := History(events)
	if err != nil {
		return err
	}
	var next atomic.Int64
	side := measure.Side{Callers: min(accounts, 256), Op: func(ctx context.Context, _ int) error {
		stream := es.Stream{Kind: "account", ID: AccountID(int(next.Add(1) - 1))}
		for at := 0; at < len(history); at += piece {
			if err := to(ctx, stream, es.Version(at), history[at:min(at+piece, len(history))]); err != nil {
				return err
			}
		}
		return nil
	}}
	_, err = side.Times(ctx, accounts)
	return err
}

// FillAccounts creates accounts with the given number of events. For speed, one append creates many accounts.
func FillAccounts(ctx context.Context, store es.Store, accounts, events int) error {
	return FillMore(ctx, store, 0, accounts, events)
}

// FillMore creates more accounts. there is the number of accounts that exist already.
func FillMore(ctx context.Context, store es.Store, there, accounts, events int) error {
	per := max(1, 1000/events)
	history, err := History(events)
	if err != nil {
		return err
	}
	var next atomic.Int64
	side := measure.Side{Name: "fill", Callers: 4, Op: func(ctx context.Context, _ int) error {
		var appends []es.Append
		for last := int(next.Add(int64(per))); len(appends) < per; {
			n := last - per + len(appends)
			if n >= accounts {
				break
			}
			appends = append(appends, es.Append{Stream: es.Stream{Kind: "account", ID: AccountID(there + n)}, Events: history})
		}
		_, err := store.Append(ctx, appends...)
		return err
	}}
	_, err = side.Times(ctx, (accounts+per-1)/per)
	return err
}
