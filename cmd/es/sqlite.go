package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

const (
	sqliteStreams = `select e.kind, e.id, e.version, e.position, e.time
		from (select kind, id, max(version) as version from es_events where ?1 = '' or kind = ?1 group by kind, id) s
		join es_events e using (kind, id, version) order by 1, 2`
	sqliteSnapshots = "select kind, id, version, position, schema, data from es_snapshots order by position"
	sqliteCommands  = "select kind, id, command, first, last from es_commands"
	sqliteReaders   = "select name, position from es_checkpoints order by name"
	sqliteCheck     = "pragma integrity_check(20)"
)

type sqliteDatabase struct {
	*sqlite.Store
	path string
}

func openSQLite(path string, readOnly bool) (database, error) {
	store, err := sqlite.Config{ReadOnly: readOnly}.Open(path)
	if err != nil {
		return nil, err
	}
	return &sqliteDatabase{store, path}, nil
}

func (d *sqliteDatabase) where() string { return d.path }

func (d *sqliteDatabase) streams(ctx context.Context, kind string) iter.Seq2[head, error] {
	return query(ctx, d.DB(), "streams", sqliteStreams, []any{kind}, func(rows *sql.Rows) (h head, err error) {
		var micros int64
		err = rows.Scan(&h.stream.Kind, &h.stream.ID, &h.version, &h.position, &micros)
		h.time = time.UnixMicro(micros).UTC()
		return h, err
	})
}

func (d *sqliteDatabase) snapshots(ctx context.Context) iter.Seq2[es.Snapshot, error] {
	return query(ctx, d.DB(), "snapshots", sqliteSnapshots, nil, func(rows *sql.Rows) (n es.Snapshot, err error) {
		return n, rows.Scan(&n.Stream.Kind, &n.Stream.ID, &n.Version, &n.Position, &n.Schema, &n.Data)
	})
}

func (d *sqliteDatabase) commands(ctx context.Context) iter.Seq2[command, error] {
	return query(ctx, d.DB(), "commands", sqliteCommands, nil, func(rows *sql.Rows) (c command, err error) {
		return c, rows.Scan(&c.stream.Kind, &c.stream.ID, &c.id, &c.first, &c.last)
	})
}

func (d *sqliteDatabase) checkpoints(ctx context.Context) iter.Seq2[checkpoint, error] {
	return query(ctx, d.DB(), "checkpoints", sqliteReaders, nil, func(rows *sql.Rows) (c checkpoint, err error) {
		return c, rows.Scan(&c.name, &c.position)
	})
}

func (d *sqliteDatabase) damaged(ctx context.Context) (damages []string, asked bool, err error) {
	for text, err := range query(ctx, d.DB(), "the state of the file", sqliteCheck, nil, func(rows *sql.Rows) (text string, err error) {
		return text, rows.Scan(&text)
	}) {
		var e sqlite3.Error
		switch {
		case errors.As(err, &e) && e.Code == sqlite3.ErrCorrupt: // so much so that it cannot be checked
			text = e.Error()
		case err != nil:
			return nil, true, err
		}
		if text != "ok" {
			damages = append(damages, "SQLite says: "+text)
		}
	}
	return damages, true, nil
}

// query makes a sequence of the rows of a query.
func query[T any](ctx context.Context, db *sql.DB, what, text string, args []any, scan func(*sql.Rows) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		rows, err := db.QueryContext(ctx, text, args...)
		if err != nil {
			failed[T](within("read "+what, err))(yield)
			return
		}
		defer rows.Close()
		for rows.Next() {
			value, err := scan(rows)
			if err != nil {
				failed[T](within("read "+what, err))(yield)
				return
			}
			if !yield(value, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			failed[T](fmt.Errorf("read %s: %w", what, err))(yield)
		}
	}
}
