package postgres_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/thalo-go/es/internal/test/testserver"
)

// guide returns the block of SQL in docs/operations.md that contains a text.
func guide(t testing.TB, containing string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for rest, found := string(text), true; found; {
		_, rest, found = strings.Cut(rest, "```sql\n")
		block, after, _ := strings.Cut(rest, "```")
		if strings.Contains(block, containing) {
			return block
		}
		rest = after
	}
	t.Fatalf("no block of SQL in docs/operations.md contains %q", containing)
	return ""
}

// The SQL in the operations guide must work.
func TestOperationsGuide(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		t.Run("the move from a textbook events table", func(t *testing.T) {
			url := server.Database(t)
			s := open(t, url)
			run(t, url, "create table events (id bigserial primary key, stream text not null, version int not null, type text not null, payload jsonb not null, created_at timestamptz not null, unique (stream, version))",
				`insert into events (id, stream, version, type, payload, created_at) values
				(3, 'account-1', 1, 'opened', '{"owner":"Ada"}', '2020-01-01 10:00Z'),
				(4, 'account-2', 1, 'opened', '{"owner":"Bob"}', '2020-01-01 09:00Z'),
				(9, 'account-1', 2, 'deposited', '{"amount":5}', '2020-01-02 10:00Z'),
				(7, 'account-new-york-1', 0, 'opened', '{"owner":"Cy"}', '2020-01-01 11:00Z'),
				(12, 'account-new-york-1', 1, 'deposited', '{"amount":7}', '2020-01-03 10:00Z')`)
			run(t, url, guide(t, "from events order by id"))
			var got []string
			for _, r := range dense(t, s) {
				got = append(got, fmt.Sprint(r.ID(), " ", r.Type, " ", string(r.Data), " ", r.Meta["old_id"], " ", r.Time.Format("02 15h")))
			}
			want := []string{
				`account/1/1 opened {"owner": "Ada"} 3 01 10h`, `account/2/1 opened {"owner": "Bob"} 4 01 10h`, `account/new-york-1/1 opened {"owner": "Cy"} 7 01 11h`,
				`account/1/2 deposited {"amount": 5} 9 02 10h`, `account/new-york-1/2 deposited {"amount": 7} 12 03 10h`,
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			mustAppend(t, s, at(account("new-york-1"), 2, 1), at(account("3"), 0, 1))
			if _, err := s.Append(t.Context(), at(account("1"), 1, 1)); !isConflict(err) {
				t.Errorf("an append at a version that is past: %v", err)
			}
			dense(t, s)
		})
		t.Run("finding the session that holds the lock", func(t *testing.T) {
			url := server.Database(t)
			s := open(t, url)
			conn := connect(t, url)
			tx := begin(t, conn, "")
			if _, err := s.In(tx).Append(t.Context(), add(account("a"), 1)); err != nil {
				t.Fatal(err)
			}
			rows, err := connect(t, url).Query(t.Context(), guide(t, "pg_locks"))
			if err != nil {
				t.Fatal(err)
			}
			holder := false
			for rows.Next() {
				values, err := rows.Values()
				if err != nil {
					t.Fatal(err)
				}
				holder = holder || fmt.Sprint(values[0]) == fmt.Sprint(conn.PgConn().PID()) && values[1] == "idle in transaction"
			}
			if rows.Err() != nil || !holder {
				t.Errorf("the query does not show the one who holds the lock: %v", rows.Err())
			}
			rollback(t, tx)
		})
	})
}
