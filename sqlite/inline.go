package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/internal/tag"
)

// writeInline writes requests in the open transaction, lets the inline projections handle them, ends it, and returns the connection to the pool.
func (t *tx) writeInline(ctx context.Context, requests []*commit.Request, careful bool) (err error) {
	s, w := t.store, &t.store.writer
	defer t.conn.Close()
	defer func() {
		_ = t.inline.Rollback() // returns an error after a commit
		if err != nil {
			w.forget()
		}
	}()
	var b *batch
	err = t.conn.Raw(func(driver any) error {
		b = w.batch(driver.(*sqlite3.SQLiteConn), careful)
		return b.write(requests)
	})
	if err != nil || len(b.rows) == 0 {
		return err
	}
	if err := t.project(ctx, b.writer.head, b.records()); err != nil {
		return err
	}
	if err := s.commit(t.inline.Commit); err != nil {
		if isConstraint(err) {
			return s.inline.Refuse(err) // a deferred constraint
		}
		return err
	}
	b.committed()
	s.growth.Note(w.view.seen(w.head), nil)
	s.inline.Moved()
	return nil
}

// project applies the projections to records written after a position and moves their checkpoints.
func (t *tx) project(ctx context.Context, before es.Position, records []es.Record) error {
	s, db := t.store, backend{store: t.store}
	var states []engine.State
	for _, q := range s.inline.States() {
		var state engine.State
		err := db.Query(ctx, t.inline, func(scan func(...any) error) error {
			state.Found = true
			return scan(&state.Cursor, &state.Rebuild, &state.Filter, &state.PastEnd)
		}, q.SQL, q.Args...)
		if err != nil {
			return err
		}
		states = append(states, state)
	}
	if err := t.apply(ctx, states, before, records); err != nil {
		return err
	}
	if err := t.checkOpen(); err != nil {
		return err
	}
	for _, m := range s.inline.Moves(states, records) {
		if n, err := db.Exec(ctx, t.inline, m.SQL, m.Args...); err != nil {
			return err
		} else if n != 1 {
			return fmt.Errorf("moved %d checkpoints of an inline projection, want 1: nothing was written", n)
		}
	}
	return ctx.Err()
}

// apply calls the handlers.
func (t *tx) apply(ctx context.Context, states []engine.State, before es.Position, records []es.Record) error {
	s := t.store
	by := s.inline.Handler()
	returned := s.held(by)
	defer returned()
	err := s.whole(t.conn, t.inline, func() error {
		return s.inline.Apply(context.WithValue(ctx, inside{}, s), t.inline, states, before, records, by)
	})
	if errors.Is(err, engine.ErrEndsTransaction) {
		return &engine.RefusedError{Projection: by.Projection, Err: err}
	}
	return err
}

// checkOpen returns an error if SQLite has rolled the transaction back after an error that the handler ignored.
func (t *tx) checkOpen() error {
	if !undone(t.conn, t.inline) {
		return nil
	}
	return &engine.RefusedError{Projection: "that is inline", Err: errors.New("a statement of the handler failed, but the handler returned no error: return the errors of Exec and Query")}
}

// records returns the records that the batch writes, as readers will see them. Handlers may retain them.
func (b *batch) records() []es.Record {
	records := make([]es.Record, len(b.rows))
	at := time.UnixMicro(b.time).UTC()
	for i := range b.rows {
		r := &b.rows[i]
		records[i] = es.Record{
			Stream: *r.stream, Version: r.version, Position: b.writer.head + es.Position(i+1), Time: at,
			Type: r.event.Type, Data: bytes.Clone(r.event.Data),
		}
		if len(r.event.Meta) > 0 {
			records[i].Meta = maps.Clone(r.event.Meta)
		}
		records[i].Tags = tag.Set(r.event.Tags)
	}
	return records
}

// between reads up to most records after a position and up to another, in a transaction.
func (s *Store) between(_ context.Context, t *sql.Tx, after, upTo es.Position, most int) (records []es.Record, err error) {
	rows, err := t.QueryContext(background, selectAll, int64(after), min(int64(most), int64(upTo-after)))
	if err != nil {
		return nil, fmt.Errorf("sqlite: %s: %w", readLog, s.explain(err))
	}
	err = s.each(rows, func(scan func(...any) error) error {
		var values [9]any
		var into [9]any
		for i := range values {
			into[i] = &values[i]
		}
		if err := scan(into[:]...); err != nil {
			return err
		}
		var row [9]driver.Value
		for i := range values {
			row[i] = values[i]
		}
		records = append(records, es.Record{})
		return record(&records[len(records)-1], row[:], es.Stream{})
	})
	return records, err
}
