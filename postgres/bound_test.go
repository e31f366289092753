package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// A time limit for statements must not keep a reader from reaching the end of a large log, whatever its filter excludes.
func TestReadsMakeProgressWithinTheTimeLimitOfStatements(t *testing.T) {
	t.Parallel()
	const common = 600_000
	server := testserver.Postgres(t, testserver.Postgres18)
	url := server.Database(t)
	s := open(t, url)
	rare := es.Append{Stream: es.Stream{Kind: "rare", ID: "0"}, Expected: es.AnyVersion, Events: []es.Record{{Type: "x"}}}
	mustAppend(t, s, rare)
	far, proxy := through(t, postgres.Config{}, url, "pool_max_conns=2&statement_timeout=25ms") // it does not know what comes now
	despiteTheLimit(t, func() error {
		_, err := far.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "rare", ID: "far"}, Expected: es.AnyVersion})
		return err
	})
	run(t, url, fmt.Sprintf(`insert into es.events (position, kind, id, version, time, type, data, meta, token)
		select 1 + n, 'common', 'one', n, clock_timestamp(), 'e', '\x7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d', '', n
		from generate_series(1, %d) n`, common), "analyze es.events")
	mustAppend(t, s, rare)
	limited := openLimited(t, postgres.Config{}, url)
	filters := map[string]struct {
		filter es.Filter
		want   int
	}{
		"everything":                  {es.Filter{}, common + 2},
		"a rare type":                 {es.Filter{Types: []string{"x"}}, 2},
		"a rare kind":                 {es.Filter{Kinds: []string{"rare"}}, 2},
		"a rare kind and its type":    {es.Filter{Kinds: []string{"rare"}, Types: []string{"x"}}, 2},
		"a common kind, a rare type":  {es.Filter{Kinds: []string{"common"}, Types: []string{"x"}}, 0},
		"a rare kind, a common type":  {es.Filter{Kinds: []string{"rare"}, Types: []string{"e"}}, 0},
		"a type that does not exist":  {es.Filter{Types: []string{"none"}}, 0},
		"a kind that does not exist":  {es.Filter{Kinds: []string{"none"}}, 0},
		"a common kind":               {es.Filter{Kinds: []string{"common"}}, common},
		"a common type":               {es.Filter{Types: []string{"e"}}, common},
		"a common kind and its types": {es.Filter{Kinds: []string{"common"}, Types: []string{"e", "x"}}, common},
	}
	for name, f := range filters {
		t.Run(name, func(t *testing.T) {
			found := 0
			despiteTheLimit(t, func() error {
				found = 0
				for _, err := range limited.All(t.Context(), 0, f.filter) {
					if err != nil {
						return err
					}
					found++
				}
				return nil
			})
			if found != f.want {
				t.Errorf("read %d records, want %d", found, f.want)
			}
		})
	}
	t.Run("a long stream", func(t *testing.T) {
		last := es.Version(0)
		despiteTheLimit(t, func() error {
			for r, err := range limited.Read(t.Context(), es.Stream{Kind: "common", ID: "one"}, last) {
				if err != nil {
					return err
				}
				last = r.Version
			}
			return nil
		})
		if last != common {
			t.Errorf("read up to version %d, want %d", last, common)
		}
	})
	t.Run("the outcome of an append whose answer was lost", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		despiteTheLimit(t, func() error {
			proxy.LoseAnswer("lost")
			_, err := far.Append(ctx, es.Append{Stream: es.Stream{Kind: "common", ID: "lost"}, Expected: es.AnyVersion, Events: []es.Record{{Type: "e"}}})
			return err
		})
		records := 0
		for _, err := range s.Read(t.Context(), es.Stream{Kind: "common", ID: "lost"}, 0) {
			if err != nil {
				t.Fatal(err)
			}
			records++
		}
		if records != 1 {
			t.Errorf("%d records were written, want 1", records)
		}
	})
	for _, inline := range []bool{false, true} {
		t.Run(fmt.Sprintf("a projection, inline %t", inline), func(t *testing.T) {
			var applied atomic.Int64
			p := postgres.Projection{
				Name: fmt.Sprintf("rare %t", inline), Filter: es.Filter{Types: []string{"x"}},
				Handle: func(_ context.Context, _ pgx.Tx, records []es.Record) error {
					applied.Add(int64(len(records)))
					return nil
				},
			}
			if inline {
				openLimited(t, postgres.Config{Inline: []postgres.Projection{p}}, url)
			} else {
				done := errors.New("caught up")
				p.OnCaughtUp = func(context.Context) error { return done }
				if err := limited.Project(t.Context(), p); !errors.Is(err, done) {
					t.Fatal(err)
				}
			}
			if applied.Load() != 2 {
				t.Errorf("applied %d records, want 2", applied.Load())
			}
		})
	}
}

func openLimited(t *testing.T, c postgres.Config, url string) (s *postgres.Store) {
	t.Helper()
	despiteTheLimit(t, func() (err error) {
		s, err = c.Open(t.Context(), with(url, "statement_timeout=25ms"))
		return err
	})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// despiteTheLimit repeats what fails because the machine is too busy for the smallest statement. A read without a bound fails each time.
func despiteTheLimit(t *testing.T, try func() error) {
	t.Helper()
	var err error
	for range 30 {
		if err = try(); err == nil || !strings.Contains(err.Error(), "57014") {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
