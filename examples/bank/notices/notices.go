// Package notices is the read model of a separate service, built from the bank's topic. For each movement on an account it has a notice to the owner
// with the balance after it. Each notice is written once, as its transaction also moves the checkpoint in the topic.
package notices

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// Topic is the topic of account events of the bank's relay.
const Topic = "bank.account"

// Name is the name of the projection.
const Name = "notices"

// Open opens the topic as a source of projections.
func Open(ctx context.Context, brokers string) (*kafka.Source, error) {
	return kafka.SourceConfig{
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": brokers}},
		Topics:  []string{Topic},
		Group:   "bank-notices", // for tools that show lag
	}.Open(ctx)
}

// Projection returns the projection that writes notices.
func Projection(source projection.Source) sqlite.Projection {
	return sqlite.Projection{
		Name:   Name,
		Source: source,
		Prepare: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `
				create table if not exists accounts (id text primary key, owner text not null, cents integer not null default 0);
				create table if not exists notices (number integer primary key, event text not null unique, account text not null, text text not null);
				delete from accounts; delete from notices`)
			return err
		},
		Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
			for _, r := range records {
				if err := write(ctx, tx, r); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func write(ctx context.Context, tx *sql.Tx, r es.Record) error {
	event, err := account.Codec.Decode(r)
	if err != nil {
		return err
	}
	id := r.Stream.ID
	switch e := event.(type) {
	case account.Opened:
		_, err := tx.ExecContext(ctx, "insert into accounts (id, owner) values (?, ?)", id, e.Owner)
		return err
	case account.Deposited:
		return move(ctx, tx, r, e.Amount, "came in")
	case account.Withdrawn:
		return move(ctx, tx, r, -e.Amount, "went out")
	case account.Closed:
		return notice(ctx, tx, r, "the account is closed")
	}
	return nil
}

func move(ctx context.Context, tx *sql.Tx, r es.Record, cents int64, what string) error {
	var owner string
	var balance int64
	err := tx.QueryRowContext(ctx, "update accounts set cents = cents + ? where id = ? returning owner, cents", cents, r.Stream.ID).Scan(&owner, &balance)
	if err != nil {
		return fmt.Errorf("account %s: %w", r.Stream.ID, err)
	}
	return notice(ctx, tx, r, fmt.Sprintf("Dear %s, %s %s, you have %s.", owner, Euros(max(cents, -cents)), what, Euros(balance)))
}

// notice writes one notice. The column event is unique, so a repeated record would stop the projection with an error.
func notice(ctx context.Context, tx *sql.Tx, r es.Record, text string) error {
	_, err := tx.ExecContext(ctx, "insert into notices (event, account, text) values (?, ?, ?)", r.ID(), r.Stream.ID, text)
	return err
}

// Euros formats an amount in cents.
func Euros(cents int64) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }

// Summary summarizes the read model.
type Summary struct {
	Accounts, Notices int
	Cents             int64
	Last              []string // the last few notices, the newest last
}

// Summarize reads the read model.
func Summarize(ctx context.Context, store *sqlite.Store, last int) (s Summary, err error) {
	err = store.DB().QueryRowContext(ctx, "select count(*), coalesce(sum(cents), 0), (select count(*) from notices) from accounts").Scan(&s.Accounts, &s.Cents, &s.Notices)
	if err != nil {
		return s, err
	}
	rows, err := store.DB().QueryContext(ctx, "select text from (select number, text from notices order by number desc limit ?) order by number", last)
	if err != nil {
		return s, err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return s, err
		}
		s.Last = append(s.Last, text)
	}
	return s, rows.Err()
}
