package es

import (
	"context"
	"iter"
)

// Follow is an endless [Log.All]: it returns the records after a position, waits for new ones, and ends only with an error,
// as a rule the context's. It holds nothing while the loop body runs, so a slow reader delays nobody.
//
// A position beyond the end of the log makes a [*AheadError].
func Follow(ctx context.Context, log Log, after Position, filter Filter) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for after := max(after, 0); ; {
			// The head comes first: what the filter hides up to there need not be looked at again.
			head, err := log.Changed(ctx, after)
			if err != nil {
				yield(Record{}, err)
				return
			}
			for r, err := range log.All(ctx, after, filter) {
				if !yield(r, err) || err != nil {
					return
				}
				after = r.Position
			}
			after = max(after, head)
		}
	}
}
