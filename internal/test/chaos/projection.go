package chaos

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
)

// The projections. Their handlers reject a record that does not follow the previous one of its stream, and a repeated
// one.
const (
	projectionBalances  = "balances"  // balance of each account, in several partitions
	projectionStatement = "statement" // a row for each record
	reactionBonus       = "bonus"     // one cent for some deposits
)

const createModels = `
	create schema if not exists {models};
	create table if not exists {models}.balances (id text primary key, balance bigint not null, version bigint not null);
	create table if not exists {models}.statement (position bigint primary key, record text not null, content text not null);`

const (
	emptyBalances  = "delete from {models}.balances"
	emptyStatement = "delete from {models}.statement"
	upsertBalance  = `insert into {models}.balances as b (id, balance, version) select $1, $2::bigint, $3::bigint where $3::bigint = 1 or exists (select from {models}.balances where id = $1)
		on conflict (id) do update set balance = b.balance + excluded.balance, version = excluded.version where b.version = excluded.version - 1`
	insertStatement = "insert into {models}.statement (position, record, content) values ($1, $2, $3)"
	selectBalances  = "select id, balance || ' at version ' || version from {models}.balances"
	countStatement  = "select count(*) from {models}.statement"
	selectStatement = "select position::text, record || ' ' || content from {models}.statement"
)

// modelled inserts the schema of the read models into a statement.
func modelled(sql, schema string) string {
	return strings.ReplaceAll(sql, "{models}", pgx.Identifier{models(schema)}.Sanitize())
}

// runProjections runs all projections and reactions. Every process in this role does so.
func runProjections(ctx context.Context, a *actor) error {
	store, err := a.open(ctx)
	if err != nil {
		return err
	}
	bonuses := es.NewRepo(store, kindBonus, account.Rules{}, account.Codec)
	group, inner := errgroup.WithContext(ctx)
	for _, p := range []postgres.Projection{a.balances(), a.statement()} {
		group.Go(func() error { return a.went(ctx, p.Name, store.Project(inner, p)) })
	}
	group.Go(func() error { return a.went(ctx, reactionBonus, store.React(inner, a.bonus(bonuses))) })
	group.Go(func() error { return a.runReminders(inner, store, store.React) })
	err = group.Wait()
	return errors.Join(err, bonuses.Close(context.Background()), store.Close())
}

// went returns the error of a projection that ended although its context did not.
func (a *actor) went(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the run ended it
	}
	return fmt.Errorf("%s ended unexpectedly: %w", name, err)
}

func (a *actor) balances() postgres.Projection {
	return postgres.Projection{
		Name: projectionBalances, Filter: es.Filter{Kinds: []string{kindAccount}}, Partitions: 3, Lease: a.Lease, Batch: 50,
		Prepare: func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, modelled(emptyBalances, a.Schema))
			return err
		},
		Handle: func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
			for _, r := range records {
				change, err := amount(r)
				if err != nil {
					return err
				}
				tag, err := tx.Exec(ctx, modelled(upsertBalance, a.Schema), r.Stream.ID, change, int64(r.Version))
				if err == nil && tag.RowsAffected() != 1 {
					err = fmt.Errorf("%s does not follow the applied records", r.ID())
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (a *actor) statement() postgres.Projection {
	return postgres.Projection{
		Name: projectionStatement, Lease: a.Lease, Batch: 100,
		Prepare: func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, modelled(emptyStatement, a.Schema))
			return err
		},
		Handle: func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
			var batch pgx.Batch
			for _, r := range records {
				batch.Queue(modelled(insertStatement, a.Schema), int64(r.Position), r.ID(), content(r))
			}
			return tx.SendBatch(ctx, &batch).Close()
		},
	}
}

// bonus pays one cent for some of the deposits. A reaction handles a record at least once; it pays once, because the
// command id is the record's id. It is not a step: the release before may run beside it, which has no steps.
func (a *actor) bonus(bonuses *accounts) projection.Reaction {
	return projection.Reaction{
		Name: reactionBonus, Filter: es.Filter{Kinds: []string{kindAccount}, Types: []string{"deposited"}}, Partitions: 2, Lease: a.Lease, Batch: 20,
		From: projection.Beginning(),
		Handle: func(ctx context.Context, r es.Record) error {
			if !earnsBonus(r) {
				return nil
			}
			if _, err := bonuses.Execute(ctx, r.Stream.ID, account.Open{Owner: r.Stream.ID}, es.CommandID("open")); err != nil {
				return err
			}
			_, err := bonuses.Execute(ctx, r.Stream.ID, account.Deposit{Amount: 1}, es.CommandID(r.ID()), es.CausedBy(r))
			return err
		},
	}
}

func earnsBonus(r es.Record) bool {
	h := fnv.New32a()
	_, _ = h.Write([]byte(r.ID())) // a hash has no error
	return r.Stream.Kind == kindAccount && r.Type == "deposited" && h.Sum32()%8 == 0
}

// projected returns the expected read models of a log. The caller fills in Rows from the database.
func projected(log []es.Record) (balances, statement, bonus Model, err error) {
	balances = Model{Name: projectionBalances, Want: make(map[string]string)}
	statement = Model{Name: projectionStatement, Want: make(map[string]string)}
	bonus = Model{Name: reactionBonus, Want: make(map[string]string), Rows: make(map[string]string)}
	type balance struct {
		cents   int64
		version es.Version
	}
	fold := make(map[string]balance)
	for _, r := range log {
		statement.Want[fmt.Sprint(r.Position)] = r.ID() + " " + content(r)
		if earnsBonus(r) {
			bonus.Want[r.ID()] = "paid to " + r.Stream.ID
		}
		switch r.Stream.Kind {
		case kindAccount:
			change, err := amount(r)
			if err != nil {
				return balances, statement, bonus, err
			}
			b := fold[r.Stream.ID]
			fold[r.Stream.ID] = balance{b.cents + change, r.Version}
		case kindBonus:
			cause := r.Meta[es.MetaCausation]
			if r.Type != "deposited" {
				continue
			}
			if _, again := bonus.Rows[cause]; again {
				bonus.Repeated = append(bonus.Repeated, cause)
			}
			bonus.Rows[cause] = "paid to " + r.Stream.ID
		}
	}
	for id, b := range fold {
		balances.Want[id] = fmt.Sprintf("%d at version %d", b.cents, b.version)
	}
	return balances, statement, bonus, nil
}
