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

// A feed is a log as those see it who follow it: they come back for more, and go on where they were.
type feed struct {
	// append appends an event, on a stream of its own.
	append func(ctx context.Context, text string) error

	// follow begins to follow. poll returns what has come since it was last called.
	follow func() (poll func(ctx context.Context) ([]string, error))

	// begin appends in a transaction that stays open until commit. nil if there is no such thing.
	begin func(t testing.TB, text string) (commit func())

	// waits returns when an append that came while a transaction was open waits for it. nil if appends never wait.
	waits func(t testing.TB)
}

// logFeed is one of our logs. open is asked for the log at each use, as it may move to another database.
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

// feedOf is the feed of one of our places.
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
		f.waits = func(testing.TB) {} // nobody sees how SQLite waits
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

// appends appends events, each of which must be taken.
func (f *feed) appends(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		must(t, f.append(t.Context(), text))
	}
}

// missing says which events a follower was never given who has seen some and looks once more, now that all are there.
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

// crowd lets many writers append while somebody follows, and tells what the follower was never given.
func (f *feed) crowd(t testing.TB, writers, each int) error {
	t.Helper()
	poll := f.follow()
	_, err := poll(t.Context()) // what is there already
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
