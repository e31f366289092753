package postgres_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// calls are the methods of a store.
func calls(t testing.TB, s *postgres.Store) map[string]func() error {
	ctx := t.Context()
	return map[string]func() error{
		"Append":         func() error { _, err := s.Append(ctx, add(account("a"), 1)); return err },
		"append nothing": func() error { _, err := s.Append(ctx, add(account("a"), 0)); return err },
		"Read":           func() error { _, err := drain(s.Read(ctx, account("a"), 0)); return err },
		"All":            func() error { _, err := drain(s.All(ctx, 0, es.Filter{})); return err },
		"a filter":       func() error { _, err := drain(s.All(ctx, 0, es.Filter{Kinds: []string{"account"}})); return err },
		"Changed":        func() error { _, err := s.Changed(ctx, 0); return err },
		"Head":           func() error { _, err := es.Head(ctx, s); return err },
		"Follow":         func() error { _, err := drain(es.Follow(ctx, s, 0, es.Filter{Kinds: []string{"none"}})); return err },
		"SaveSnapshot": func() error {
			return s.SaveSnapshot(ctx, es.Snapshot{Stream: account("a"), Version: 1, Position: 1})
		},
		"LoadSnapshot": func() error { _, err := s.LoadSnapshot(ctx, account("a")); return err },
	}
}

func TestClose(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		t.Run("waits for appends in flight", func(t *testing.T) {
			empty(t, url)
			s, other := open(t, url), open(t, url)
			release := holdLock(t, other, url)
			appended := make(chan error, 10)
			for range cap(appended) {
				go func() {
					_, err := s.Append(t.Context(), add(account("a"), 1))
					appended <- err
				}()
			}
			inside(t, cap(appended), "commit.(*Queue).Append")
			closed := make(chan error, 2)
			for range cap(closed) {
				go func() { closed <- s.Close() }()
			}
			inside(t, 1, "commit.(*Queue).Close")
			if _, err := s.Append(t.Context(), add(account("a"), 1)); !errors.Is(err, es.ErrClosed) {
				t.Errorf("a later append: got %v, want es.ErrClosed", err)
			}
			if len(closed) > 0 {
				t.Error("Close did not wait")
			}
			release()
			for range cap(closed) {
				if err := <-closed; err != nil {
					t.Errorf("close: %v", err)
				}
			}
			for range cap(appended) {
				if err := <-appended; err != nil {
					t.Errorf("an append in flight: %v", err)
				}
			}
			if got := len(dense(t, other)); got != cap(appended) {
				t.Errorf("there are %d records, want %d", got, cap(appended))
			}
		})
		t.Run("ends waiting calls, and loops at their next page", func(t *testing.T) {
			empty(t, url)
			s := open(t, url)
			mustAppend(t, s, at(account("a"), 0, 5000))
			changed := make(chan error, 5)
			for range cap(changed) {
				go func() {
					_, err := s.Changed(t.Context(), 5000)
					changed <- err
				}()
			}
			inside(t, cap(changed), "growth.(*Growth).Wait")
			seen := 0
			for _, err := range s.All(t.Context(), 0, es.Filter{}) {
				if seen++; seen == 1 {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				}
				if err != nil {
					if !errors.Is(err, es.ErrClosed) {
						t.Errorf("a loop ended with %v, want es.ErrClosed", err)
					}
					break
				}
			}
			if seen > 2000 {
				t.Errorf("a loop went on for %d records", seen)
			}
			for range cap(changed) {
				if err := <-changed; !errors.Is(err, es.ErrClosed) {
					t.Errorf("Changed returned %v, want es.ErrClosed", err)
				}
			}
		})
		t.Run("makes later calls fail", func(t *testing.T) {
			empty(t, url)
			pool := newPool(t, url)
			for name, s := range map[string]*postgres.Store{"own pool": open(t, url), "pool of the application's": must(postgres.New(t.Context(), pool))(t)} {
				mustAppend(t, s, add(account("a"), 1))
				for range 2 {
					if err := s.Close(); err != nil {
						t.Errorf("%s: close: %v", name, err)
					}
				}
				for call, do := range calls(t, s) {
					if err := do(); !errors.Is(err, es.ErrClosed) {
						t.Errorf("%s: %s returned %v, want es.ErrClosed", name, call, err)
					}
				}
			}
			if err := pool.Ping(t.Context()); err != nil {
				t.Errorf("the application's pool: %v", err)
			}
			// The pool destroys in its own time a connection on which a call was ended.
			eventually(t, "all connections of the application's pool were given back", func() bool { return pool.Stat().AcquiredConns() == 0 })
		})
		t.Run("can be called at any time", func(t *testing.T) {
			empty(t, url)
			for range 5 {
				s := open(t, url)
				var all sync.WaitGroup
				for name, do := range calls(t, s) {
					for range 4 {
						all.Go(func() {
							for {
								if err := do(); errors.Is(err, es.ErrClosed) {
									return
								} else if err != nil {
									t.Errorf("%s returned %v, want es.ErrClosed", name, err)
									return
								}
							}
						})
					}
				}
				mustAppend(t, s, add(account("b"), 1))
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				all.Wait()
			}
		})
	})
}

func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}
