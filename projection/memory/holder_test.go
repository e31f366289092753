package memory_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/projection/memory"
)

// A handler that calls its own store with a context other than its own waits for its own transaction, and so would all others. That ends
// after the lease with an error that says so.
func TestAHandlerThatCallsItsOwnStoreEnds(t *testing.T) {
	outer := context.Background()
	for name, call := range map[string]func(s *memory.Store) error{
		"View":    func(s *memory.Store) error { return s.View(outer, func() {}) },
		"Replay":  func(s *memory.Store) error { return s.Replay(outer, "selfish", 0, projection.After(0)) },
		"Forget":  func(s *memory.Store) error { return s.Forget(outer, "selfish", 0) },
		"Rename":  func(s *memory.Store) error { return s.Rename(outer, "selfish", "other") },
		"WaitFor": func(s *memory.Store) error { return s.WaitFor(outer, "selfish", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memory.New(new(es.Mem))
				if _, err := s.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: "a"}, Events: []es.Record{{Type: "opened"}}}); err != nil {
					t.Fatal(err)
				}
				began, ended, entered := time.Now(), make(chan error, 1), make(chan struct{})
				go func() {
					ended <- s.Project(outer, memory.Projection{Name: "selfish", OnError: es.Park, Retries: -1, Lease: time.Minute, Handle: func(context.Context, *memory.Tx, []es.Record) error {
						close(entered)
						return call(s)
					}})
				}()
				<-entered
				if err := s.View(outer, func() {}); err != nil && (!errors.Is(err, es.ErrUnavailable) || !strings.Contains(err.Error(), "projection selfish has been in Handle for over 1m0s")) {
					t.Errorf("the call of another goroutine: %v", err)
				}
				if err := <-ended; !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "projection selfish: ") || !strings.Contains(err.Error(), "calls its own store") {
					t.Errorf("Project returned %v, want an error that says what the handler does", err)
				}
				if took := time.Since(began); took > 2*time.Minute {
					t.Errorf("it took %v with a lease of a minute", took)
				}
				if err := s.View(outer, func() {}); err != nil {
					t.Errorf("the store cannot be used afterwards: %v", err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
