package postgres_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/logged"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// What a store leaves for others, what others write for it and what it sends directly can be seen.
func TestSharingCountsEachWay(t *testing.T) {
	postgres.CombineAlways(func() {
		url := testserver.Postgres(t, testserver.Postgres18).Database(t)
		stores := several(t, 2, url)
		serveOld(t, url)
		for i, s := range stores {
			mustAppend(t, s, at(account(string(rune('a'+i))), 0, 1))
		}
		meet := func(write func(i int, s *postgres.Store)) {
			t.Helper()
			b := block(t, stores[0], url)
			var all sync.WaitGroup
			for i, s := range stores {
				all.Go(func() { write(i, s) })
			}
			waitForRequests(t, url, len(stores))
			b.release(t)
			all.Wait()
		}
		want := func(what string, left, served, others, direct int64) {
			t.Helper()
			var sum postgres.Sharing
			for _, s := range stores {
				got := s.Sharing()
				if !got.Active || got.Never != "" || got.Draining || got.Unanswered != 0 {
					t.Errorf("%s: %+v", what, got)
				}
				sum.Left, sum.Served, sum.Others, sum.Direct = sum.Left+got.Left, sum.Served+got.Served, sum.Others+got.Others, sum.Direct+got.Direct
			}
			if sum.Left != left || sum.Served != served || sum.Others != others || sum.Direct != direct {
				t.Errorf("%s: got %+v in all; want left %d, served %d, others %d, direct %d", what, sum, left, served, others, direct)
			}
		}
		want("alone", 2, 0, 0, 0)

		meet(func(i int, s *postgres.Store) { mustAppend(t, s, at(account(string(rune('a'+i))), 1, 1)) })
		want("two at the same moment", 4, 1, 1, 0)

		large := add(account("large"), 1)
		large.Events[0].Data = bytes.Repeat([]byte("x"), 10<<10)
		mustAppend(t, stores[0], large)
		want("a large batch", 4, 1, 1, 1)

		// Each of the two is refused. The first is refused as its own, which brings an error, so it is not one of the two.
		run(t, url, `create function refuse() returns trigger language plpgsql as $$ begin raise exception 'refused' using errcode = '23514'; end $$`,
			`create trigger refuse before insert on es.events for each row when (new.kind = 'refused' and new.id = 'by a trigger') execute function refuse()`)
		b := block(t, stores[0], url)
		var all sync.WaitGroup
		all.Go(func() { mustAppend(t, stores[0], add(account("a"), 1)) })
		waitForRequests(t, url, 1)
		all.Go(func() {
			if _, err := stores[1].Append(t.Context(), add(es.Stream{Kind: "refused", ID: "by a trigger"}, 1)); err == nil || errors.Is(err, es.ErrUnknownOutcome) {
				t.Errorf("got %v, want the server's error", err)
			}
		})
		waitForRequests(t, url, 2)
		b.release(t)
		all.Wait()
		want("one that another process cannot write", 6, 2, 2, 2)

		text, err := json.Marshal(stores[0].Sharing())
		if err != nil || !strings.Contains(string(text), `"served":`) {
			t.Errorf("as JSON: %s, %v", text, err)
		}
	})
}

// A call that goes on without its callers, and one without an answer, can be seen, in the log too.
func TestSharingShowsWhatGoesOnUnseen(t *testing.T) {
	postgres.CombineAlways(func() {
		url := testserver.Postgres(t, testserver.Postgres18).Database(t)
		other := several(t, 1, url)[0]
		var log logged.Text
		s := openWith(t, postgres.Config{Logger: log.Logger()}, url)
		s.DrainLimit(time.Hour) // the machine may be busy
		mustAppend(t, s, at(account("a"), 0, 1))

		b := block(t, other, url)
		if err := appendAndLeave(t, s, url, at(account("a"), 1, 1)); !errors.Is(err, es.ErrUnknownOutcome) {
			t.Errorf("got %v, want es.ErrUnknownOutcome", err)
		}
		eventually(t, "the call drains", func() bool { return s.Sharing().Draining })
		eventually(t, "the log says so", func() bool { return log.Count(`what="end of a batch whose callers have left"`) > 0 })
		b.release(t)
		eventually(t, "the call has ended", func() bool { return !s.Sharing().Draining })

		b = block(t, other, url)
		var all sync.WaitGroup
		all.Go(func() { mustAppend(t, s, at(account("a"), 2, 1)) })
		waitForRequests(t, url, 1)
		eventually(t, "its backend is ended", func() bool { return scalar[int](t, url, terminateWaiters) == 1 })
		b.release(t)
		all.Wait()
		if got := s.Sharing(); got.Unanswered != 1 || got.Left != 3 {
			t.Errorf("got %+v; want 3 left, 1 of them unanswered", got)
		}
		if log.Count("no answer to a shared batch") != 1 {
			t.Errorf("the log does not tell of the batch without an answer:\n%s", log.String())
		}
	})
}

// A store that never leaves a batch says why.
func TestSharingSaysWhyNever(t *testing.T) {
	postgres.CombineAlways(func() {
		url := testserver.Postgres(t, testserver.Postgres18).Database(t)
		open(t, url)
		inline := postgres.Projection{Name: "p", Version: 1, Handle: func(context.Context, pgx.Tx, []es.Record) error { return nil }}
		var log logged.Text
		without := postgres.Config{Logger: log.Logger()}
		for want, config := range map[string]postgres.Config{
			"inline projections": {Inline: []postgres.Projection{inline}},
			"read-only":          {ReadOnly: true},
			"serve":              without,
		} {
			s := openWith(t, config, url)
			if want == "serve" {
				run(t, url, "alter function es.serve rename to serves")
			}
			if !config.ReadOnly {
				mustAppend(t, s, add(account("a"), 1))
			}
			if got := s.Sharing(); got.Active || !strings.Contains(got.Never, want) {
				t.Errorf("got %+v, want a reason with %q", got, want)
			}
			if want == "serve" {
				run(t, url, "alter function es.serves rename to serve")
			}
		}
		if log.Count("no sharing of flushes with other processes") != 1 {
			t.Errorf("the log does not tell of the missing function:\n%s", log.String())
		}
	})
}

// The process that writes for others notifies the readers, and the others need not. Each notification is a transaction of its own.
func TestTheOneThatServesNotifies(t *testing.T) {
	postgres.CombineAlways(func() {
		url := testserver.Postgres(t, testserver.Postgres18).Database(t)
		reader, stores := open(t, url), several(t, 4, url)
		serveOld(t, url)
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := reader.Changed(t.Context(), 0); err != nil {
				t.Error(err)
			}
		})
		eventually(t, "the reader listens", func() bool {
			return scalar[int](t, url, "select count(*)::integer from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and granted") == 1
		})
		listener := connect(t, url)
		if _, err := listener.Exec(t.Context(), `listen "es:es"`); err != nil {
			t.Fatal(err)
		}
		b := block(t, stores[0], url)
		for i, s := range stores {
			all.Go(func() { mustAppend(t, s, at(account(string(rune('a'+i))), 0, 1)) })
		}
		waitForRequests(t, url, len(stores))
		b.release(t)
		all.Wait()
		for _, s := range stores {
			s.AwaitNotify()
		}
		run(t, url, `notify "es:es", 'end'`)
		sent := 0
		for {
			n, err := listener.WaitForNotification(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if n.Payload == "end" {
				break
			}
			sent++
		}
		if sent != 1 {
			t.Errorf("%d notifications were sent, want 1 by the process that has served all", sent)
		}
	})
}
