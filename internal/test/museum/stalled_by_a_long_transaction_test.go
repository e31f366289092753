package museum_test

import (
	"fmt"
	"testing"
)

// The failure: to skip nothing, readers hold back everything younger than the oldest open transaction of the server,
// and a forgotten transaction stops them all.
//
// Not here: committed events can be read at once. Positions are in commit order, so no open transaction can add a lower
// one.
func TestStalledByALongTransaction(t *testing.T) {
	ours(t, func(t *testing.T, p place) error { return stalled(t, feedOf(t, p), openTransaction(t, p)) })
	control(t, "a reader that waits for pg_snapshot_xmin", func(t *testing.T) error {
		p := onPostgres(t)
		return stalled(t, byTransaction(newTextbook(t, p.url)), openTransaction(t, p))
	})
}

// stalled looks for acknowledged events that a follower does not receive while an unrelated transaction is open.
func stalled(t *testing.T, f *feed, end func()) error {
	poll := f.follow()
	f.appends(t, "one", "two")
	during := missing(t, []string{"one", "two"}, nil, poll)
	end()
	if during != nil {
		return fmt.Errorf("while an unrelated transaction is open: %w", during)
	}
	f.appends(t, "three")
	return missing(t, []string{"three"}, nil, poll)
}

// openTransaction begins an unrelated transaction.
func openTransaction(t *testing.T, p place) (end func()) {
	switch p.name {
	case "SQLite":
		p.open(t) // creates the file
		c := byHand(t, p.path)
		_, err := c.ExecContext(t.Context(), "begin; select count(*) from es_events")
		must(t, err)
		return func() {
			_, err := c.ExecContext(t.Context(), "rollback")
			must(t, err)
		}
	case "Postgres":
		tx, err := connect(t, p.url).Begin(t.Context())
		must(t, err)
		_, err = tx.Exec(t.Context(), "create table report (n int)")
		must(t, err)
		return func() { must(t, tx.Rollback(t.Context())) }
	}
	return func() {}
}

// byTransaction is followed in the order of transaction ids, up to the oldest open one: the usual fix for skipping.
func byTransaction(b *textbook) *feed {
	return b.feed(`select data, transaction_id::text, id::text from events
		where (transaction_id, id) > ($1::text::xid8, $2::bigint) and transaction_id < pg_snapshot_xmin(pg_current_snapshot())
		order by transaction_id, id`, "0", "0")
}
