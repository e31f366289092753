// Package diff compares two read models, in SQL that SQLite and Postgres understand.
package diff

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/internal/qualify"
	"github.com/thalo-go/es/projection"
)

// Snapshot is a transaction that reads one state of the database.
type Snapshot interface {
	// Columns returns the quoted name of a table, and its columns in order; no columns if there is no such table.
	Columns(ctx context.Context, table string) (quoted string, columns []Column, err error)

	// Shards returns the cursors and the filter of a projection; no cursors if it has never run.
	Shards(ctx context.Context, name string, version int) (cursors []projection.Cursor, filter es.Filter, err error)

	// Rows runs a query and calls yield with each row, until it returns false.
	Rows(ctx context.Context, query string, args []any, yield func(values []any) bool) error

	// Events is the table of events.
	Events() string
	// Distinct is the operator that is true if two values differ, also if one is null.
	Distinct() string

	// Close ends the transaction.
	Close()
}

// Column is a column of a table.
type Column struct {
	Name string
	Cast string // the type to compare values as; "" for that of the column
}

func (c Column) compared(side string) string {
	value := side + "." + qualify.Name(c.Name)
	if c.Cast != "" {
		value = "cast(" + value + " as " + c.Cast + ")"
	}
	return value
}

func named(columns []Column, name string) bool {
	return slices.ContainsFunc(columns, func(c Column) bool { return c.Name == name })
}

// wait is the time between two looks whether both projections are at one position.
const wait = 50 * time.Millisecond

// Tables compares two tables. begin begins a snapshot.
func Tables(ctx context.Context, begin func(ctx context.Context) (Snapshot, error), before, after projection.Table) iter.Seq2[projection.Difference, error] {
	return func(yield func(projection.Difference, error) bool) {
		if err := tables(ctx, begin, before, after, func(d projection.Difference) bool { return yield(d, nil) }); err != nil {
			yield(projection.Difference{}, fmt.Errorf("compare %s with %s: %w", name(before), name(after), err))
		}
	}
}

func name(t projection.Table) string {
	return fmt.Sprintf("table %.80q of %s", t.Table, engine.Key{Name: t.Projection, Version: t.Version})
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", es.ErrInvalid, fmt.Sprintf(format, args...))
}

func tables(ctx context.Context, begin func(ctx context.Context) (Snapshot, error), before, after projection.Table, yield func(projection.Difference) bool) error {
	if len(after.Key) == 0 || !slices.Equal(before.Key, after.Key) {
		return invalid("the keys are %q and %q: give the same columns for both", before.Key, after.Key)
	}
	if before.Table == after.Table {
		return invalid("both are one table: give two")
	}
	var last error // where they were
	for {
		apart, err := look(ctx, begin, before, after, yield)
		switch {
		case err != nil && ctx.Err() != nil && last != nil:
			return fmt.Errorf("%w: %w", last, ctx.Err())
		case apart == nil || err != nil:
			return err
		}
		last = apart
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", last, ctx.Err())
		}
	}
}

// look compares the tables in one snapshot.
func look(ctx context.Context, begin func(ctx context.Context) (Snapshot, error), before, after projection.Table, yield func(projection.Difference) bool) (apart, err error) {
	s, err := begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return compare(ctx, s, before, after, yield)
}

// compare compares the tables if their projections are at one position. Otherwise apart says where they are.
func compare(ctx context.Context, s Snapshot, before, after projection.Table, yield func(projection.Difference) bool) (apart, err error) {
	was, _, err := s.Shards(ctx, before.Projection, before.Version)
	if err != nil {
		return nil, err
	}
	is, filter, err := s.Shards(ctx, after.Projection, after.Version)
	if err != nil {
		return nil, err
	}
	for _, t := range []struct {
		projection.Table
		cursors []projection.Cursor
	}{{before, was}, {after, is}} {
		if len(t.cursors) == 0 {
			return nil, invalid("%s has never run here: Status lists what has", engine.Key{Name: t.Projection, Version: t.Version})
		}
	}
	if at := was[0]; slices.ContainsFunc(slices.Concat(was, is), func(c projection.Cursor) bool { return c != at }) {
		return fmt.Errorf("they are not at one position: %s is at %v, and %s at %v", name(before), was, name(after), is), nil
	}
	query, columns, err := statement(ctx, s, before, after)
	if err != nil {
		return nil, err
	}
	kind := "" // no stream has it
	if len(filter.Kinds) == 1 && len(after.Key) == 1 {
		kind = filter.Kinds[0]
	}
	return nil, s.Rows(ctx, query, []any{kind}, func(values []any) bool { return yield(difference(values, after.Key, columns, kind)) })
}

// statement returns the query, and the columns that it compares. Its rows have the key, whether each side has the row, the columns of both, and
// the version, position, time and type of the last event.
func statement(ctx context.Context, s Snapshot, before, after projection.Table) (query string, names []string, err error) {
	oldTable, oldColumns, err := s.Columns(ctx, before.Table)
	if err != nil {
		return "", nil, err
	}
	newTable, newColumns, err := s.Columns(ctx, after.Table)
	if err != nil {
		return "", nil, err
	}
	for _, t := range []struct {
		name    string
		columns []Column
	}{{before.Table, oldColumns}, {after.Table, newColumns}} {
		if len(t.columns) == 0 {
			return "", nil, invalid("there is no table %.80q", t.name)
		}
		for _, k := range after.Key {
			if !named(t.columns, k) {
				return "", nil, invalid("table %.80q has no column %.80q for the key", t.name, k)
			}
		}
	}
	columns := slices.DeleteFunc(newColumns, func(c Column) bool { return !named(oldColumns, c.Name) || slices.Contains(after.Key, c.Name) })
	for _, c := range columns {
		names = append(names, c.Name)
	}
	var keys, on, values, differ []string
	for _, k := range after.Key {
		k = qualify.Name(k)
		keys = append(keys, "coalesce(o."+k+", n."+k+")")
		on = append(on, "o."+k+" = n."+k)
	}
	there := func(side string) string { return side + "." + qualify.Name(after.Key[0]) + " is not null" }
	for _, side := range []string{"o", "n"} {
		for _, c := range columns {
			values = append(values, side+"."+qualify.Name(c.Name))
		}
	}
	for _, c := range columns {
		differ = append(differ, c.compared("o")+" "+s.Distinct()+" "+c.compared("n"))
	}
	differ = append(differ, "o."+qualify.Name(after.Key[0])+" is null", "n."+qualify.Name(after.Key[0])+" is null")
	id := "cast(" + keys[0] + " as text)"
	fields := append(slices.Clone(keys), there("o"), there("n"))
	fields = append(append(fields, values...), "e.version", "e.position", "e.time", "e.type")
	return "select " + strings.Join(fields, ", ") + " from " + oldTable + " o full join " + newTable + " n on " + strings.Join(on, " and ") +
		" left join " + s.Events() + " e on e.kind = $1 and e.id = " + id + " and e.version = (select max(x.version) from " + s.Events() +
		" x where x.kind = $1 and x.id = " + id + ") where " + strings.Join(differ, " or ") + " order by " + strings.Join(keys, ", "), names, nil
}

func difference(values []any, keys, columns []string, kind string) (d projection.Difference) {
	take := func(names []string) map[string]any {
		m := make(map[string]any, len(names))
		for i, name := range names {
			m[name] = values[i]
		}
		values = values[len(names):]
		return m
	}
	d.Key = take(keys)
	inOld, inNew := isTrue(values[0]), isTrue(values[1])
	values = values[2:]
	d.Old, d.New = take(columns), take(columns)
	if !inOld {
		d.Old = nil
	}
	if !inNew {
		d.New = nil
	}
	if version, found := values[0].(int64); found {
		position, _ := values[1].(int64)
		d.Last = es.Record{
			Stream: es.Stream{Kind: kind, ID: fmt.Sprint(text(d.Key[keys[0]]))}, Version: es.Version(version), Position: es.Position(position), Type: fmt.Sprint(text(values[3])),
		}
		switch at := values[2].(type) {
		case time.Time:
			d.Last.Time = at.UTC()
		case int64:
			d.Last.Time = engine.TimeOf(at)
		}
	}
	return d
}

// text makes a string of bytes.
func text(v any) any {
	if b, is := v.([]byte); is {
		return string(b)
	}
	return v
}

// isTrue reads a boolean of either database.
func isTrue(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case int64:
		return v != 0
	}
	return false
}
