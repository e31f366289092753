package museum_test

import (
	"fmt"
	"testing"
	"time"
)

// The failure: followers continue after the time of the last event they saw, and a writer whose clock is slow writes
// before that.
//
// Not here: followers continue by position, which does not depend on clocks. The time of a record is never before that
// of its predecessor.
func TestReadInOrderOfTime(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		p := onSQLite(t)
		finds(t, false, skew(t, func(t *testing.T, fast bool) *feed {
			if fast {
				c := byHand(t, p.path)
				_, err := c.ExecContext(t.Context(), "drop trigger es_events_update; update es_events set time = time + 3600000000")
				must(t, err)
			}
			return feedOf(t, p)
		}))
		finds(t, false, backwards(t, p))
	})
	t.Run("Postgres", func(t *testing.T) {
		p := onPostgres(t)
		finds(t, false, skew(t, func(t *testing.T, fast bool) *feed {
			if fast {
				exec(t, p.url, "set es.change_history = 'on'", "update es.events set time = time + interval '1 hour'")
			}
			return feedOf(t, p)
		}))
		finds(t, false, backwards(t, p))
	})
	control(t, "events ordered by the writers' clocks", func(t *testing.T) error {
		b := newTextbook(t, onPostgres(t).url)
		return skew(t, func(t *testing.T, fast bool) *feed {
			if fast {
				exec(t, b.pool.Config().ConnString(), "update events set created_at = created_at + interval '1 hour'")
			}
			return b.feed("select data, created_at::text, '' from events where created_at > $1::timestamptz and $2 = '' order by created_at", "-infinity", "")
		})
	})
}

// skew looks for events that a follower never receives because the writer of earlier events had a fast clock.
// open returns the feed again. With fast, the existing events look as if a clock that is an hour fast had written them.
func skew(t *testing.T, open func(t *testing.T, fast bool) *feed) error {
	open(t, false).appends(t, "one", "two")
	f := open(t, true)
	poll := f.follow()
	seen, err := poll(t.Context())
	must(t, err)
	f.appends(t, "three")
	open(t, false).appends(t, "four")
	return missing(t, []string{"one", "two", "three", "four"}, seen, poll)
}

// backwards looks for a record that was written, by its time, before the one before it.
func backwards(t *testing.T, p place) error {
	records, err := whole(t.Context(), p.open(t))
	must(t, err)
	last := time.Time{}
	for _, r := range records {
		if r.Time.Before(last) {
			return fmt.Errorf("%s has the time %v, the record before it %v", r.ID(), r.Time, last)
		}
		last = r.Time
	}
	if !last.After(time.Now().Add(30 * time.Minute)) {
		t.Fatalf("the clock of %v was not fast", last)
	}
	return nil
}
