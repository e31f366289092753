package limits_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3" // to write beside the store

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/logged"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/projection/memory"
	"github.com/thalo-go/es/sqlite"
)

// reactive is a store that runs reactions.
type reactive interface {
	es.Log
	projection.Admin
	React(ctx context.Context, r projection.Reaction) error
}

func reacting(t *testing.T, log es.Log) reactive {
	t.Helper()
	if mem, is := log.(*es.Mem); is {
		s := memory.New(mem)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	return log.(reactive)
}

// waiting returns how many timers a reaction has.
func waiting(t *testing.T, s reactive) (n int) {
	t.Helper()
	status, err := s.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, shard := range status {
		n += shard.Waiting
	}
	return n
}

// All timers are due at once, as after an outage. They are worked off with little memory, each once, while new records go on.
func TestAMillionTimers(t *testing.T) {
	n := scaled(1_000_000, 6_000)
	stores(t, func(t *testing.T, log es.Log) {
		s := reacting(t, log)
		fill(t, log, n, func(i int) es.Append { return deposited(fmt.Sprint(i % 1000)) })
		h := watchHeap()
		began := time.Now()
		now := began
		due := began.Add(time.Hour)
		fired, times := make([]atomic.Int32, n+2), 0
		ahead := -1 // timers that had fired before the new record was handled
		r := projection.Reaction{
			Name: "many", From: projection.Beginning(), Once: true, Now: func() time.Time { return now },
			Due: func(r es.Record) (time.Time, error) {
				if r.Stream.ID == "new" {
					return time.Time{}, nil
				}
				return due, nil
			},
			Handle: func(_ context.Context, r es.Record) error {
				fired[r.Position].Add(1)
				if r.Stream.ID == "new" {
					ahead = times
				} else {
					times++
				}
				return nil
			},
		}
		if err := s.React(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		enrolled := time.Since(began)
		if w := waiting(t, s); w != n || times > 0 {
			t.Fatalf("%d timers wait and %d have fired, want %d and none", w, times, n)
		}
		if _, err := log.Append(t.Context(), deposited("new")); err != nil {
			t.Fatal(err)
		}
		began, now = time.Now(), due
		if err := s.React(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d timers: enrolled in %v, fired in %v", n, enrolled, time.Since(began))
		for i := 1; i <= n+1; i++ {
			if c := fired[i].Load(); c != 1 {
				t.Fatalf("the record at position %d was handled %d times", i, c)
			}
		}
		if w := waiting(t, s); w > 0 || ahead < 0 || ahead > n/2 {
			t.Errorf("%d timers wait at the end; %d had fired before a new record, want a small part", w, ahead)
		}
		h.within(t, log, 64)
	})
}

// erase deletes the history of a stream, and replaces the data of another.
func erase(t *testing.T, log es.Log, deleted, replaced string) {
	t.Helper()
	switch s := log.(type) {
	case *sqlite.Store:
		var file string
		if err := s.DB().QueryRowContext(t.Context(), "select file from pragma_database_list where name = 'main'").Scan(&file); err != nil {
			t.Fatal(err)
		}
		db, err := sql.Open("sqlite3", file)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for _, sql := range []string{
			"drop trigger es_events_delete", "drop trigger es_events_update",
			"delete from es_events where id = '" + deleted + "'", "update es_events set data = x'7b7d' where id = '" + replaced + "'",
		} {
			if _, err := db.ExecContext(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
	case *postgres.Store:
		tx, err := s.Pool().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{
			"set local es.change_history = 'on'",
			"delete from es.events where id = '" + deleted + "'", "update es.events set data = '{}' where id = '" + replaced + "'",
		} {
			if _, err := tx.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A timer whose record was deleted is dropped with a warning and holds up no other. One whose record was changed gets what the log has now.
func TestTimersOfAnErasedStream(t *testing.T) {
	stores(t, func(t *testing.T, log es.Log) {
		if _, is := log.(*es.Mem); is {
			t.Skip("Mem keeps all records")
		}
		s := reacting(t, log)
		for _, stream := range []string{"deleted", "replaced", "kept"} {
			if _, err := log.Append(t.Context(), deposited(stream), deposited(stream)); err != nil {
				t.Fatal(err)
			}
		}
		now := time.Now()
		due := now.Add(time.Hour)
		var text logged.Text
		var handled []string
		r := projection.Reaction{
			Name: "erased", From: projection.Beginning(), Once: true, Now: func() time.Time { return now },
			Due:    func(es.Record) (time.Time, error) { return due, nil },
			Logger: text.Logger(),
			Handle: func(_ context.Context, r es.Record) error {
				handled = append(handled, r.ID()+string(r.Data))
				return nil
			},
		}
		if err := s.React(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		erase(t, log, "deleted", "replaced")
		now = due
		if err := s.React(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		const want = `[account/replaced/1{} account/replaced/2{} account/kept/1{"Amount":1} account/kept/2{"Amount":1}]`
		dropped := text.Count("timer dropped")
		if got := fmt.Sprint(handled); got != want || waiting(t, s) > 0 || dropped != 2 {
			t.Errorf("handled %s, want %s; %d timers wait, want none; %d warnings, want 2", got, want, waiting(t, s), dropped)
		}
	})
}
