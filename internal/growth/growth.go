// Package growth wakes the calls that wait until a log has grown.
package growth

import (
	"context"
	"fmt"
	"sync"

	"github.com/thalo-go/es"
)

// Seen is what a store has seen of its log.
type Seen struct {
	Head    es.Position // the last position
	Rewinds int         // the number of times that the log lost its end before
}

// Growth is the growth of a log as a store sees it. Appends of the store note it at once. For those of other processes, and for the loss of
// records, a goroutine watches the log while calls wait.
type Growth struct {
	watch func()
	ctx   context.Context
	close context.CancelFunc
	work  sync.WaitGroup

	mu       sync.Mutex
	seen     Seen
	err      error         // of the last look at the log
	grown    chan struct{} // closed to wake the waiters
	waiters  int
	watching bool
}

// New returns the growth of a log. While calls wait, watch runs in a goroutine. It notes what it sees, and returns when Leave tells it to or the
// context of Context ends. It is nil if only this store writes the log.
func New(watch func()) *Growth {
	g := &Growth{watch: watch, grown: make(chan struct{})}
	g.ctx, g.close = context.WithCancel(context.Background())
	return g
}

// Context returns a context that ends with Close.
func (g *Growth) Context() context.Context { return g.ctx }

// Close ends all calls of Wait with [es.ErrClosed], and returns when watch has.
func (g *Growth) Close() {
	g.mu.Lock()
	g.close() // under the lock, so that no goroutine is started afterwards
	g.mu.Unlock()
	g.work.Wait()
}

// Seen returns what was noted last.
func (g *Growth) Seen() Seen {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen
}

// Note notes what was seen of the log, or the error of looking at it, which all waiters get.
func (g *Growth) Note(s Seen, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.note(s, err)
}

// Grew is Note for a head of the log after as many rewinds as are known.
func (g *Growth) Grew(head es.Position, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.note(Seen{head, g.seen.Rewinds}, err)
}

func (g *Growth) note(s Seen, err error) {
	g.err = err
	switch {
	case err != nil:
	case s.Rewinds > g.seen.Rewinds:
		g.seen = s
	case s.Rewinds == g.seen.Rewinds && s.Head > g.seen.Head:
		g.seen.Head = s.Head
	default:
		return // nothing new, or of a history that was lost
	}
	g.wake()
}

// Rewound notes that the log has lost its end, and now ends at head. The waiters are woken, because the records they wait for may be lost.
func (g *Growth) Rewound(head es.Position) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if head < g.seen.Head {
		g.seen = Seen{head, g.seen.Rewinds + 1}
		g.wake()
	}
}

func (g *Growth) wake() {
	if g.waiters > 0 {
		close(g.grown)
		g.grown = make(chan struct{})
	}
}

// Wait waits until the log has grown beyond a position, which was its end after a number of rewinds, and returns its end. It returns
// [es.ErrRewound] if the log has lost its end since.
func (g *Growth) Wait(ctx context.Context, after es.Position, rewinds int) (es.Position, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiters++
	defer func() { g.waiters-- }()
	if g.watch != nil && !g.watching && g.ctx.Err() == nil {
		g.watching, g.err = true, nil
		g.work.Go(g.watch)
	}
	for {
		switch {
		case g.seen.Rewinds != rewinds:
			return 0, es.ErrRewound
		case g.seen.Head > after:
			return g.seen.Head, nil
		}
		grown := g.grown
		g.mu.Unlock()
		var err error
		select {
		case <-grown:
		case <-ctx.Done():
			err = ctx.Err()
		case <-g.ctx.Done():
			err = fmt.Errorf("store is %w", es.ErrClosed)
		}
		g.mu.Lock()
		if err == nil {
			err = g.err
		}
		if err != nil {
			return 0, err
		}
	}
}

// Leave reports whether calls wait. If none does and watch may return, it must: the next call of Wait starts it again.
func (g *Growth) Leave(may bool) (waiting, must bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	waiting = g.waiters > 0
	must = may && !waiting
	g.watching = !must
	return waiting, must
}
