package museum_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sqlite"
)

// A projector keeps a read model: the list of the texts of all events. Several processes may run it.
type projector struct {
	log es.Log

	// run is a process that applies the events, and returns at the end of the log, when the context is done, or after
	// an error. For each text it calls handle, in place of the program's handler, and has the text in the read model if
	// handle returns nil.
	run func(ctx context.Context, handle func(ctx context.Context, text string) error) error

	// applied returns the read model.
	applied func(t testing.TB) []string
}

const lease = 300 * time.Millisecond

var (
	errDone  = errors.New("caught up")
	errWrong = errors.New("the handler has a bug")
)

// undone returns nil for a run that reached the end.
func undone(err error) error {
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// projectors runs a check on the projections of each backend that has them.
func projectors(t *testing.T, check func(t *testing.T, p *projector) error) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) { finds(t, false, check(t, sqliteProjector(t))) })
	t.Run("Postgres", func(t *testing.T) { finds(t, false, check(t, postgresProjector(t, onPostgres(t).url))) })
}

func sqliteProjector(t *testing.T) *projector {
	path := onSQLite(t).path
	s := openSQLite(t, path)
	return &projector{
		log: s,
		run: func(ctx context.Context, handle func(context.Context, string) error) error {
			s, err := sqlite.Open(path)
			if err != nil {
				return err
			}
			err = s.Project(ctx, sqlite.Projection{
				Name: "texts", Lease: lease, Retries: -1,
				Prepare: func(ctx context.Context, tx *sql.Tx) error {
					_, err := tx.ExecContext(ctx, "create table if not exists texts (n integer primary key, text text not null)")
					return err
				},
				Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
					return each(ctx, records, handle, func(text string) error {
						_, err := tx.ExecContext(ctx, "insert into texts (text) values (?)", text)
						return err
					})
				},
				OnCaughtUp: func(context.Context) error { return errDone },
			})
			return errors.Join(undone(err), s.Close())
		},
		applied: func(t testing.TB) (texts []string) { return readTexts(t, s.DB()) },
	}
}

func postgresProjector(t *testing.T, url string) *projector {
	s := openPostgres(t, url)
	return &projector{
		log: s,
		run: func(ctx context.Context, handle func(context.Context, string) error) error {
			s, err := postgres.Open(ctx, url)
			if err != nil {
				return err
			}
			err = s.Project(ctx, postgres.Projection{
				Name: "texts", Lease: lease, Retries: -1,
				Prepare: func(ctx context.Context, tx pgx.Tx) error {
					_, err := tx.Exec(ctx, "create table if not exists texts (n bigserial primary key, text text not null)")
					return err
				},
				Handle: func(ctx context.Context, tx pgx.Tx, records []es.Record) error {
					return each(ctx, records, handle, func(text string) error {
						_, err := tx.Exec(ctx, "insert into texts (text) values ($1)", text)
						return err
					})
				},
				OnCaughtUp: func(context.Context) error { return errDone },
			})
			return errors.Join(undone(err), s.Close())
		},
		applied: func(t testing.TB) []string {
			rows, err := connect(t, url).Query(t.Context(), "select text from texts order by n")
			must(t, err)
			texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
			must(t, err)
			return texts
		},
	}
}

func each(ctx context.Context, records []es.Record, handle func(context.Context, string) error, apply func(string) error) error {
	for _, r := range records {
		if err := handle(ctx, string(r.Data)); err != nil {
			return err
		}
		if err := apply(string(r.Data)); err != nil {
			return err
		}
	}
	return nil
}

func readTexts(t testing.TB, db *sql.DB) (texts []string) {
	rows, err := db.QueryContext(t.Context(), "select text from texts order by n")
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var text string
		must(t, rows.Scan(&text))
		texts = append(texts, text)
	}
	must(t, rows.Err())
	return texts
}

// misapplied returns an error if the read model differs from the log.
func (p *projector) misapplied(t testing.TB) error {
	t.Helper()
	records, err := whole(t.Context(), p.log)
	must(t, err)
	var want []string
	for _, r := range records {
		want = append(want, string(r.Data))
	}
	if got := p.applied(t); !slices.Equal(got, want) {
		return fmt.Errorf("the log has %s, the read model %s", strings.Join(want, " "), strings.Join(got, " "))
	}
	return nil
}

// appends appends an event for each text.
func (p *projector) appends(t testing.TB, texts ...string) {
	t.Helper()
	for i, text := range texts {
		_, err := p.log.Append(t.Context(), note(fmt.Sprint(i), text))
		must(t, err)
	}
}

// fine is a handler without a bug.
func fine(context.Context, string) error { return nil }

// A homemade projector is a loop, a table, and a checkpoint beside it. Its way through the events is the failure under
// test.
type homemade struct {
	log es.Log
	db  *sql.DB
}

func newHomemade(t *testing.T) *homemade {
	db, err := sql.Open("sqlite3", filepath.Join(t.TempDir(), "model.db"))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(t.Context(), `create table texts (n integer primary key, text text not null);
		create table checkpoint (at integer not null); insert into checkpoint values (0)`)
	must(t, err)
	return &homemade{new(es.Mem), db}
}

func (h *homemade) projector(run func(ctx context.Context, handle func(context.Context, string) error) error) *projector {
	return &projector{log: h.log, run: run, applied: func(t testing.TB) []string { return readTexts(t, h.db) }}
}

func (h *homemade) checkpoint(ctx context.Context) (at es.Position, err error) {
	return at, h.db.QueryRowContext(ctx, "select at from checkpoint").Scan(&at)
}

func (h *homemade) move(ctx context.Context, to es.Position) error {
	_, err := h.db.ExecContext(ctx, "update checkpoint set at = ?", to)
	return err
}

func (h *homemade) apply(ctx context.Context, text string) error {
	_, err := h.db.ExecContext(ctx, "insert into texts (text) values (?)", text)
	return err
}
