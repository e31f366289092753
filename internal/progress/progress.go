// Package progress tells the reader of a log how far a store has read when a filter excludes many records. Only records that match are
// returned by [es.Log.All]. Without a mark, a reader that is interrupted between two of them reads everything in between again.
//
// A mark comes between the records, in order, so that it also passes through a store that wraps another.
package progress

import (
	"context"

	"github.com/thalo-go/es"
)

type wanted struct{}

// Want returns a context with which All of a store also returns marks.
func Want(ctx context.Context) context.Context { return context.WithValue(ctx, wanted{}, true) }

// Wanted reports whether the caller of All handles marks.
func Wanted(ctx context.Context) bool { return ctx.Value(wanted{}) != nil }

// Mark returns a mark: the filter excludes all records up to a position that were not returned before it.
func Mark(upTo es.Position) es.Record { return es.Record{Position: upTo} }

// IsMark reports whether what All returned is a mark. Every record has a stream.
func IsMark(r *es.Record) bool { return r.Stream.Kind == "" }
