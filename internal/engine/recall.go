package engine

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"github.com/thalo-go/es"
)

// Limits of reading records again.
const (
	closeBy     = 32      // records at most so far apart are read together
	recallBytes = 8 << 20 // in one batch of timers
)

// recall reads the records of timers again.
type recall struct {
	timers  []Timer
	order   []int       // of the timers, by position
	records []es.Record // of each timer; zero if it has not been found
}

func (r *recall) begin(timers []Timer) {
	r.timers, r.records, r.order = timers, make([]es.Record, len(timers)), make([]int, len(timers))
	for i := range r.order {
		r.order[i] = i
	}
	slices.SortFunc(r.order, func(a, b int) int { return cmp.Compare(timers[a].Position, timers[b].Position) })
}

// positions returns those of the timers, in order.
func (r *recall) positions() []es.Position {
	list := make([]es.Position, len(r.order))
	for i, n := range r.order {
		list[i] = r.timers[n].Position
	}
	return list
}

// read takes what the timers need of records in order. The records do not fit if they have too many bytes.
func (r *recall) read(records iter.Seq2[es.Record, error]) (fit bool, err error) {
	bytes, left := 0, r.order
	for record, err := range records {
		if err != nil {
			return false, err
		}
		for len(left) > 0 && r.timers[left[0]].Position <= record.Position {
			if t := r.timers[left[0]]; t.Position == record.Position && t.Stream == record.Stream && t.Version == record.Version {
				r.records[left[0]] = record
				bytes += len(record.Data)
			}
			left = left[1:]
		}
		if bytes > recallBytes && len(r.timers) > 1 {
			return false, nil
		}
	}
	return true, nil
}

// from returns the records of the timers, and some between them, from a log.
func (r *recall) from(ctx context.Context, log es.Log) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		for left := r.order; len(left) > 0; {
			n := 1
			for n < len(left) && r.timers[left[n]].Position-r.timers[left[n-1]].Position <= closeBy {
				n++
			}
			first, last := r.timers[left[0]], r.timers[left[n-1]]
			left = left[n:]
			seq := log.All(ctx, first.Position-1, es.Filter{})
			if n == 1 {
				seq = log.Read(ctx, first.Stream, first.Version-1)
			}
			for record, err := range seq {
				if !yield(record, err) || err != nil {
					return
				}
				if n == 1 || record.Position >= last.Position {
					break
				}
			}
		}
	}
}

// RecallFrom implements Recall of [Store] for a log that reads any place as fast as the next.
func RecallFrom(ctx context.Context, log es.Log, positions []es.Position) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		for _, p := range positions {
			for record, err := range log.All(ctx, p-1, es.Filter{}) {
				if (err != nil || record.Position == p) && !yield(record, err) || err != nil {
					return
				}
				break
			}
		}
	}
}
