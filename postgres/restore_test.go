package postgres_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// A dump is restored into another cluster of the same or the newest release, and a running store is redirected there. pg_dump is only
// available in the system's release.
func TestDumpAndRestore(t *testing.T) {
	t.Parallel()
	for _, version := range []testserver.Version{testserver.System, testserver.Postgres18} {
		t.Run(fmt.Sprintf("into %.6s", version), func(t *testing.T) { dumpAndRestore(t, version) })
	}
}

func dumpAndRestore(t *testing.T, version testserver.Version) {
	from := testserver.StartPostgres(t, testserver.PostgresOptions{Version: testserver.System})
	into := testserver.StartPostgres(t, testserver.PostgresOptions{Version: version})
	url, restored := from.Database(t), into.Database(t)
	proxy := testserver.StartProxy(t, url)
	running := open(t, proxy.Through(url))
	for i := range es.Version(20) {
		mustAppend(t, running, at(account("a"), 2*i, 2), es.Append{Stream: account(fmt.Sprint("c", i)), Command: "once", Events: events(1)})
	}
	if err := running.SaveSnapshot(t.Context(), es.Snapshot{Stream: account("a"), Version: 40, Position: 59, Schema: 1, Data: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	before := dense(t, running)
	f := follow(t, running, 30)
	f.sees(t, 31, 60)

	dump, err := testserver.Tool(t, "pg_dump", url).Output()
	if err != nil {
		t.Fatalf("pg_dump: %v", err)
	}
	psql := testserver.Tool(t, "psql", "-v", "ON_ERROR_STOP=1", "-q", restored)
	psql.Stdin = strings.NewReader(string(dump))
	if out, err := psql.CombinedOutput(); err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	proxy.Target(restored)
	run(t, into.URL("postgres"), fmt.Sprintf("alter database %s rename to %s", name(restored), name(url))) // the running store connects to this name
	restored = into.URL(name(url))
	proxy.Cut()

	s := open(t, restored)
	if s.ID() != running.ID() {
		t.Errorf("the store's id is %s, and was %s", s.ID(), running.ID())
	}
	if diff := cmp.Diff(before, dense(t, s)); diff != "" {
		t.Errorf("the records are not the same (-before +after):\n%s", diff)
	}
	if n, err := s.LoadSnapshot(t.Context(), account("a")); err != nil || n.Version != 40 {
		t.Errorf("the snapshot is %+v: %v", n, err)
	}
	if _, err := s.Append(t.Context(), es.Append{Stream: account("c7"), Expected: es.AnyVersion, Command: "once", Events: events(1)}); !isDuplicate(err) {
		t.Errorf("a command that exists: %v", err)
	}
	if _, err := running.Append(t.Context(), at(account("a"), 40, 1)); err != nil { // the head it knows is still right
		t.Errorf("the redirected store: %v", err)
	}
	mustAppend(t, s, at(account("a"), 41, 1))
	follow(t, s, 60).sees(t, 61, 62)
	again := follow(t, running, 60)
	again.sees(t, 61, 62)
	mustAppend(t, s, at(account("a"), 42, 1))
	again.sees(t, 63, 63)
	dense(t, running)
}

// name returns the name of the database in a URL.
func name(url string) string {
	path, _, _ := strings.Cut(url[strings.LastIndex(url, "/")+1:], "?")
	return path
}

// Transaction ids wrap around at 2^32. Nothing depends on their order.
func TestTransactionIDsWrapAround(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{Version: testserver.System, Settings: map[string]string{"autovacuum": "off"}})
	url := server.Database(t)
	s := open(t, url)
	for i := range es.Version(30) {
		mustAppend(t, s, at(account("a"), i, 1))
	}
	// A row must be frozen before its id is half of all ids ago, so the way there has stops.
	run(t, server.URL("postgres"), "alter database template0 allow_connections true")
	for _, id := range []uint32{1_500_000_000, 3_000_000_000, 4_294_967_000} {
		for _, database := range []string{"template0", "template1", "postgres", name(url)} {
			run(t, server.URL(database), "vacuum freeze")
		}
		server.Stop(t, testserver.Fast)
		setTransactionID(t, server, id)
		server.Start(t)
		mustAppend(t, s, add(account("a"), 1))
	}
	f := follow(t, s, 0)
	other := open(t, url)
	old := connect(t, url) // a snapshot of before
	tx, err := old.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select txid_current()"); err != nil {
		t.Fatal(err)
	}
	for i := range es.Position(400) {
		mustAppend(t, []*postgres.Store{s, other}[i%2], add(account("a"), 1))
	}
	f.sees(t, 1, 433)
	if id := scalar[int64](t, url, "select txid_current()"); id < 1<<32 {
		t.Errorf("the transaction id is %d: it has not wrapped around", id)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(dense(t, open(t, url))); got != 433 {
		t.Errorf("%d records, want 433", got)
	}
}

// setTransactionID sets the next transaction id of a stopped server.
func setTransactionID(t testing.TB, server *testserver.Server, id uint32) {
	t.Helper()
	if out, err := testserver.Tool(t, "pg_resetwal", "-x", fmt.Sprint(id), "-D", server.Dir()).CombinedOutput(); err != nil {
		t.Fatalf("pg_resetwal: %v\n%s", err, out)
	}
	// The status of the transactions up to there is in a file that this skipped.
	const perFile = 8192 * 4 * 32
	status := filepath.Join(server.Dir(), "pg_xact", fmt.Sprintf("%04X", id/perFile))
	if err := os.WriteFile(status, make([]byte, perFile/4), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(status, 0o666); err != nil { // the server is another user
		t.Fatal(err)
	}
}

func TestMigrationFromATextbookTable(t *testing.T) {
	guide, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, chapter, found := strings.Cut(string(guide), "## From a textbook events table")
	_, sql, fenced := strings.Cut(chapter, "```sql\n")
	sql, _, _ = strings.Cut(sql, "```")
	if !found || !fenced {
		t.Fatal("docs/operations.md has no SQL for the migration")
	}
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		run(t, url,
			"create table events (id bigserial primary key, stream text, version int, type text, payload jsonb, created_at timestamptz, unique (stream, version))",
			`insert into events (id, stream, version, type, payload, created_at) values
				(3, 'account-42', 1, 'Opened', '{"owner": "Zoë"}', '2020-01-01 10:00:00.000001Z'),
				(4, 'account-42', 2, 'Deposited', '{"cents": 5}', '2020-01-01 10:00:03Z'),
				(9, 'order-a-b', 1, 'Placed', '{}', '2020-01-01 10:00:02Z'), -- its clock was behind
				(10, 'account-42', 3, 'Closed', '{}', '2020-01-02Z')`)
		s := open(t, url)
		run(t, url, sql)
		want := []struct {
			id, kind, data, old string
			time                string
		}{
			{"account/42/1", "Opened", `{"owner": "Zoë"}`, "3", "2020-01-01T10:00:00.000001Z"},
			{"account/42/2", "Deposited", `{"cents": 5}`, "4", "2020-01-01T10:00:03Z"},
			{"order/a-b/1", "Placed", `{}`, "9", "2020-01-01T10:00:03Z"},
			{"account/42/3", "Closed", `{}`, "10", "2020-01-02T00:00:00Z"},
		}
		all := dense(t, s)
		if len(all) != len(want) {
			t.Fatalf("%d records, want %d", len(all), len(want))
		}
		for i, w := range want {
			r := all[i]
			got := w
			got.id, got.kind, got.data, got.old, got.time = r.ID(), r.Type, string(r.Data), r.Meta["old_id"], r.Time.Format(time.RFC3339Nano)
			if got != w {
				t.Errorf("record %d is %v, want %v", i+1, got, w)
			}
		}
		// The store that was open has them, too.
		mustAppend(t, s, at(account("42"), 3, 1))
		mustAppend(t, open(t, url), at(account("42"), 4, 1), add(es.Stream{Kind: "order", ID: "a-b"}, 1))
		follow(t, s, 0).sees(t, 1, 7)
		dense(t, s)
	})
}
