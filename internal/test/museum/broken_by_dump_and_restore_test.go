package museum_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/sqlite"
)

// The failure: the reading order depends on a counter of the server, its transaction ids, which start again in the
// server of the restore.
//
// Not here: the order is in columns of the events, and the next position follows the last stored one.
func TestBrokenByDumpAndRestore(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		log := es.Log(openSQLite(t, filepath.Join(t.TempDir(), "es.db")))
		finds(t, false, restored(t, logFeed(func() es.Log { return log }), func() {
			copied := filepath.Join(t.TempDir(), "es.db")
			must(t, log.(*sqlite.Store).Backup(t.Context(), copied))
			log = openSQLite(t, copied)
		}))
	})
	t.Run("Postgres", func(t *testing.T) {
		from, into := agedServer(t)
		log := es.Log(openPostgres(t, from))
		finds(t, false, restored(t, logFeed(func() es.Log { return log }), func() {
			dump(t, from, into)
			log = openPostgres(t, into)
		}))
	})
	control(t, "events ordered by transaction id", func(t *testing.T) error {
		from, into := agedServer(t)
		b := newTextbook(t, from)
		return restored(t, byTransaction(b), func() {
			dump(t, from, into)
			b.pool = openPool(t, into)
		})
	})
}

// restored looks for events that a follower never receives because the database was moved.
func restored(t *testing.T, f *feed, move func()) error {
	poll := f.follow()
	f.appends(t, "one", "two")
	if err := missing(t, []string{"one", "two"}, nil, poll); err != nil {
		return err
	}
	move()
	f.appends(t, "three", "four")
	return missing(t, []string{"three", "four"}, nil, poll)
}

// agedServer returns a database on a server that has run many transactions, and an empty one on a server that has not.
func agedServer(t *testing.T) (from, into string) {
	into = testserver.Postgres(t, testserver.Postgres18).Database(t)
	from = testserver.Postgres(t, testserver.System).Database(t)
	var young int64
	must(t, connect(t, into).QueryRow(t.Context(), "select pg_current_xact_id()::text::bigint").Scan(&young))
	_, err := connect(t, from).Exec(t.Context(), `create procedure grow_old(years bigint) language plpgsql as $$ begin
		while pg_current_xact_id()::text::bigint < years loop commit; end loop;
	end $$`)
	must(t, err)
	_, err = connect(t, from).Exec(t.Context(), "call grow_old($1)", young+10_000)
	must(t, err)
	return from, into
}

// dump copies a database with pg_dump and psql.
func dump(t *testing.T, from, into string) {
	out, err := testserver.Tool(t, "pg_dump", from).Output()
	must(t, err)
	psql := testserver.Tool(t, "psql", "-v", "ON_ERROR_STOP=1", "-q", into)
	psql.Stdin = strings.NewReader(string(out))
	if said, err := psql.CombinedOutput(); err != nil {
		t.Fatalf("psql: %v\n%s", err, said)
	}
}
