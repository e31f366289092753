package work

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/projection"
)

// Statement is what a document shows of an account. The number of its events is a column, so that an incomplete read model is noticed.
type Statement struct {
	Account account.Account
	Count   int64
}

func evolveStatement(s Statement, e account.Event) Statement {
	return Statement{account.Rules{}.Evolve(s.Account, e), s.Count + 1}
}

// Documents returns a document for each account.
func Documents() projection.SQLProjection {
	d := projection.NewDocuments("sums", account.Codec, evolveStatement).Column("count", "bigint", func(s Statement) any { return s.Count })
	return projection.SQLProjection{Name: "documents", Prepare: d.Prepare, Handle: d.Handle}
}

// The tables and statements that a program would write for the same documents.
const (
	createDocuments         = "create table sums (key text primary key, state json not null, count bigint); create index sums_count on sums (count)"
	postgresLoadDocuments   = "select key, state from sums where key = any($1)"
	postgresUpsertDocuments = "insert into sums select k, s::json, c from unnest($1::text[], $2::text[], $3::bigint[]) as u(k, s, c)" + replaceDocuments
	replaceDocuments        = " on conflict (key) do update set state = excluded.state, count = excluded.count"
)

// PreparePostgresDocuments empties the hand-written documents.
func PreparePostgresDocuments(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, dropSums+"; "+createDocuments)
	return err
}

// PrepareSQLiteDocuments is the same for SQLite.
func PrepareSQLiteDocuments(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, dropSums+"; "+createDocuments)
	return err
}

// folding is a batch of a hand-written loop.
type folding struct {
	keys   []string
	events map[string][]account.Event
	states map[string]Statement
}

func foldingOf(records []es.Record) (*folding, error) {
	f := &folding{events: make(map[string][]account.Event), states: make(map[string]Statement)}
	for _, r := range records {
		event, err := account.Codec.Decode(r)
		if err != nil {
			return nil, err
		}
		if _, found := f.events[r.Stream.ID]; !found {
			f.keys = append(f.keys, r.Stream.ID)
		}
		f.events[r.Stream.ID] = append(f.events[r.Stream.ID], event)
	}
	return f, nil
}

// load reads documents of the table, from the rows of either driver.
func (f *folding) load(rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
}) error {
	for rows.Next() {
		var key string
		var state []byte
		if err := rows.Scan(&key, &state); err != nil {
			return err
		}
		var s Statement
		if err := json.Unmarshal(state, &s); err != nil {
			return err
		}
		f.states[key] = s
	}
	return rows.Err()
}

// fold returns the new columns.
func (f *folding) fold() (states []string, counts []int64, err error) {
	for _, key := range f.keys {
		s := f.states[key]
		for _, e := range f.events[key] {
			s = evolveStatement(s, e)
		}
		data, err := json.Marshal(s)
		if err != nil {
			return nil, nil, err
		}
		states, counts = append(states, string(data)), append(counts, s.Count)
	}
	return states, counts, nil
}

// PostgresDocuments is the hand-written handler.
func PostgresDocuments(ctx context.Context, tx pgx.Tx, records []es.Record) error {
	f, err := foldingOf(records)
	if err != nil {
		return err
	}
	rows, err := tx.Query(ctx, postgresLoadDocuments, f.keys)
	if err != nil {
		return err
	}
	defer rows.Close()
	if err := f.load(rows); err != nil {
		return err
	}
	states, counts, err := f.fold()
	if err == nil {
		_, err = tx.Exec(ctx, postgresUpsertDocuments, f.keys, states, counts)
	}
	return err
}

// SQLiteDocuments is the hand-written handler for SQLite.
func SQLiteDocuments(ctx context.Context, tx *sql.Tx, records []es.Record) error {
	f, err := foldingOf(records)
	if err != nil {
		return err
	}
	keys := make([]any, len(f.keys))
	for i, key := range f.keys {
		keys[i] = key
	}
	rows, err := tx.QueryContext(ctx, "select key, state from sums where key in (?"+strings.Repeat(", ?", len(keys)-1)+")", keys...) //nolint:gosec,rowserrcheck // no value is in the text, and load checks the error
	if err != nil {
		return err
	}
	defer rows.Close()
	if err := f.load(rows); err != nil {
		return err
	}
	states, counts, err := f.fold()
	if err != nil {
		return err
	}
	args := make([]any, 0, 3*len(f.keys))
	for i, key := range f.keys {
		args = append(args, key, states[i], counts[i])
	}
	_, err = tx.ExecContext(ctx, "insert into sums values (?, ?, ?)"+strings.Repeat(", (?, ?, ?)", len(f.keys)-1)+replaceDocuments, args...) //nolint:gosec // no value is in the text
	return err
}

// Sums is what a handler without a read model adds up.
type Sums struct{ Records, Cents int64 }

func (s *Sums) add(event account.Event) {
	s.Records++
	switch e := event.(type) {
	case account.Deposited:
		s.Cents += e.Amount
	case account.Withdrawn:
		s.Cents -= e.Amount
	}
}

// Typed returns a handler of decoded events.
func Typed[Tx any](s *Sums) func(ctx context.Context, tx Tx, records []es.Record) error {
	return projection.Each(account.Codec, func(_ context.Context, _ Tx, _ es.Record, event account.Event) error {
		s.add(event)
		return nil
	})
}

// Loop returns the loop that [Typed] replaces.
func Loop[Tx any](s *Sums) func(ctx context.Context, tx Tx, records []es.Record) error {
	return func(_ context.Context, _ Tx, records []es.Record) error {
		for _, r := range records {
			event, err := account.Codec.Decode(r)
			if err != nil {
				return err
			}
			s.add(event)
		}
		return nil
	}
}

// Handles returns one caller that handles a whole log repeatedly, and checks what its handler has added up.
func Handles(name string, records int, s *Sums, run func(ctx context.Context) error) measure.Side {
	return measure.Side{Name: name, Callers: 1, Units: records, Op: func(ctx context.Context, _ int) error {
		*s = Sums{}
		err := run(ctx)
		if err == nil && s.Records != int64(records) {
			err = fmt.Errorf("%s: %d records were handled, want %d", name, s.Records, records)
		}
		return err
	}}
}

// FillInRounds appends to both sides the events of accounts in rounds: one event of each account after the other.
func FillInRounds(ctx context.Context, store es.Store, insert func([]baseline.Row) error, accounts, events int) error {
	history, err := History(events)
	if err != nil {
		return err
	}
	const most = 1000
	for version := range events {
		for first := 0; first < accounts; first += most {
			var appends []es.Append
			var rows []baseline.Row
			for n := first; n < min(first+most, accounts); n++ {
				stream := es.Stream{Kind: "account", ID: AccountID(n)}
				appends = append(appends, es.Append{Stream: stream, Expected: es.Version(version), Events: history[version : version+1]})
				rows = append(rows, baseline.Row{Stream: stream, Version: es.Version(version) + 1, Event: &history[version]})
			}
			if _, err := store.Append(ctx, appends...); err != nil {
				return err
			}
			if err := insert(rows); err != nil {
				return err
			}
		}
	}
	return nil
}
