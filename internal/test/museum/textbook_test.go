package museum_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A textbook is the events table of tutorials with their way to append: look up the stream's version, compare, insert,
// commit. Several of the programs with a bug use it.
type textbook struct{ pool *pgxpool.Pool }

var errConflict = errors.New("conflict: the stream has another version")

func newTextbook(t testing.TB, url string) *textbook {
	t.Helper()
	exec(t, url, `create table events (
		id bigserial primary key,
		stream text not null,
		version int not null,
		data text not null,
		created_at timestamptz not null default clock_timestamp(),
		transaction_id xid8 not null default pg_current_xact_id(),
		unique (stream, version))`)
	return &textbook{openPool(t, url)}
}

func openPool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	must(t, err)
	config.MaxConns = 32
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// in appends within a transaction.
func (*textbook) in(ctx context.Context, tx pgx.Tx, stream string, expected int, data string) error {
	var version int
	if err := tx.QueryRow(ctx, "select coalesce(max(version), 0) from events where stream = $1", stream).Scan(&version); err != nil {
		return err
	}
	if version != expected {
		return errConflict
	}
	_, err := tx.Exec(ctx, "insert into events (stream, version, data) values ($1, $2, $3)", stream, version+1, data)
	return err
}

// append appends in its own transaction.
func (b *textbook) append(ctx context.Context, stream string, expected int, data string) error {
	return pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error { return b.in(ctx, tx, stream, expected, data) })
}

// begin appends in a transaction that stays open until commit.
func (b *textbook) begin(t testing.TB, stream, data string) (commit func()) {
	t.Helper()
	tx, err := b.pool.Begin(t.Context())
	must(t, err)
	must(t, b.in(t.Context(), tx, stream, 0, data))
	return func() { must(t, tx.Commit(t.Context())) }
}

// feed returns the table as a feed: a follower selects the next events by a query with two parameters, its position.
func (b *textbook) feed(next, start1, start2 string) *feed {
	return &feed{
		append: func(ctx context.Context, text string) error { return b.append(ctx, text, 0, text) },
		begin:  func(t testing.TB, text string) func() { return b.begin(t, text, text) },
		follow: func() func(context.Context) ([]string, error) {
			at1, at2 := start1, start2
			return func(ctx context.Context) (texts []string, err error) {
				rows, err := b.pool.Query(ctx, next, at1, at2)
				if err != nil {
					return nil, err
				}
				var text string
				_, err = pgx.ForEachRow(rows, []any{&text, &at1, &at2}, func() error {
					texts = append(texts, text)
					return nil
				})
				if err != nil {
					return nil, fmt.Errorf("follow: %w", err)
				}
				return texts, nil
			}
		},
	}
}
