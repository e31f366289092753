// Package batch tells a Repo about the transaction that a store has written its append in. A Repo asks only if it has a Tracer.
package batch

import (
	"context"
	"sync/atomic"
	"time"
)

// Info is about the transaction of one call of Store.Append. A store that shares no transactions leaves it as it is.
type Info struct {
	size   atomic.Int64 // a handler of the store may keep the context, and append elsewhere with it
	waited atomic.Int64
}

type key struct{}

// Ask returns a context for Store.Append, and where the store puts its answer.
func Ask(ctx context.Context) (context.Context, *Info) {
	i := new(Info)
	return context.WithValue(ctx, key{}, i), i
}

// Tell answers, if ctx asks: the number of appends in the transaction, and how long this call has waited for it to begin.
func Tell(ctx context.Context, size int, waited time.Duration) {
	if i, asked := ctx.Value(key{}).(*Info); asked {
		i.size.Store(int64(size))
		i.waited.Store(int64(waited))
	}
}

// Size returns the number of appends in the transaction, or 0 if the store has not answered.
func (i *Info) Size() int { return int(i.size.Load()) }

// Waited returns how long the call has waited for the transaction to begin.
func (i *Info) Waited() time.Duration { return time.Duration(i.waited.Load()) }
