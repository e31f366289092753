package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/thalo-go/es"
)

// watcher wakes the callers of Changed when the log has grown. Commits of this store wake them at once.
// For commits of other processes, and for the loss of records, a goroutine polls the head of the log while any caller waits.
type watcher struct {
	store  *Store
	poll   time.Duration
	shared bool // other processes may write to the database

	mu      sync.Mutex
	head    es.Position   // the last known one
	rewinds int           // of the history to which head belongs
	err     error         // of the last poll
	grown   chan struct{} // closed when head changes or a poll fails
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

// advance records a new head of the log, as of a view of its history.
func (w *watcher) advance(v view, head es.Position) { w.note(v, head, nil) }

func (w *watcher) note(v view, head es.Position, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	switch {
	case v.rewinds < w.rewinds:
		return // it is of a history that was lost
	case v.rewinds == w.rewinds && head <= w.head && err == nil:
		return
	case v.rewinds > w.rewinds:
		w.head, w.rewinds = head, v.rewinds
	}
	w.head = max(head, w.head)
	close(w.grown)
	w.grown = make(chan struct{})
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
	before := s.history.view()
	for {
		v, head, err := s.end(ctx)
		if err != nil {
			return 0, s.within(ctx, readHead, err)
		}
		s.watcher.advance(v, head)
		if common, rewound := s.history.rewound(before.rewinds); rewound && after > common {
			head = min(head, common) // the caller has not read what is there now
		}
		switch {
		case head > after:
			return head, nil
		case head < after:
			return 0, fmt.Errorf("sqlite: %w", &es.AheadError{After: after, Head: head})
		}
		head, err = s.watcher.wait(ctx, after, v.rewinds)
		if !errors.Is(err, es.ErrRewound) { // a rewound log is looked at again
			return head, s.within(ctx, "wait for records", err)
		}
	}
}

// wait waits until the log has grown beyond a position, which was its end after a number of rewinds. It returns es.ErrRewound if the log
// was rewound since.
func (w *watcher) wait(ctx context.Context, after es.Position, rewinds int) (es.Position, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiters++
	defer func() { w.waiters-- }()
	if w.shared && !w.polling && !w.ended {
		w.polling = true
		w.work.Add(1)
		go w.run()
	}
	for {
		switch {
		case w.rewinds != rewinds:
			return 0, es.ErrRewound
		case w.head > after:
			return w.head, nil
		}
		grown := w.grown
		w.mu.Unlock()
		var err error
		select {
		case <-grown:
		case <-ctx.Done():
			err = ctx.Err()
		case <-w.closed:
			err = fmt.Errorf("store is %w", es.ErrClosed)
		}
		w.mu.Lock()
		if err == nil {
			err = w.err
		}
		if err != nil {
			return 0, err
		}
	}
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
		w.note(w.store.end(context.Background()))
	}
}

const readHead = "head of the log"

// end returns the position of the last record of the log, and the view of the history to which it belongs. It detects whether the log was rewound.
func (s *Store) end(ctx context.Context) (view, es.Position, error) {
	if err := s.files.check(); err != nil {
		return view{}, 0, err
	}
	v := s.history.view()
	var last mark
	var same bool
	err := s.row(ctx, selectTop, anys(v.top.args()), &last.position, &last.time, &last.stream.Kind, &last.stream.ID, &last.version, &same)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return v, 0, err
	}
	if same || v.top == (mark{}) {
		s.history.saw(v, last)
		return v, last.position, nil
	}
	v, err = s.history.rewind(v, last, func(m mark) (found bool, err error) {
		err = s.row(ctx, selectMark, anys(m.args()), &found)
		return found, err
	})
	return v, last.position, err
}
