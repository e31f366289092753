package conformance

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/thalo-go/es"
)

var errStopped = errors.New("stopped by the program")

// blames runs a call with a context that has expired, and with one that was canceled with a cause, and checks that the error is that of the
// context.
func (t *trial) blames(name string, call func(ctx context.Context) error) {
	expired, cancel := context.WithDeadline(t.ctx, time.Now().Add(-time.Second))
	defer cancel()
	stopped, stop := context.WithCancelCause(t.ctx)
	stop(errStopped)
	t.blamed(expired, name, call(expired))
	t.blamed(stopped, name, call(stopped))
}

// blamed checks the error of a call whose context has ended.
func (t *trial) blamed(ctx context.Context, name string, err error) {
	for _, other := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, other) && !errors.Is(ctx.Err(), other) {
			t.Errorf("%s returned %v, which is %v, while its context ended with %v", name, err, other, ctx.Err())
		}
	}
	if !errors.Is(err, ctx.Err()) || !errors.Is(err, context.Cause(ctx)) {
		t.Errorf("%s returned %v: want an error that wraps %v, the cause of the end of its context", name, err, context.Cause(ctx))
	}
}

// appendBlames checks that appends and loads report the end of their own context while they share work with others.
func appendBlames(t *trial) {
	s := t.store()
	t.append(s, add(stream("a"), 3))
	t.blames("Append", func(ctx context.Context) error { return second(s.Append(ctx, add(stream("a"), 1))) })
	t.blames("Read", func(ctx context.Context) error { return second(drain(s.Read(ctx, stream("a"), 0))) })
	const callers, calls = 16, 60
	t.race(callers, func(i int) {
		for n := range calls {
			ctx, cancel := context.WithTimeout(t.ctx, rand.N(3*time.Millisecond))
			a := add(stream("a"), 1)
			a.Expected = es.AnyVersion
			_, err := s.Append(ctx, a)
			if i%4 == 0 && err == nil {
				_, err = drain(s.Read(ctx, stream("a"), es.Version(n)))
			}
			if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
				t.blamed(ctx, "a call that shares its work", err)
			} else if errors.Is(err, context.Canceled) {
				t.Errorf("a call whose context goes on returned %v", err)
			}
			cancel()
		}
	})
}
