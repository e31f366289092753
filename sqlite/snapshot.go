package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
)

const (
	// Keeps a newer snapshot: see es.Snapshot.Newer.
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
	if n.Data == nil {
		n.Data = []byte{}
	}
	return s.within(ctx, "snapshot of "+n.Stream.String(), s.transact(ctx, func(conn *sql.Conn) error {
		_, err := conn.ExecContext(background, upsertSnapshot, n.Stream.Kind, n.Stream.ID, n.Version, n.Position, n.Schema, n.Data)
		return err
	}))
}

// LoadSnapshot implements [es.Snapshots].
func (s *Store) LoadSnapshot(ctx context.Context, stream es.Stream) (_ es.Snapshot, err error) {
	defer cause.Set(ctx, &err)
	n := es.Snapshot{Stream: stream}
	epoch := s.history.seen.Epoch()
	err = s.row(ctx, selectSnapshot, []any{stream.Kind, stream.ID}, &n.Version, &n.Position, &n.Schema, &n.Data)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return es.Snapshot{}, nil
	case err != nil:
		return es.Snapshot{}, fmt.Errorf("sqlite: snapshot of %s: %w", stream, s.explain(err))
	}
	s.history.seen.Note(epoch, n.Position, stream)
	return n, nil
}
