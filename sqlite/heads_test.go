package sqlite_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/thalo-go/es"
)

// A store caches the heads of the log and of its streams. It must notice changes by others.
func TestKnownHeads(t *testing.T) {
	const insert = "insert into es_events (position, kind, id, version, time, type, data) values (?, 'account', ?, ?, ?, 'noted', ?)"
	t.Run("another store writes in between", func(t *testing.T) {
		path := file(t)
		one, two := open(t, path), open(t, path)
		add(t, one, at("a", 0, "1"))
		add(t, two, at("a", 1, "2"), at("b", 0, "3"))
		if _, err := one.Append(t.Context(), at("a", 1, "x")); !isConflict(1)(err) {
			t.Errorf("the version that this store knew: %v", err)
		}
		if position := add(t, one, at("a", 2, "4"), at("b", 1, "5")); position != 5 {
			t.Errorf("position %d; expected 5", position)
		}
		if _, err := two.Append(t.Context(), at("a", 2, "x")); !isConflict(2)(err) {
			t.Errorf("the version that the other one knew: %v", err)
		}
		expectTexts(t, two, "1", "2", "3", "4", "5")
	})
	t.Run("another store sees a command and a new stream of this one", func(t *testing.T) {
		path := file(t)
		one, two := open(t, path), open(t, path)
		add(t, two, at("other", 0, "1"))
		add(t, one, command("a", 0, "c", "2", "3"))
		if _, err := two.Append(t.Context(), command("a", 0, "c", "x")); !isDuplicate(1, 2)(err) {
			t.Errorf("the command again: %v", err)
		}
		if _, err := two.Append(t.Context(), at("a", 0, "x")); !isConflict(0)(err) {
			t.Errorf("the stream taken for new: %v", err)
		}
		add(t, two, at("a", 2, "4"))
	})
	t.Run("row inserted with SQL", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		add(t, s, at("a", 0, "1"))
		tamper(t, path, insert, 2, "a", 2, time.Now().UnixMicro(), []byte("2"))
		if _, err := s.Append(t.Context(), at("a", 1, "x")); !isConflict(1)(err) {
			t.Errorf("the version before: %v", err)
		}
		tamper(t, path, insert, 3, "b", 1, time.Now().UnixMicro(), []byte("3"))
		if _, err := s.Append(t.Context(), at("b", 0, "x")); !isConflict(0)(err) {
			t.Errorf("a stream that was new: %v", err)
		}
		if position := add(t, s, at("a", 2, "4"), at("b", 1, "5")); position != 5 {
			t.Errorf("position %d; expected 5", position)
		}
		expectTexts(t, s, "1", "2", "3", "4", "5")
	})
	t.Run("last rows deleted with SQL", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		add(t, s, at("a", 0, "1", "x"), at("b", 0, "x"))
		tamper(t, path, "drop trigger es_events_delete; delete from es_events where position > 1")
		if _, err := s.Append(t.Context(), at("a", 2, "x")); !isConflict(2)(err) {
			t.Errorf("the version before: %v", err)
		}
		add(t, s, at("a", 1, "2"), at("b", 0, "3"))
		expectTexts(t, s, "1", "2", "3")
	})
}

func TestMoreStreamsThanTheCacheHolds(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes 70,000 streams")
	}
	s := open(t, ":memory:")
	const streams = 70_000
	for i := 0; i < streams; i += 1000 {
		var appends []es.Append
		for k := range 1000 {
			appends = append(appends, at(fmt.Sprint(i+k), 0, ""))
		}
		add(t, s, appends...)
	}
	for _, id := range []string{"0", "1", "69999", "35000"} {
		if _, err := s.Append(t.Context(), at(id, 0, "x")); !isConflict(0)(err) {
			t.Errorf("stream %s taken for new: %v", id, err)
		}
		add(t, s, at(id, 1, "second"))
		if _, err := s.Append(t.Context(), at(id, 1, "x")); !isConflict(1)(err) {
			t.Errorf("stream %s at its old version: %v", id, err)
		}
	}
}

func TestTimeNeverRunsBackwards(t *testing.T) {
	const insert = "insert into es_events (position, kind, id, version, time, type, data) values (?, 'account', 'by hand', ?, ?, 'noted', x'')"
	path := file(t)
	s := open(t, path)
	add(t, s, at("a", 0, ""))
	// The record was written by a clock that is an hour ahead.
	ahead := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	tamper(t, path, insert, 2, 1, ahead.UnixMicro())
	add(t, s, at("a", 1, ""), at("b", 0, "")) // reads the time
	add(t, s, at("a", 2, ""))                 // uses the cached time
	add(t, open(t, path), at("a", 3, ""))
	for _, r := range all(t, s)[1:] {
		if !r.Time.Equal(ahead) || r.Time.Location() != time.UTC {
			t.Errorf("%s has the time %v; expected %v", r.ID(), r.Time, ahead)
		}
	}
	before := time.Now()
	fresh := open(t, ":memory:")
	add(t, fresh, at("a", 0, ""))
	if found := all(t, fresh)[0].Time; found.Before(before.Truncate(time.Microsecond)) || found.After(time.Now()) || found.Nanosecond()%1000 != 0 {
		t.Errorf("the time is %v; expected now, %v, in whole microseconds", found, before)
	}
}
