package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
)

// A watcher tells those who wait in Changed when the log has grown. What this store writes it hears of at once. Other stores announce
// what they have written with NOTIFY, on another connection than the append's and after its commit, because a transaction that
// notifies takes a lock of the whole database when it commits. The watcher listens on a connection of its own while anybody waits.
// Announcements only wake: what is there is looked up. And they are not relied on: it looks from time to time all the same.
type watcher struct {
	store *Store

	mu       sync.Mutex
	head     es.Position   // the last that was seen
	rewinds  int           // how often it was found to have gone back
	err      error         // of the last look, if it failed
	grown    chan struct{} // closed when head changes, or a look fails
	waiters  int
	watching bool
	ctx      context.Context
	cancel   context.CancelFunc
	work     sync.WaitGroup
	lingers  time.Duration // how long the connection is kept when nobody waits

	announcing bool
	unsaid     bool // something was written since the last announcement began
}

const (
	announceEvery = 5 * time.Millisecond // at most; what is written in between shares one
	unheardEvery  = 10 * announceEvery   // the same while nobody listens: whoever begins to looks for himself first
	lookEvery     = time.Second          // where announcements arrive
	lookLimit     = 5 * time.Second      // how long a look may take before the connection is taken for dead
	lingers       = 5 * time.Second
)

func (w *watcher) init(s *Store) {
	w.store = s
	w.grown = make(chan struct{})
	w.lingers = lingers
	w.ctx, w.cancel = context.WithCancel(context.Background())
}

func (w *watcher) close() {
	w.mu.Lock()
	w.cancel() // under the lock, so that nothing is begun afterwards
	w.mu.Unlock()
	w.work.Wait()
}

// wrote notes that this store has written up to a position, and announces it.
func (w *watcher) wrote(head es.Position) {
	w.note(head, nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unsaid = true
	if !w.announcing && w.ctx.Err() == nil {
		w.announcing = true
		w.work.Add(1)
		go w.announce()
	}
}

// announce tells other stores, until there is nothing more to tell. One that fails is not missed: they look for themselves.
func (w *watcher) announce() {
	defer w.work.Done()
	for {
		w.mu.Lock()
		if !w.unsaid || w.ctx.Err() != nil {
			w.announcing = false
			w.mu.Unlock()
			return
		}
		w.unsaid = false
		w.mu.Unlock()
		ctx, cancel := context.WithTimeout(w.ctx, lookEvery)
		pause := announceEvery
		if heard, err := w.store.tell(ctx); err == nil && !heard {
			pause = unheardEvery
		}
		cancel()
		select {
		case <-time.After(pause):
		case <-w.ctx.Done():
		}
	}
}

// tell announces, and reports whether anybody listens: who does shares a lock. Nothing is announced to nobody.
func (s *Store) tell(ctx context.Context) (heard bool, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	err = s.each(ctx, conn.Conn(), s.statements.announce, [][]byte{[]byte(s.channel)}, func([][]byte) error {
		heard = true
		return nil
	})
	return heard, err
}

func (w *watcher) note(head es.Position, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	if head > w.head || err != nil {
		w.head = max(head, w.head)
		w.wake()
	}
}

// Changed implements [es.Log]. It hears of this store's appends at once and of other processes' within milliseconds: by LISTEN where that
// works, and by looking every [Config.PollInterval] where it does not. While anybody waits this costs one connection and one look a second,
// or no connection and a look every PollInterval; each is an access to the end of an index, about 0.1 ms of one CPU of the server.
func (s *Store) Changed(ctx context.Context, after es.Position) (es.Position, error) {
	for {
		seen := s.watcher.seen()
		head, err := s.head(ctx)
		switch {
		case err != nil:
			return 0, within(ctx, "head of the log", err)
		case head > after:
			return head, nil
		case head < after:
			return 0, fmt.Errorf("postgres: %w", &es.AheadError{After: after, Head: head})
		case head < seen.head:
			s.watcher.rewound(head)
			continue
		}
		head, err = s.watcher.wait(ctx, after, seen)
		if !errors.Is(err, es.ErrRewound) { // or else it is looked up which history this is
			return head, within(ctx, "wait for records", err)
		}
	}
}

func (s *Store) head(ctx context.Context) (head es.Position, err error) {
	err = s.once(ctx, s.each, s.statements.head, nil, func(row [][]byte) error {
		head = es.Position(getInt8(row[0]))
		return nil
	})
	s.grown(head)
	return head, err
}

// A sight is what a watcher has seen of the log.
type sight struct {
	head    es.Position
	rewinds int
}

func (w *watcher) seen() sight {
	w.mu.Lock()
	defer w.mu.Unlock()
	return sight{w.head, w.rewinds}
}

// rewound notes that the database has lost its end, and wakes all who wait: what they wait for may be of a history that is no more.
func (w *watcher) rewound(head es.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if head < w.head {
		w.rewinds++
		w.head = head
		w.wake()
	}
}

func (w *watcher) wake() {
	if w.waiters > 0 {
		close(w.grown)
		w.grown = make(chan struct{})
	}
}

// wait waits until the log has grown beyond a position, which was its end after seen was. The error is es.ErrRewound if it has lost its end since.
func (w *watcher) wait(ctx context.Context, after es.Position, seen sight) (es.Position, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiters++
	defer func() { w.waiters-- }()
	if !w.watching {
		if w.ctx.Err() != nil {
			return 0, fmt.Errorf("store is %w", es.ErrClosed)
		}
		w.watching = true
		w.err = nil
		w.work.Add(1)
		go w.run()
	}
	for {
		switch {
		case w.rewinds != seen.rewinds:
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
		case <-w.ctx.Done():
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

// run looks for what others have written until nobody has waited for a while. It listens if it can.
func (w *watcher) run() {
	defer w.work.Done()
	heard := make(chan struct{}, 1)
	listening := make(chan bool, 1) // whether announcements arrive, each time that changes
	ctx, cancel := context.WithCancel(w.ctx)
	var listener sync.WaitGroup
	listener.Go(func() { w.store.listen(ctx, heard, listening) })
	defer listener.Wait()
	defer cancel()

	every := w.store.config.PollInterval
	timer := time.NewTimer(0)
	defer timer.Stop()
	for idle := time.Now(); ; {
		select {
		case <-timer.C:
		case <-heard:
		case arrives := <-listening:
			every = w.store.config.PollInterval
			if arrives {
				every = lookEvery
			}
		case <-w.ctx.Done():
			return
		}
		w.mu.Lock()
		if w.waiters > 0 {
			idle = time.Now()
		} else if time.Since(idle) > w.lingers {
			w.watching = false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		w.look()
		timer.Reset(every)
	}
}

// look looks up the head of the log for those who wait. A server that is away for a while is not their concern: they wait anyway.
func (w *watcher) look() {
	seen := w.seen()
	ctx, cancel := context.WithTimeout(w.ctx, lookLimit)
	defer cancel()
	switch head, err := w.store.head(ctx); {
	case classify(err).unreachable() || w.ctx.Err() != nil:
	case err == nil && head < seen.head:
		w.rewound(head)
	default:
		w.note(head, err)
	}
}

// listen listens for announcements on a connection of its own until the context ends, and tells whether they arrive.
func (s *Store) listen(ctx context.Context, heard chan<- struct{}, listening chan bool) {
	say := func(arrives bool) {
		select {
		case <-listening:
		default:
		}
		listening <- arrives
	}
	for ctx.Err() == nil {
		err := s.listenOnce(ctx, heard, func() { say(true) })
		say(false)
		wait := time.Second
		if errors.Is(err, errMute) {
			wait = time.Minute // a pooler in between: announcements do not arrive, and will not soon
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

var errMute = errors.New("announcements do not arrive")

// listenOnce listens until the connection breaks, and not at all through a pooler in transaction mode, where LISTEN succeeds, nothing
// ever arrives, and a connection that others share is left listening. A connection by way of a pooler has not the process id of the
// server's session; should it be lent for good nevertheless, the store looks instead of listening, which is slower and as right.
func (s *Store) listenOnce(ctx context.Context, heard chan<- struct{}, arrives func()) error {
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var pid uint32
	if err := conn.QueryRow(ctx, "select pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&pid); err != nil {
		return err
	}
	if pid != conn.PgConn().PID() {
		return errMute
	}
	trial, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := conn.Exec(trial, s.sql("select pg_advisory_lock_shared({listeners})"), pgx.QueryExecModeSimpleProtocol); err != nil {
		return err // it is held by who asks whether anybody has it, for no longer than he asks
	}
	if _, err := conn.Exec(ctx, "listen "+pgx.Identifier{s.channel}.Sanitize()); err != nil {
		return err
	}
	if _, err := s.tell(ctx); err != nil {
		return err
	}
	if _, err := conn.WaitForNotification(trial); err != nil {
		if trial.Err() != nil {
			return errMute
		}
		return err
	}
	arrives()
	for {
		select {
		case heard <- struct{}{}:
		default:
		}
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}
