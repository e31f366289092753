package main

import (
	"context"
	"fmt"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/examples/internal/open"
)

// accountList returns the read model of current balances, with a row for each account.
func accountList() open.Model {
	return open.Model{
		Name:   "accounts",
		Filter: es.Filter{Kinds: []string{"account"}},
		Prepare: []string{
			"drop table if exists accounts",
			"create table accounts (id text primary key, owner text not null, balance bigint not null, closed bigint not null)",
		},
		Handle: func(ctx context.Context, exec open.Exec, records []es.Record) error {
			for _, r := range records {
				event, err := account.Codec.Decode(r)
				if err != nil {
					return err
				}
				switch e := event.(type) {
				case account.Opened:
					err = exec(ctx, "insert into accounts (id, owner, balance, closed) values ($1, $2, 0, 0)", r.Stream.ID, e.Owner)
				case account.Deposited:
					err = exec(ctx, "update accounts set balance = balance + $1 where id = $2", e.Amount, r.Stream.ID)
				case account.Withdrawn:
					err = exec(ctx, "update accounts set balance = balance - $1 where id = $2", e.Amount, r.Stream.ID)
				case account.Closed:
					err = exec(ctx, "update accounts set closed = 1 where id = $1", r.Stream.ID)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// statements returns the read model of account statements: each change with the balance after it.
func statements() open.Model {
	return open.Model{
		Name:   "statements",
		Filter: es.Filter{Kinds: []string{"account"}, Types: []string{"deposited", "withdrawn"}},
		Prepare: []string{
			"drop table if exists statements",
			"create table statements (account text not null, version bigint not null, at text not null, change bigint not null, balance bigint not null, reason text not null, primary key (account, version))",
		},
		Handle: func(ctx context.Context, exec open.Exec, records []es.Record) error {
			for _, r := range records {
				event, err := account.Codec.Decode(r)
				if err != nil {
					return err
				}
				err = exec(ctx, `insert into statements (account, version, at, change, balance, reason) values ($1, $2, $3, $4,
					$5 + coalesce((select s.balance from statements s where s.account = $6 order by s.version desc limit 1), 0), $7)`,
					r.Stream.ID, int64(r.Version), r.Time.Format("15:04:05.000"), change(event), change(event), r.Stream.ID, reason(r))
				if err != nil {
					return err
				}
			}
			return nil
		},
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
func (b *bank) show(ctx context.Context, read open.ReadSide) error {
	head, err := b.settled(ctx, read)
	if err != nil {
		return err
	}
	for _, name := range []string{"accounts", "statements"} {
		if err := read.WaitFor(ctx, name, head); err != nil {
			return err
		}
	}
	fmt.Printf("\nThe read model of accounts at position %d:\n", head)
	rows := 0
	err = read.Query(ctx, func(scan func(...any) error) error {
		var id string
		var balance, closed int64
		if err := scan(&id, &balance, &closed); err != nil {
			return err
		}
		if rows++; closed != 0 {
			id += " (closed)"
		}
		fmt.Printf("    %-18s %12s\n", id, euros(balance))
		return nil
	}, "select id, balance, closed from accounts order by id limit 16")
	if err != nil {
		return err
	}
	fmt.Printf("\nThe last lines of Ann's statement:\n")
	return read.Query(ctx, func(scan func(...any) error) error {
		var at, why string
		var change, balance int64
		if err := scan(&at, &change, &balance, &why); err != nil {
			return err
		}
		fmt.Printf("    %s  %10s %10s  %s\n", at, euros(change), euros(balance), why)
		return nil
	}, "select at, change, balance, reason from (select * from statements where account = $1 order by version desc limit 5) as last order by version", b.id("ann"))
}
