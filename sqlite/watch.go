package sqlite

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/thalo-go/es"
)

// watcher wakes the callers of Changed when the log has grown. Commits of this store wake them at once.
// For commits of other processes, a goroutine polls the head of the log while any caller waits.
type watcher struct {
	store  *Store
	poll   time.Duration
	shared bool // other processes may write to the database

	mu      sync.Mutex
	head    es.Position   // the last known one
	err     error         // of the last poll
	grown   chan struct{} // closed when head grows or a poll fails
	waiters int
	polling bool
	ended   bool          // whether closed is closed
	closed  chan struct{} // closed by close
	work    sync.WaitGroup
}

func (w *watcher) init(s *Store, poll time.Duration, shared bool) {
	w.store, w.poll, w.shared = s, poll, shared
	w.grown = make(chan struct{})
	w.closed = make(chan struct{})
}

// advance records a new head of the log.
func (w *watcher) advance(head es.Position) { w.note(head, nil) }

func (w *watcher) note(head es.Position, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	if head > w.head || err != nil {
		w.head = max(head, w.head)
		close(w.grown)
		w.grown = make(chan struct{})
	}
}

func (w *watcher) close() {
	w.mu.Lock()
	w.ended = true
	close(w.closed)
	w.mu.Unlock()
	w.work.Wait()
}

// Changed implements [es.Log]. Appends of this store wake it at once, those of other processes within [Config.PollInterval].
// Each poll takes about 10 µs of one CPU, however many callers wait.
func (s *Store) Changed(ctx context.Context, after es.Position) (es.Position, error) {
	head, err := s.head(ctx)
	if err != nil {
		return 0, err
	}
	s.watcher.advance(head)
	if head > after {
		return head, nil
	}
	if head < after {
		return 0, fmt.Errorf("sqlite: %w", &es.AheadError{After: after, Head: head})
	}
	return s.watcher.wait(ctx, after)
}

func (w *watcher) wait(ctx context.Context, after es.Position) (es.Position, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiters++
	defer func() { w.waiters-- }()
	if w.shared && !w.polling && !w.ended {
		w.polling = true
		w.work.Add(1)
		go w.run()
	}
	for w.head <= after {
		grown := w.grown
		w.mu.Unlock()
		var err error
		select {
		case <-grown:
		case <-ctx.Done():
			err = ctx.Err()
		case <-w.closed:
			err = fmt.Errorf("sqlite: store is %w", es.ErrClosed)
		}
		w.mu.Lock()
		if err == nil {
			err = w.err
		}
		if err != nil {
			return 0, err
		}
	}
	return w.head, nil
}

// run polls until no caller waits.
func (w *watcher) run() {
	defer w.work.Done()
	tick := time.NewTicker(w.poll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-w.closed:
			return
		}
		w.mu.Lock()
		if w.waiters == 0 {
			w.polling = false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		w.note(w.store.head(context.Background()))
	}
}

const selectHead = "select coalesce(max(position), 0) from es_events"

func (s *Store) head(ctx context.Context) (es.Position, error) {
	var head es.Position
	if err := s.row(ctx, selectHead, nil, &head); err != nil {
		return 0, fmt.Errorf("sqlite: head of the log: %w", explain(err))
	}
	return head, nil
}
