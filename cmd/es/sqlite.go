package main

import (
	"context"
	"errors"
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
	return sequence("streams", d.query(ctx, sqliteStreams, kind), func(r row) (h head, err error) {
		var micros int64
		err = r.Scan(&h.stream.Kind, &h.stream.ID, &h.version, &h.position, &micros)
		h.time = time.UnixMicro(micros).UTC()
		return h, err
	})
}

func (d *sqliteDatabase) snapshots(ctx context.Context) iter.Seq2[es.Snapshot, error] {
	return sequence("snapshots", d.query(ctx, sqliteSnapshots), scanSnapshot)
}

func (d *sqliteDatabase) commands(ctx context.Context) iter.Seq2[command, error] {
	return sequence("commands", d.query(ctx, sqliteCommands), scanCommand)
}

func (d *sqliteDatabase) checkpoints(ctx context.Context) iter.Seq2[checkpoint, error] {
	return sequence("checkpoints", d.query(ctx, sqliteReaders), scanCheckpoint)
}

func (d *sqliteDatabase) damaged(ctx context.Context) (damages []string, asked bool, err error) {
	for text, err := range sequence("the state of the file", d.query(ctx, sqliteCheck), func(r row) (text string, err error) {
		err = r.Scan(&text)
		return text, err
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

func (d *sqliteDatabase) query(ctx context.Context, text string, args ...any) func() (rows, func(), error) {
	return func() (rows, func(), error) {
		r, err := d.DB().QueryContext(ctx, text, args...) //nolint:rowserrcheck // sequence looks at it
		if err != nil {
			return nil, nil, err
		}
		return r, func() { r.Close() }, nil
	}
}
