package main

import (
	"context"
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/projection"
)

// lease is short because the example is often interrupted and started again.
const lease = 2 * time.Second

// accountList returns the read model of current balances, with a row for each account.
func accountList() projection.SQLProjection {
	d := projection.NewDocuments("accounts", account.Codec, account.Rules{}.Evolve).
		Column("balance", "bigint", func(a account.Account) any { return a.Balance }).
		Column("closed", "boolean", func(a account.Account) any { return a.Closed })
	return projection.SQLProjection{
		Name: "accounts", Version: 1, Filter: es.Filter{Kinds: []string{"account"}}, Lease: lease, Prepare: d.Prepare, Handle: d.Handle,
	}
}

// statements returns the read model of account statements: each change with the balance after it.
func statements() projection.SQLProjection {
	return projection.SQLProjection{
		Name: "statements", Filter: es.Filter{Kinds: []string{"account"}, Types: []string{"deposited", "withdrawn"}}, Lease: lease,
		Prepare: func(ctx context.Context, tx projection.SQL) error {
			_, err := tx.Exec(ctx, `drop table if exists statements; create table statements (account text not null, version bigint not null,
				at text not null, change bigint not null, balance bigint not null, reason text not null, primary key (account, version))`)
			return err
		},
		Handle: projection.Each(account.Codec, func(ctx context.Context, tx projection.SQL, r es.Record, event account.Event) error {
			_, err := tx.Exec(ctx, `insert into statements (account, version, at, change, balance, reason) values ($1, $2, $3, $4,
				$4 + coalesce((select s.balance from statements s where s.account = $1 order by s.version desc limit 1), 0), $5)`,
				r.Stream.ID, r.Version, r.Time.Format("15:04:05.000"), change(event), reason(r))
			return err
		}),
	}
}

// change returns the change of the balance by an event.
func change(event account.Event) int64 {
	switch e := event.(type) {
	case account.Deposited:
		return e.Amount
	case account.Withdrawn:
		return -e.Amount
	}
	return 0
}

// reason returns the event that caused this one.
func reason(r es.Record) string {
	if cause := r.Meta[es.MetaCausation]; cause != "" {
		return cause
	}
	return "at the counter"
}

// show prints the read models once they are up to date.
func (b *bank) show(ctx context.Context) error {
	head, err := b.settled(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{"accounts", "statements"} {
		if err := b.store.WaitFor(ctx, name, head); err != nil {
			return err
		}
	}
	fmt.Printf("\nThe read model of accounts at position %d:\n", head)
	for row, err := range b.store.Query(ctx, "select key, balance, closed from accounts order by key limit 16") {
		var id string
		var balance int64
		var closed bool
		if err == nil {
			err = row.Scan(&id, &balance, &closed)
		}
		if err != nil {
			return err
		}
		if closed {
			id += " (closed)"
		}
		fmt.Printf("    %-18s %12s\n", id, euros(balance))
	}
	fmt.Printf("\nThe last lines of Ann's statement:\n")
	const last = "select at, change, balance, reason from (select * from statements where account = $1 order by version desc limit 5) as last order by version"
	for row, err := range b.store.Query(ctx, last, b.id("ann")) {
		var at, why string
		var change, balance int64
		if err == nil {
			err = row.Scan(&at, &change, &balance, &why)
		}
		if err != nil {
			return err
		}
		fmt.Printf("    %s  %10s %10s  %s\n", at, euros(change), euros(balance), why)
	}
	return nil
}
