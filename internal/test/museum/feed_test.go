package museum_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/postgres"
)

// A feed is a log as a follower sees it, which polls and continues from its position.
type feed struct {
	// append appends an event to a new stream.
	append func(ctx context.Context, text string) error

	// follow starts a follower. poll returns what is new since the last call.
	follow func() (poll func(ctx context.Context) ([]string, error))

	// begin appends in a transaction that stays open until commit. It is nil if there are no such transactions.
	begin func(t testing.TB, text string) (commit func())

	// waits returns when an append waits for an open transaction. It is nil if appends never wait.
	waits func(t testing.TB)
}

// logFeed is a feed of one of our logs. It calls open for each use, because the log may move to another database.
func logFeed(open func() es.Log) *feed {
	return &feed{
		append: func(ctx context.Context, text string) error {
			_, err := open().Append(ctx, note(text, text))
			return err
		},
		follow: func() func(ctx context.Context) ([]string, error) {
			at := es.Position(0)
			return func(ctx context.Context) (texts []string, err error) {
				for r, err := range open().All(ctx, at, es.Filter{}) {
					if err != nil {
						return nil, err
					}
					at, texts = r.Position, append(texts, string(r.Data))
				}
				return texts, nil
			}
		},
	}
}

// feedOf returns the feed of a place.
func feedOf(t testing.TB, p place) *feed {
	log := p.open(t)
	f := logFeed(func() es.Log { return log })
	switch p.name {
	case "SQLite":
		f.begin = func(t testing.TB, text string) func() {
			c := byHand(t, p.path)
			_, err := c.ExecContext(t.Context(), "begin immediate")
			must(t, err)
			_, err = c.ExecContext(t.Context(), `insert into es_events (position, kind, id, version, time, type, data)
				select count(*) + 1, 'account', ?1, 1, coalesce(max(time), 0), 'noted', cast(?1 as blob) from es_events`, text)
			must(t, err)
			return func() {
				_, err := c.ExecContext(t.Context(), "commit")
				must(t, err)
			}
		}
		f.waits = func(testing.TB) {} // waiting for SQLite is not observable
	case "Postgres":
		f.begin = func(t testing.TB, text string) func() {
			tx, err := connect(t, p.url).Begin(t.Context())
			must(t, err)
			_, err = log.(*postgres.Store).In(tx).Append(t.Context(), note(text, text))
			must(t, err)
			return func() { must(t, tx.Commit(t.Context())) }
		}
		f.waits = func(t testing.TB) { locked(t, p.url) }
	}
	return f
}

// appends appends events, each of which must succeed.
func (f *feed) appends(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		must(t, f.append(t.Context(), text))
	}
}

// missing returns an error with the events that a follower has not received after one more poll.
func missing(t testing.TB, appended, seen []string, poll func(context.Context) ([]string, error)) error {
	t.Helper()
	more, err := poll(t.Context())
	must(t, err)
	seen = append(slices.Clone(seen), more...)
	var never []string
	for _, text := range appended {
		if !slices.Contains(seen, text) {
			never = append(never, text)
		}
	}
	switch {
	case len(never) > 0:
		return fmt.Errorf("%d of %d events never delivered: %s", len(never), len(appended), strings.Join(never[:min(3, len(never))], ", "))
	case len(seen) != len(appended):
		return fmt.Errorf("%d events appended, %d delivered", len(appended), len(seen))
	}
	return nil
}

// crowd makes many writers append while a follower polls, and returns what the follower never received.
func (f *feed) crowd(t testing.TB, writers, each int) error {
	t.Helper()
	poll := f.follow()
	_, err := poll(t.Context()) // existing events
	must(t, err)
	var appended []string
	done := make(chan struct{})
	var all sync.WaitGroup
	for w := range writers {
		for i := range each {
			appended = append(appended, fmt.Sprint("w", w, "-", i))
		}
		mine := appended[len(appended)-each:]
		all.Go(func() {
			for _, text := range mine {
				if err := f.append(t.Context(), text); err != nil {
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	go func() {
		all.Wait()
		close(done)
	}()
	var seen []string
	for {
		more, err := poll(t.Context())
		must(t, err)
		seen = append(seen, more...)
		select {
		case <-done:
			return missing(t, appended, seen, poll)
		default:
		}
	}
}
