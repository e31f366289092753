package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/growth"
)

// A watcher wakes the waiting calls of Changed when the log has grown. It notices this store's appends at once. Other stores send NOTIFY
// after their appends. They send it on another connection, after the commit, because a transaction that notifies takes a lock of the whole
// database when it commits. While calls wait, the watcher listens on a connection of its own.
//
// A notification only triggers a look at the log's end. The watcher also polls, in case a notification is lost.
type watcher struct {
	store   *Store
	growth  *growth.Growth
	lingers time.Duration // how long the connection is kept without waiters

	mu        sync.Mutex
	notifying bool
	pending   bool // the log has grown since the last notification
	work      sync.WaitGroup
}

const (
	notifyInterval  = 5 * time.Millisecond // between notifications; appends in between share one
	unheardInterval = 10 * notifyInterval  // without listeners; a new listener polls first
	lookEvery       = time.Second          // the interval of polling where notifications arrive
	lookLimit       = 5 * time.Second      // the longest poll; then the connection is considered dead
	lingers         = 5 * time.Second
)

func (w *watcher) init(s *Store) {
	w.store, w.lingers = s, lingers
	w.growth = growth.New(w.run)
}

func (w *watcher) close() {
	w.growth.Close()
	w.mu.Lock()   // no goroutine is started afterwards
	w.mu.Unlock() //nolint:staticcheck // see above
	w.work.Wait()
}

// wrote notes that this store has written up to a position, and notifies other stores.
func (w *watcher) wrote(head es.Position) {
	w.growth.Grew(head, nil)
	w.announce()
}

// served notes that another process has written for this store up to a position. That process notifies other stores. If it ends before it does,
// they notice when they poll.
func (w *watcher) served(head es.Position) { w.growth.Grew(head, nil) }

// announce notifies other stores.
func (w *watcher) announce() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = true
	if !w.notifying && w.growth.Context().Err() == nil {
		w.notifying = true
		w.work.Go(w.notify)
	}
}

// notify notifies other stores until none of this store's appends is pending. A failure is ignored, because they also poll.
func (w *watcher) notify() {
	closing := w.growth.Context()
	for {
		w.mu.Lock()
		if !w.pending || closing.Err() != nil {
			w.notifying = false
			w.mu.Unlock()
			return
		}
		w.pending = false
		w.mu.Unlock()
		ctx, cancel := context.WithTimeout(closing, lookEvery)
		pause := notifyInterval
		if listeners, err := w.store.notify(ctx); err == nil && !listeners {
			pause = unheardInterval
		}
		cancel()
		select {
		case <-time.After(pause):
		case <-closing.Done():
		}
	}
}

// notify sends NOTIFY and reports whether there are listeners. Listeners hold a shared advisory lock; with none, nothing is sent.
func (s *Store) notify(ctx context.Context) (listeners bool, err error) {
	conn, err := s.borrow(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	err = s.each(ctx, conn.Conn(), s.statements.notify, [][]byte{[]byte(s.channel)}, func([][]byte) error {
		listeners = true
		return nil
	})
	return listeners, err
}

// Changed implements [es.Log]. It returns at once for this store's appends, and within milliseconds for those of other processes: by LISTEN
// where that works, and otherwise by polling every [Config.PollInterval].
//
// While calls wait, the store uses one connection and polls once a second; without LISTEN, it polls every PollInterval and uses no
// connection in between. A poll reads the end of an index, which takes about 0.1 ms of one CPU of the server.
func (s *Store) Changed(ctx context.Context, after es.Position) (es.Position, error) {
	for {
		seen := s.watcher.growth.Seen()
		head, err := s.head(ctx)
		switch {
		case err != nil:
			return 0, within(ctx, "head of the log", err)
		case head > after:
			return head, nil
		case head < after:
			return 0, fmt.Errorf("postgres: %w", &es.AheadError{After: after, Head: head})
		case head < seen.Head:
			s.watcher.growth.Rewound(head)
			continue
		}
		head, err = s.watcher.growth.Wait(ctx, after, seen.Rewinds)
		if !errors.Is(err, es.ErrRewound) { // a rewound log is looked at again
			return head, within(ctx, "wait for records", err)
		}
	}
}

// head returns the last position of the log.
func (s *Store) head(ctx context.Context) (head es.Position, err error) {
	err = s.once(ctx, s.each, s.statements.head, nil, func(row [][]byte) error {
		head = es.Position(getInt8(row[0]))
		return nil
	})
	s.grown(head)
	return head, err
}

// run polls and, if possible, listens, until no call has waited for a while.
func (w *watcher) run() {
	closing := w.growth.Context()
	notified := make(chan struct{}, 1)
	listening := make(chan bool, 1) // whether notifications arrive, each time that changes
	ctx, cancel := context.WithCancel(closing)
	var listener sync.WaitGroup
	listener.Go(func() { w.store.listen(ctx, notified, listening) })
	defer listener.Wait()
	defer cancel()

	every := w.store.config.pollAfter
	timer := time.NewTimer(0)
	defer timer.Stop()
	grown, head := time.Now(), es.Position(0)
	for idle := time.Now(); ; {
		select {
		case <-timer.C:
		case <-notified:
		case arrives := <-listening:
			every = w.store.config.pollAfter
			if arrives {
				every = func(time.Duration) time.Duration { return lookEvery }
			}
		case <-closing.Done():
			return
		}
		waiting, must := w.growth.Leave(time.Since(idle) > w.lingers)
		if must {
			return
		}
		if waiting {
			idle = time.Now()
		}
		w.look()
		if now := w.growth.Seen().Head; now != head {
			grown, head = time.Now(), now
		}
		timer.Reset(every(time.Since(grown)))
	}
}

// pollAfter returns when to poll again, after the log has not grown for a while: up to a tenth of that time later, so that an idle log
// costs little.
func (c Config) pollAfter(quiet time.Duration) time.Duration {
	return min(max(c.PollInterval, quiet/10), max(c.PollInterval, min(10*c.PollInterval, lookEvery)))
}

// look polls the end of the log. The waiters continue to wait while the server is not available.
func (w *watcher) look() {
	seen, closing := w.growth.Seen(), w.growth.Context()
	ctx, cancel := context.WithTimeout(closing, lookLimit)
	defer cancel()
	switch head, err := w.store.head(ctx); {
	case classify(err).unreachable() || closing.Err() != nil:
	case err == nil && head < seen.Head:
		w.growth.Rewound(head)
	default:
		w.growth.Grew(head, err)
	}
}

// listen listens on a connection of its own until the context ends, and reports on a channel whether notifications arrive.
func (s *Store) listen(ctx context.Context, notified chan<- struct{}, listening chan bool) {
	report := func(arrives bool) {
		select {
		case <-listening:
		default:
		}
		listening <- arrives
	}
	said := ""
	for wait := firstRetry; ctx.Err() == nil; {
		err := s.listenOnce(ctx, notified, func() {
			report(true)
			wait, said = firstRetry, ""
		})
		report(false)
		if errors.Is(err, errMute) {
			wait = lastRetry
		}
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			s.config.Logger.Info("notifications do not arrive, so the store polls", "schema", s.config.Schema, "err", err)
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, lastRetry)
		case <-ctx.Done():
		}
	}
}

// Of a connection that listens.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// errMute is wrapped by the errors of connections on which LISTEN cannot work.
var errMute = errors.New("LISTEN does not work")

// listenOnce listens until the connection breaks. The pool makes the connection, by its own means of authentication and with its hooks,
// and gives it up. A standby refuses LISTEN. A pooler in transaction mode does not, but nothing would arrive, and a shared
// connection would be left listening. Through a pooler, the process id in the protocol differs from that of the server's session. In
// session mode listening would work, but polling does too.
func (s *Store) listenOnce(ctx context.Context, notified chan<- struct{}, arrives func()) error {
	lent, err := s.borrow(ctx)
	if err != nil {
		return err
	}
	conn := lent.Hijack()
	defer conn.Close(context.WithoutCancel(ctx))
	if conn.PgConn().ParameterStatus("in_hot_standby") == "on" {
		return fmt.Errorf("%w on a standby", errMute)
	}
	var pid uint32
	if err := conn.QueryRow(ctx, s.text("select pg_backend_pid()"), pgx.QueryExecModeSimpleProtocol).Scan(&pid); err != nil {
		return err
	}
	if pid != conn.PgConn().PID() {
		return fmt.Errorf("%w through a pooler", errMute)
	}
	trial, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := conn.Exec(trial, s.text("select pg_advisory_lock_shared({listeners})"), pgx.QueryExecModeSimpleProtocol); err != nil {
		return err // the exclusive lock is held only briefly, by notify
	}
	if _, err := conn.Exec(ctx, "listen "+pgx.Identifier{s.channel}.Sanitize()); err != nil {
		return err
	}
	if _, err := s.notify(ctx); err != nil {
		return err
	}
	if _, err := conn.WaitForNotification(trial); err != nil {
		if trial.Err() != nil {
			return fmt.Errorf("%w: nothing arrived within 2 s", errMute)
		}
		return err
	}
	arrives()
	for {
		select {
		case notified <- struct{}{}:
		default:
		}
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}
