package engine

import (
	"context"

	"github.com/thalo-go/es"
)

// runKey is the context key that tells what a run does itself from what the program's functions do within it.
type runKey struct{}

// asRun marks the context of a run.
func asRun(ctx context.Context) context.Context { return context.WithValue(ctx, runKey{}, true) }

// AsProgram marks the context of a function of the program, such as a handler, which may be within a run.
func AsProgram(ctx context.Context) context.Context {
	if !IsRun(ctx) {
		return ctx
	}
	return context.WithValue(ctx, runKey{}, false)
}

// IsRun reports whether a run of a projection or a reaction makes the call itself, and not a function of the program.
func IsRun(ctx context.Context) bool {
	is, _ := ctx.Value(runKey{}).(bool)
	return is
}

// asProgram marks the contexts that the functions of the program get, and adds remedies to the errors of Handle.
func (t *task[Tx]) asProgram() {
	if handle := t.handle; handle != nil {
		t.handle = func(ctx context.Context, tx Tx, records []es.Record) error {
			return t.remedied(handle(AsProgram(ctx), tx, records))
		}
	}
	if react := t.react; react != nil {
		t.react = func(ctx context.Context, r es.Record) error { return react(AsProgram(ctx), r) }
	}
	if prepare := t.prepare; prepare != nil {
		t.prepare = func(ctx context.Context, tx Tx) error { return prepare(AsProgram(ctx), tx) }
	}
	if onCaughtUp := t.onCaughtUp; onCaughtUp != nil {
		t.onCaughtUp = func(ctx context.Context) error { return onCaughtUp(AsProgram(ctx)) }
	}
}
