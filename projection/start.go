package projection

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/thalo-go/es"
)

// Start says where in a log to begin: at the [Beginning], at the [Head], [After] a position or [Since] a time. The zero value is invalid.
type Start struct {
	kind  startKind
	after es.Position
	since time.Time
}

type startKind int

const (
	startAfter startKind = iota + 1
	startHead
	startSince
)

// Beginning returns the Start before the first record.
func Beginning() Start { return After(0) }

// Head returns the Start at the end of the log, which is looked up by the call that gets it.
func Head() Start { return Start{kind: startHead} }

// After returns the Start just after position p.
func After(p es.Position) Start { return Start{kind: startAfter, after: p} }

// Since returns the Start before the first record whose time is t or later.
func Since(t time.Time) Start { return Start{kind: startSince, since: t} }

// Known returns the position after which s begins, if that is known without the log: for [Beginning] and [After].
func (s Start) Known() (es.Position, bool) { return s.after, s.kind == startAfter }

// In returns the position of a log after which s begins. The error wraps [es.ErrInvalid] if s is its zero value or beyond the end of the
// log.
func (s Start) In(ctx context.Context, log es.Log) (es.Position, error) {
	head, err := es.Head(ctx, log)
	switch {
	case err != nil:
		return 0, err
	case s.kind == startHead:
		return head, nil
	case s.kind == startSince:
		return s.search(ctx, log, head)
	case s.kind != startAfter:
		return 0, fmt.Errorf("es: %w: no place to start from: give Beginning, Head, After or Since", es.ErrInvalid)
	case s.after < 0 || s.after > head:
		return 0, fmt.Errorf("es: %w: cannot start after position %d: the log has 1 to %d", es.ErrInvalid, s.after, head)
	}
	return s.after, nil
}

// search finds the position before the first record since a time. Times do not decrease along positions.
func (s Start) search(ctx context.Context, log es.Log, head es.Position) (es.Position, error) {
	var failed error
	n := sort.Search(int(head), func(i int) bool {
		for r, err := range log.All(ctx, es.Position(i), es.Filter{}) {
			if err != nil {
				failed = err
			}
			return err != nil || !r.Time.Before(s.since)
		}
		return true // the log has lost its end
	})
	return es.Position(n), failed
}
