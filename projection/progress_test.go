package projection_test

import (
	"context"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/progress"
	"github.com/thalo-go/es/projection"
)

// A barren is a log of many records that a filter excludes. Reading each thousand of them takes a second.
type barren struct{ *es.Mem }

const barrenHead = 1_000_000

func (l *barren) Changed(ctx context.Context, after es.Position) (es.Position, error) {
	if after < barrenHead {
		return barrenHead, nil
	}
	<-ctx.Done()
	return 0, ctx.Err()
}

func (l *barren) All(ctx context.Context, after es.Position, _ es.Filter) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		for at := after + 1000; at <= barrenHead; at += 1000 {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				yield(es.Record{}, ctx.Err())
				return
			}
			if progress.Wanted(ctx) && !yield(progress.Mark(at), nil) {
				return
			}
		}
	}
}

// A reader that is interrupted while a filter excludes everything must not begin again where it began.
func TestTheCheckpointMovesWhileTheFilterExcludesEverything(t *testing.T) {
	for _, shards := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			source := projection.FromLog(&barren{new(es.Mem)})
			names, err := source.Shards(t.Context(), shards)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				at := projection.Cursor(0)
				for range 3 { // interruptions
					feed, err := source.Feed(t.Context(), name, at, es.Filter{Types: []string{"rare"}})
					if err != nil {
						t.Fatal(err)
					}
					for range 2 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						batch, err := feed.Next(ctx, 1000)
						cancel()
						if err != nil {
							t.Fatalf("%s after %d: %v", name, at, err)
						}
						if len(batch.Records) > 0 || batch.Next <= at || batch.End != barrenHead {
							t.Fatalf("%s after %d: got %+v, want progress and no records", name, at, batch)
						}
						at = batch.Next
					}
					if err := feed.Close(); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}
