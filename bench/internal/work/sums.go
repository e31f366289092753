package work

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/projection"
)

// The read model sums has the number of events and the total amount of deposits and withdrawals of each account. Both sides build it with
// the same handler.
const (
	dropSums   = "drop table if exists sums"
	createSums = "create table sums (id text primary key, count bigint not null, sum bigint not null)"
	countSums  = "select coalesce(sum(count), 0) from sums"
	onConflict = " on conflict (id) do update set count = sums.count + excluded.count, sum = sums.sum + excluded.sum"

	postgresSum  = "insert into sums values ($1, $2, $3)" + onConflict
	postgresSums = "insert into sums select * from unnest($1::text[], $2::bigint[], $3::bigint[])" + onConflict
	sqliteSum    = "insert into sums values (?, ?, ?)" + onConflict
	sqliteSums   = "insert into sums select value ->> 0, value ->> 1, value ->> 2 from json_each(?) where true" + onConflict
)

// sums are the changes of the read model for some records, by row.
type sums struct {
	ids           []string
	counts, moved []int64
	rows          map[string]int
}

// add adds a record. It decodes the amount by the type of the event, as a usual handler does.
func (s *sums) add(r es.Record) error {
	amount, err := moved(r)
	if err != nil {
		return err
	}
	row, ok := s.rows[r.Stream.ID]
	if !ok {
		row = len(s.ids)
		s.rows[r.Stream.ID] = row
		s.ids, s.counts, s.moved = append(s.ids, r.Stream.ID), append(s.counts, 0), append(s.moved, 0)
	}
	s.counts[row]++
	s.moved[row] += amount
	return nil
}

func moved(r es.Record) (int64, error) {
	switch r.Type {
	case "deposited", "withdrawn":
		var event struct{ Amount int64 }
		err := json.Unmarshal(r.Data, &event)
		return event.Amount, err
	}
	return 0, nil
}

func sumsOf(records []es.Record) (*sums, error) {
	s := &sums{rows: make(map[string]int, len(records))}
	for _, r := range records {
		if err := s.add(r); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// PreparePostgres empties the read model.
func PreparePostgres(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, dropSums)
	if err == nil {
		_, err = tx.Exec(ctx, createSums)
	}
	return err
}

// PostgresSums returns the handler. It runs one upsert of many rows for a batch, or with each one upsert per record.
func PostgresSums(each bool) func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
	if each {
		return func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
			for _, r := range records {
				amount, err := moved(r)
				if err != nil {
					return err
				}
				if _, err := tx.Exec(ctx, postgresSum, r.Stream.ID, 1, amount); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
		s, err := sumsOf(records)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, postgresSums, s.ids, s.counts, s.moved)
		return err
	}
}

// PrepareSQLite empties the read model.
func PrepareSQLite(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, dropSums+"; "+createSums)
	return err
}

// SQLiteSums is [PostgresSums] for SQLite.
func SQLiteSums(each bool) func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
	if each {
		return func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
			upsert, err := tx.PrepareContext(ctx, sqliteSum)
			if err != nil {
				return err
			}
			defer upsert.Close()
			for _, r := range records {
				amount, err := moved(r)
				if err != nil {
					return err
				}
				if _, err := upsert.ExecContext(ctx, r.Stream.ID, 1, amount); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
		s, err := sumsOf(records)
		if err != nil {
			return err
		}
		rows := make([][3]any, len(s.ids))
		for i := range rows {
			rows[i] = [3]any{s.ids[i], s.counts[i], s.moved[i]}
		}
		text, err := json.Marshal(rows)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, sqliteSums, string(text))
		return err
	}
}

// A ReadModel counts the rows of a read model, to detect a side that builds it incompletely.
type ReadModel interface {
	Count(ctx context.Context, query string) (int64, error) // returns the number that a query selects
}

// Rebuilds returns one caller that rebuilds the read model of a whole log repeatedly.
func Rebuilds(name string, model ReadModel, records int, build func(ctx context.Context) error) measure.Side {
	return measure.Side{Name: name, Callers: 1, Units: records, Op: func(ctx context.Context, _ int) error {
		if err := build(ctx); err != nil {
			return err
		}
		n, err := model.Count(ctx, countSums)
		if err == nil && n != int64(records) {
			err = fmt.Errorf("%s: the read model has %d events, want %d", name, n, records)
		}
		return err
	}}
}

// FillPlain inserts the events that [FillAccounts] appends.
func FillPlain(ctx context.Context, insert func([]baseline.Row) error, accounts, events int) error {
	per := max(1, 1000/events)
	history, err := History(events)
	if err != nil {
		return err
	}
	var next atomic.Int64
	side := measure.Side{Name: "fill", Callers: 1, Op: func(context.Context, int) error {
		var rows []baseline.Row
		for last := int(next.Add(int64(per))); len(rows) < per*events; {
			n := last - per + len(rows)/events
			if n >= accounts {
				break
			}
			stream := es.Stream{Kind: "account", ID: AccountID(n)}
			for i := range history {
				rows = append(rows, baseline.Row{Stream: stream, Version: es.Version(i) + 1, Event: &history[i]})
			}
		}
		return insert(rows)
	}}
	_, err = side.Times(ctx, (accounts+per-1)/per)
	return err
}

// errCaughtUp ends the run of a projection that has reached the end of the log.
var errCaughtUp = errors.New("caught up")

// Projecting returns the build function of [Rebuilds] for the Project method of a store. Each call runs a new version of the projection.
func Projecting[Tx any](project func(ctx context.Context, p projection.Projection[Tx]) error, p projection.Projection[Tx]) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		p.Version++
		p.OnCaughtUp = func(context.Context) error { return errCaughtUp }
		if err := project(ctx, p); !errors.Is(err, errCaughtUp) {
			return err
		}
		return nil
	}
}

// SQLiteModel is the read model in a SQLite database.
type SQLiteModel struct{ DB *sql.DB }

// Count returns the number that a query selects.
func (m SQLiteModel) Count(ctx context.Context, query string) (n int64, err error) {
	err = m.DB.QueryRowContext(ctx, query).Scan(&n)
	return n, err
}
