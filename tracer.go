package es

import (
	"context"
	"errors"
	"time"

	"github.com/thalo-go/es/internal/batch"
)

// Tracer observes the commands of a [Repo] or [Decisions]. Package otel has one. It is not for users to implement: it may gain methods.
//
// Its methods are called in the goroutine of Execute, once each for a command. Their panics are panics of Execute. In a [Transact] they are
// called for each command of each run of its function: a run that is repeated after a conflict ends with the conflict.
type Tracer interface {
	// StartCommand is called before a command begins. The context that it returns is the one that [Config.Meta] and the store get.
	// It must be ctx or made of it. The stream is not checked yet.
	StartCommand(ctx context.Context, stream Stream) context.Context

	// EndCommand is called with that context when the command has ended, also by a panic.
	EndCommand(ctx context.Context, done CommandTrace)
}

// CommandTrace is what a [Tracer] learns about a command that has ended. If the caller gave up before the command had an outcome, only Err is set.
type CommandTrace struct {
	Events    int           // written by the command, or by its first time if Repeated
	Attempts  int           // to write it, or to refuse it; 0 if it was never decided
	BatchSize int           // commands in the transaction, its own included; 0 if nothing was sent
	Queued    time.Duration // spent waiting for earlier commands on the same aggregate
	Waited    time.Duration // spent waiting for the transaction, in the last attempt
	Repeated  bool          // the command had taken effect before
	Err       error         // what Execute returns or panics with; nil after success
}

// errAborted is what a Tracer gets for a command that has no outcome.
var errAborted = errors.New("a function of the program panicked or called runtime.Goexit")

// tracedCall is what a round records about a call for a Tracer.
type tracedCall struct {
	attempts int
	size     int
	queued   time.Duration
	waited   time.Duration
	returned bool // the round is done with the call; set by its caller
}

// trace runs a command for a Tracer.
func (k *core[S, C, E]) trace(c *call[S, C, E]) (result Result[S, E], err error) {
	ctx := k.tracer.StartCommand(c.ctx, c.on.stream)
	c.ctx, c.traced = ctx, new(tracedCall)
	done := false
	defer func() {
		t := CommandTrace{Err: err}
		if s := c.traced; s.returned { // otherwise another goroutine may still work on the call
			t.Events, t.Repeated = len(result.Events), result.Repeated
			t.Attempts, t.BatchSize, t.Queued, t.Waited = s.attempts, s.size, s.queued, s.waited
			if c.panicked != nil {
				t.Err = c.panicked
			}
		}
		if !done && t.Err == nil {
			t.Err = errAborted
		}
		k.tracer.EndCommand(ctx, t)
	}()
	result, err = k.command(c)
	done = true
	return result, err
}

// queued records how long the calls of a round have waited for it.
func (r *round[S, C, E]) queued() {
	for _, c := range r.Calls {
		if c.Done() == nil {
			continue // it leads
		}
		c.traced.queued = r.core.clock() - c.began
	}
}

// observed records the attempt to append a plan.
func (p *plan[S, C, E]) observed(info *batch.Info) {
	for _, c := range p.calls {
		c.traced.attempts++
	}
	for _, c := range p.sent {
		c.traced.size, c.traced.waited = max(info.Size(), len(p.sent)), info.Waited()
	}
}
