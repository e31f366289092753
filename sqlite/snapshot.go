package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/thalo-go/es"
)

const (
	// A newer one stays: see es.Snapshot.Newer.
	upsertSnapshot = `insert into es_snapshots (kind, id, version, position, schema, data) values (?, ?, ?, ?, ?, ?)
		on conflict (kind, id) do update set version = excluded.version, position = excluded.position, schema = excluded.schema, data = excluded.data
		where (excluded.schema, excluded.version) >= (es_snapshots.schema, es_snapshots.version)`
	selectSnapshot = "select version, position, schema, data from es_snapshots where kind = ? and id = ?"
)

// SaveSnapshot implements [es.Snapshots].
func (s *Store) SaveSnapshot(ctx context.Context, n es.Snapshot) error {
	if err := n.Stream.Check(); err != nil {
		return err
	}
	err := s.saveSnapshot(ctx, n)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("sqlite: snapshot of %s: %w", n.Stream, explain(err))
	}
	return err
}

func (s *Store) saveSnapshot(ctx context.Context, n es.Snapshot) error {
	conn, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if n.Data == nil {
		n.Data = []byte{}
	}
	if _, err := conn.ExecContext(background, upsertSnapshot, n.Stream.Kind, n.Stream.ID, n.Version, n.Position, n.Schema, n.Data); err != nil {
		_, _ = conn.ExecContext(background, "rollback") // the first error says what is wrong
		return err
	}
	_, err = conn.ExecContext(background, "commit")
	return err
}

// LoadSnapshot implements [es.Snapshots].
func (s *Store) LoadSnapshot(ctx context.Context, stream es.Stream) (es.Snapshot, error) {
	n := es.Snapshot{Stream: stream}
	err := s.row(ctx, selectSnapshot, []any{stream.Kind, stream.ID}, &n.Version, &n.Position, &n.Schema, &n.Data)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return es.Snapshot{}, nil
	case err != nil:
		return es.Snapshot{}, fmt.Errorf("sqlite: snapshot of %s: %w", stream, explain(err))
	}
	return n, nil
}
