// Package step passes what a handler reacts to through its context, from the engine of reactions and from consumers to the option es.Step.
package step

import (
	"context"
	"sync"
)

// Handling is one call of a handler with a record.
type Handling struct {
	// By identifies the reaction or consumer and its run. It has no slash. If it is empty, the steps have the id of the record: the
	// reaction has a checkpoint from before there were identities.
	By string

	Record string            // its ID
	Meta   map[string]string // of the record
	Carry  []string          // the keys of Meta that commands take over

	mu    sync.Mutex
	steps map[string]string // by stream: the step that has the id of the record
}

type key struct{}

// With returns a context for a handler.
func With(ctx context.Context, h *Handling) context.Context { return context.WithValue(ctx, key{}, h) }

// From returns the handling that a context belongs to, or nil.
func From(ctx context.Context) *Handling {
	h, _ := ctx.Value(key{}).(*Handling)
	return h
}

// Command returns the id of the command of a step on a stream. It is not ok if another step on the stream has the same id.
func (h *Handling) Command(name, stream string) (id string, ok bool) {
	if h.By != "" {
		return h.By + "/" + name + "/" + h.Record, true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.steps == nil {
		h.steps = make(map[string]string)
	}
	first, found := h.steps[stream]
	if !found {
		h.steps[stream] = name
	}
	return h.Record, !found || first == name
}
