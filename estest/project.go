package estest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/part"
	"github.com/thalo-go/es/projection"
)

// Records encodes events as the records of a stream, such as "account/ann", for [Project]. Their versions begin at 1. Their times are one second
// apart and begin with the year 2000. Change them if a read model shows other times, or metadata.
func Records[E any](t testing.TB, codec *es.Codec[E], stream string, events []E) []es.Record {
	t.Helper()
	of, err := es.ParseStream(stream)
	if err != nil {
		t.Errorf("estest: %v", err)
		return nil
	}
	records := make([]es.Record, len(events))
	for i, event := range events {
		r, err := codec.Encode(event)
		if err != nil {
			t.Errorf("estest: event %d of %s: %v", i+1, stream, err)
			return nil
		}
		r.Stream = of
		r.Version = es.Version(i + 1)
		r.Time = time.Date(2000, 1, 1, 0, 0, i, 0, time.UTC)
		records[i] = r
	}
	return records
}

// Project applies records to a read model in a store, and returns when all are applied. The test fails at an error of the handler, which is
// neither retried nor parked. So a test of a read model on a real transaction is one call and a query:
//
//	store, _ := sqlite.Open(":memory:")
//	estest.Project(t, store, balances, estest.Records(t, account.Codec, "account/ann", []account.Event{account.Opened{Owner: "Ann"}}))
//
// The records take the place of the log and of p.Source. They get positions in their order. A further call for the same projection goes on
// with its records after those of the call before, as a program does that is started again.
func Project[Tx any](t testing.TB, store projection.Projections[Tx], p projection.Projection[Tx], records []es.Record) {
	t.Helper()
	after, err := cursor(t.Context(), store, p.Name, p.Version)
	if err != nil {
		t.Errorf("estest: %v", err)
		return
	}
	given := slices.Clone(records)
	for i := range given {
		given[i].Position = es.Position(after) + es.Position(i+1)
	}
	p.Source = &givenRecords{given, after + projection.Cursor(len(given))}
	p.Once, p.OnError, p.Retries = true, es.Stop, -1
	if err := store.Project(t.Context(), p); err != nil {
		t.Errorf("estest: %v", err)
	}
}

// cursor returns where the next record of a projection goes.
func cursor(ctx context.Context, store projection.Admin, name string, version int) (after projection.Cursor, err error) {
	all, err := store.Status(ctx)
	for _, s := range all {
		if s.Name == name && s.Version == version {
			after = max(after, s.Cursor)
		}
	}
	return after, err
}

// givenRecords is a source of records that a test gives.
type givenRecords struct {
	records []es.Record
	end     projection.Cursor
}

// ID implements [projection.Source]. It is the same for all tests, because a second call goes on after the first.
func (*givenRecords) ID() string { return "estest" }

// Shards implements [projection.Source].
func (*givenRecords) Shards(_ context.Context, partitions int) ([]string, error) {
	return part.Names(partitions), nil
}

// Feed implements [projection.Source].
func (g *givenRecords) Feed(_ context.Context, shard string, after projection.Cursor, filter es.Filter) (projection.Feed, error) {
	p, err := part.Parse(shard)
	if err != nil {
		return nil, err
	}
	f := &givenFeed{end: g.end, first: true}
	for _, r := range g.records {
		if projection.Cursor(r.Position) > after && part.Of(r.Stream.String(), p.Of) == p && filter.Match(r) {
			f.left = append(f.left, r)
		}
	}
	return f, nil
}

// givenFeed reads one shard.
type givenFeed struct {
	left  []es.Record
	end   projection.Cursor
	first bool // nothing has been returned
}

// Next implements [projection.Feed].
func (f *givenFeed) Next(ctx context.Context, limit int) (projection.Batch, error) {
	if len(f.left) == 0 && !f.first {
		<-ctx.Done()
		return projection.Batch{}, ctx.Err()
	}
	f.first = false
	n := min(limit, len(f.left))
	b := projection.Batch{Records: f.left[:n:n], Next: f.end, End: f.end}
	if f.left = f.left[n:]; len(f.left) > 0 {
		b.Next = projection.Cursor(b.Records[n-1].Position)
	}
	return b, nil
}

// Applied implements [projection.Feed].
func (*givenFeed) Applied(projection.Cursor) {}

// Close implements [projection.Feed].
func (*givenFeed) Close() error { return nil }
