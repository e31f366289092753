package main

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/qualify"
	"github.com/thalo-go/es/postgres"
)

const (
	postgresStreams = `select e.kind, e.id, e.version, e.position, e.time
		from (select kind, id, max(version) as version from {schema}.events where $1 = '' or kind = $1 group by kind, id) s
		join {schema}.events e on e.kind = s.kind and e.id = s.id and e.version = s.version order by 1, 2`
	postgresSnapshots = "select kind, id, version, position, schema, data from {schema}.snapshots order by position"
	postgresCommands  = "select kind, id, command, first, last from {schema}.commands"
	postgresReaders   = "select name, position from {schema}.checkpoints order by name"
)

type postgresDatabase struct {
	*postgres.Store
	pool   *pgxpool.Pool
	schema string
}

func openPostgres(ctx context.Context, url, schema string, readOnly bool) (database, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, within("the URL of the store", err)
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "es"
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, within("connect", err)
	}
	store, err := postgres.Config{Schema: schema, ReadOnly: readOnly}.New(ctx, pool)
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &postgresDatabase{store, pool, schema}, nil
}

// Close closes the store and its pool.
func (d *postgresDatabase) Close() error {
	err := d.Store.Close()
	d.pool.Close()
	return err
}

func (d *postgresDatabase) where() string {
	c := d.pool.Config().ConnConfig
	return fmt.Sprintf("%s:%d/%s, schema %s", c.Host, c.Port, c.Database, d.schema)
}

func (d *postgresDatabase) streams(ctx context.Context, kind string) iter.Seq2[head, error] {
	return sequence("streams", d.query(ctx, postgresStreams, kind), func(r row) (h head, err error) {
		err = r.Scan(&h.stream.Kind, &h.stream.ID, &h.version, &h.position, &h.time)
		h.time = h.time.UTC()
		return h, err
	})
}

func (d *postgresDatabase) snapshots(ctx context.Context) iter.Seq2[es.Snapshot, error] {
	return sequence("snapshots", d.query(ctx, postgresSnapshots), scanSnapshot)
}

func (d *postgresDatabase) commands(ctx context.Context) iter.Seq2[command, error] {
	return sequence("commands", d.query(ctx, postgresCommands), scanCommand)
}

func (d *postgresDatabase) checkpoints(ctx context.Context) iter.Seq2[checkpoint, error] {
	return sequence("checkpoints", d.query(ctx, postgresReaders), scanCheckpoint)
}

// damaged has nothing to ask: Postgres checks its pages itself as it reads them, if the cluster was made with checksums.
func (d *postgresDatabase) damaged(context.Context) (damages []string, asked bool, err error) {
	return nil, false, nil
}

// query returns a query. It runs without being prepared, so that it passes any pooler.
func (d *postgresDatabase) query(ctx context.Context, text string, args ...any) func() (rows, func(), error) {
	text = qualify.SQL(strings.ReplaceAll(text, "{schema}", pgx.Identifier{d.schema}.Sanitize()))
	return func() (rows, func(), error) {
		r, err := d.pool.Query(ctx, text, append([]any{pgx.QueryExecModeExec}, args...)...) //nolint:sqlclosecheck // sequence closes them
		if err != nil {
			return nil, nil, err
		}
		return r, r.Close, nil
	}
}
