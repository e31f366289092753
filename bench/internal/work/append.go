// Package work has the operations of both sides of a comparison. Both use the same streams and the same bytes.
package work

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
)

// An Append appends events to a stream after a version.
type Append func(ctx context.Context, stream es.Stream, after es.Version, events []es.Record) error

// To returns the Append of a store.
func To(store es.Store) Append {
	return func(ctx context.Context, stream es.Stream, after es.Version, events []es.Record) error {
		_, err := store.Append(ctx, es.Append{Stream: stream, Expected: after, Events: events})
		return err
	}
}

// A Writer appends ten times to each of its streams, because most streams of most programs are short. The ids are scattered like random
// ones, so that new streams are at scattered places of the index.
type Writer struct {
	number, streams uint64
	stream          es.Stream
	appends         int
	version         es.Version
}

// NewWriters returns n writers that share no stream. Each call returns writers with the same streams.
func NewWriters(n int) []*Writer {
	writers := make([]*Writer, n)
	for i := range writers {
		writers[i] = &Writer{number: uint64(i)}
	}
	return writers
}

// Next returns the stream for the next append, and the version after which to append.
func (w *Writer) Next(events int) (stream es.Stream, after es.Version) {
	if w.appends%10 == 0 {
		w.streams++
		w.stream = es.Stream{Kind: "account", ID: scatter(w.number<<32 | w.streams)}
		w.version = 0
	}
	w.appends++
	after = w.version
	w.version += es.Version(events)
	return w.stream, after
}

// scatter returns a unique id for each number. Multiplication by an odd number is a permutation of the 64-bit numbers.
func scatter(n uint64) string { return fmt.Sprintf("%016x", n*0x9e3779b97f4a7c15) }

// Events returns n events whose data is JSON of the given number of bytes.
func Events(n, bytes int) []es.Record {
	const frame = len(`{"note":""}`)
	random := rand.New(rand.NewPCG(1, 2))
	events := make([]es.Record, n)
	for i := range events {
		var note strings.Builder
		for note.Len() < bytes-frame {
			note.WriteByte(byte('a' + random.IntN(26)))
		}
		events[i] = es.Record{Type: "deposited", Data: []byte(`{"note":"` + note.String() + `"}`)}
	}
	return events
}

// Appends returns callers that append batches of events, each to its own streams.
func Appends(name string, to Append, callers, batch, bytes int) measure.Side {
	writers := NewWriters(callers)
	events := Events(batch, bytes)
	return measure.Side{Name: name, Callers: callers, Units: batch, Op: func(ctx context.Context, caller int) error {
		stream, after := writers[caller].Next(batch)
		return to(ctx, stream, after, events)
	}}
}

// Fill appends records to streams of 100 events each. For speed, it appends from many goroutines, which share commits.
func Fill(ctx context.Context, to Append, records, bytes int) error {
	const per = 100
	events := Events(per, bytes)
	var next atomic.Int64
	side := measure.Side{Name: "fill", Callers: 64, Op: func(ctx context.Context, _ int) error {
		n := int(next.Add(1)) - 1
		return to(ctx, es.Stream{Kind: "account", ID: scatter(uint64(n))}, 0, events[:min(per, records-n*per)])
	}}
	_, err := side.Times(ctx, (records+per-1)/per)
	return err
}

// InBulk returns an Append that inserts rows with a function. It is for filling a baseline.
func InBulk(insert func([]baseline.Row) error) Append {
	return func(_ context.Context, stream es.Stream, after es.Version, events []es.Record) error {
		rows := make([]baseline.Row, len(events))
		for i := range events {
			rows[i] = baseline.Row{Stream: stream, Version: after + es.Version(i) + 1, Event: &events[i]}
		}
		return insert(rows)
	}
}

// Scans returns one caller that reads a whole log repeatedly.
func Scans(name string, records int, scan func(ctx context.Context, see func(es.Record)) error) measure.Side {
	return measure.Side{Name: name, Callers: 1, Units: records, Op: func(ctx context.Context, _ int) error {
		last := es.Position(0)
		bytes := 0
		if err := scan(ctx, func(r es.Record) { last = r.Position; bytes += len(r.Data) }); err != nil {
			return err
		}
		if last != es.Position(records) || bytes == 0 {
			return fmt.Errorf("%s: the read ended at position %d with %d bytes, want position %d", name, last, bytes, records)
		}
		return nil
	}}
}

// Inserts returns one caller that inserts the rows that the writers would append in turn, many at a time.
func Inserts(name string, insert func([]baseline.Row) error, writers, rows, bytes int) measure.Side {
	w := NewWriters(writers)
	events := Events(1, bytes)
	next := 0
	batch := make([]baseline.Row, rows)
	return measure.Side{Name: name, Callers: 1, Units: rows, Op: func(context.Context, int) error {
		for i := range batch {
			stream, after := w[next%writers].Next(1)
			next++
			batch[i] = baseline.Row{Stream: stream, Version: after + 1, Event: &events[0]}
		}
		return insert(batch)
	}}
}
