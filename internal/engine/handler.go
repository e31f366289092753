package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// A handler that calls its own store with the context that it got is refused at once. With another context the call cannot be told from
// that of another caller, and may wait for the handler's own transaction: for the only connection that writes, for the batch of appends
// that the handler is part of, or for the handler's own checkpoint. So no call waits for a handler without a limit. After the limit it gets
// a [HeldError], and the handler that returns the error of its own transaction has called its own store.

// Handler is a function of the program, such as Handle, that is called in a transaction.
type Handler struct {
	Projection string // for errors
	Inline     bool   // whether appends wait for it

	// Report, if set, shows an error in Status and the log, while the transaction waits or goes on.
	Report func(err error)

	names    []string // of its projections
	overdue  *overdue
	returned bool // guarded by overdue.mu
}

// handler returns the handler of a transaction that calls functions of the program.
func (t *task[Tx]) handler(report func(err error)) *Handler {
	return &Handler{
		Projection: t.key.String(), Inline: t.kind == projection.KindInline, Report: report,
		names: []string{t.key.Name}, overdue: &t.engine.overdue,
	}
}

// transact runs a transaction that calls functions of the program.
func (t *task[Tx]) transact(ctx context.Context, o Options, work func(ctx context.Context, tx Tx) error) error {
	defer t.engine.overdue.remove(o.Handler)
	return o.Handler.verdict(t.engine.ledger.Transact(ctx, o, work))
}

// ErrCallsStore is the error of a handler that has waited for its own transaction.
var ErrCallsStore = fmt.Errorf("%w: Handle calls its own store, which waits for the transaction of Handle: use tx, or a reaction", es.ErrInvalid)

// ErrEndsTransaction is the error of a handler that has ended its transaction.
var ErrEndsTransaction = fmt.Errorf("%w: Handle ended the transaction, which only the store may end: return nil to commit it, or an error", es.ErrInvalid)

// HeldError reports that a handler has had its transaction for too long, so that no other caller waits for it any more.
type HeldError struct {
	by    *Handler
	limit time.Duration
}

// inHandle is in the text of a HeldError, by which Why knows it.
const inHandle = "has been in Handle for over"

func (e *HeldError) Error() string {
	return fmt.Sprintf("projection %s %s %v: it must be quick, and call tx in place of the store", e.by.Projection, inHandle, e.limit)
}

// Is reports whether the target is [es.ErrUnavailable].
func (e *HeldError) Is(target error) bool { return target == es.ErrUnavailable }

// IsHeld reports whether an error is a [HeldError].
func IsHeld(err error) bool {
	_, is := errors.AsType[*HeldError](err)
	return is
}

// verdict returns [ErrCallsStore] if the error of the handler says that it has waited for itself.
func (h *Handler) verdict(err error) error {
	if held, is := errors.AsType[*HeldError](err); is && held.by == h {
		return ErrCallsStore
	}
	return err
}

// Hold is the time in which a handler has its transaction.
type Hold struct {
	handler *Handler
	since   time.Time
	limit   time.Duration
}

// Hold notes that the handler has its transaction from now on. Others should wait for it for no longer than a limit.
func (h *Handler) Hold(limit time.Duration) *Hold { return &Hold{h, time.Now(), limit} }

// Left returns how long others should still wait. It is not positive if the limit is over.
func (h *Hold) Left() time.Duration { return h.limit - time.Since(h.since) }

// Overdue notes that the limit is over, and returns the error for those that wait.
func (h *Hold) Overdue() *HeldError {
	err := &HeldError{h.handler, h.limit}
	if h.handler.overdue.add(err) && h.handler.Report != nil {
		h.handler.Report(err)
	}
	return err
}

// overdue is the handlers of an engine that have had their transactions for too long.
type overdue struct {
	mu   sync.Mutex
	errs []*HeldError
}

// add notes that a handler is overdue, and reports whether that is new.
func (o *overdue) add(err *HeldError) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err.by.returned || slices.ContainsFunc(o.errs, func(e *HeldError) bool { return e.by == err.by }) {
		return false
	}
	o.errs = append(o.errs, err)
	return true
}

// remove notes that a handler has returned.
func (o *overdue) remove(h *Handler) {
	o.mu.Lock()
	defer o.mu.Unlock()
	h.returned = true
	o.errs = slices.DeleteFunc(o.errs, func(e *HeldError) bool { return e.by == h })
}

// of returns an error if a handler of the projection is overdue.
func (o *overdue) of(name string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.errs {
		if slices.Contains(e.by.names, name) {
			return e
		}
	}
	return nil
}
