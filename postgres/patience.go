package postgres

import (
	"log/slog"
	"sync"
	"time"
)

// patience logs that the store waits for the server while its caller may have no deadline: soon after the beginning, and then less and less
// often.
type patience struct {
	log   *slog.Logger
	since time.Time

	mu     sync.Mutex
	what   string // is waited for
	err    error  // of the last attempt; nil if there was none
	pause  time.Duration
	logged bool
	timer  *time.Timer // nil once the wait is over
}

const forConnection = "connection"

const (
	firstWaitLogged = time.Second
	waitLoggedEvery = time.Minute // at most
)

// wait begins a wait for something. It must be ended by done.
func (s *Store) wait(what string) *patience {
	p := &patience{log: s.config.Logger.With("schema", s.config.Schema), since: time.Now(), what: what, pause: firstWaitLogged}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(p.pause, p.say)
	return p
}

func (p *patience) say() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil {
		return
	}
	attrs := []any{"what", p.what, "for", time.Since(p.since).Round(100 * time.Millisecond)}
	if p.err != nil {
		attrs = append(attrs, "err", p.err)
	}
	p.log.Warn("waiting for the server", attrs...)
	p.logged = true
	p.pause = min(2*p.pause, waitLoggedEvery)
	p.timer.Reset(p.pause)
}

// failed notes the error of an attempt that is followed by another one.
func (p *patience) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// at notes what is waited for from now on.
func (p *patience) at(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what, p.err = what, nil
}

// done ends the wait.
func (p *patience) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer.Stop()
	p.timer = nil
	if p.logged {
		p.log.Info("no longer waiting for the server", "what", p.what, "after", time.Since(p.since).Round(100*time.Millisecond))
	}
}
