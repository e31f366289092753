package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// A clock was wrong once, so a record is dated in the future. It waits nevertheless, and Status must not say that it has waited for no time.
func TestARecordOfTheFutureHasALag(t *testing.T) {
	path := file(t)
	s := open(t, path)
	if _, err := s.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "k", ID: "1"}, Events: []es.Record{{Type: "e"}}}); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	stopped := s.Project(t.Context(), sqlite.Projection{
		Name: "p", Handle: func(context.Context, *sql.Tx, []es.Record) error { return nil }, OnCaughtUp: func(context.Context) error { return stop },
	})
	if !errors.Is(stopped, stop) {
		t.Fatal(stopped)
	}
	_, err := connect(t, path).ExecContext(t.Context(), "insert into es_events (position, kind, id, version, time, type, data) values (2, 'k', '1', 2, ?, 'e', x'')",
		time.Now().Add(time.Hour).UnixMicro())
	if err != nil {
		t.Fatal(err)
	}
	status := func() projection.Lag {
		t.Helper()
		all, err := s.Status(t.Context())
		if err != nil || len(all) != 1 || all[0].Lag == nil {
			t.Fatalf("%+v, %v", all, err)
		}
		return *all[0].Lag
	}
	first := status()
	if first.Positions != 1 || first.Age <= 0 || first.ClockAhead < 59*time.Minute || first.ClockAhead > time.Hour {
		t.Errorf("the lag is %+v: want one position with an age, and that the clock is an hour behind the log", first)
	}
	for later := status(); later.Age <= first.Age; later = status() {
		if t.Context().Err() != nil {
			t.Fatalf("the age does not grow: %v and %v", first.Age, later.Age)
		}
	}
}
