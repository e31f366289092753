package bench_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
)

// BenchmarkLoad is loads of one account after the other, none of them cached. An operation is one load; events/s counts the events of its stream.
func BenchmarkLoad(b *testing.B) {
	eachStore(b, func(b *testing.B, s backend) {
		for _, events := range []int{10, 1000} {
			for _, snapshot := range []bool{false, true} {
				b.Run(fmt.Sprintf("events=%d/snapshot=%v", events, snapshot), func(b *testing.B) { loads(b, s, events, snapshot) })
			}
		}
	})
}

func loads(b *testing.B, s backend, events int, snapshot bool) {
	store, plain := s.open(b)
	newRepo := func() *work.Repo {
		repo := work.NewRepo(store)
		repo.CacheSize = -1
		if snapshot {
			repo.Snapshots = store
			repo.SnapshotEvery = events
		}
		return repo
	}
	repo := newRepo()
	ours, err := work.Loads(b.Context(), "Load", work.To(store), func(ctx context.Context, id string) (es.Version, error) {
		_, version, err := repo.Load(ctx, id)
		return version, err
	}, events)
	check(b, err)
	if snapshot {
		// Each is loaded once, which has its snapshot taken, and Close waits for that.
		_, err := ours.Times(b.Context(), work.LoadedAccounts)
		check(b, err)
		check(b, repo.Close())
		repo = newRepo()
	}
	if plain == nil {
		compare(b, ours)
		return
	}
	theirs, err := work.Loads(b.Context(), "bare driver", plain.Append, func(ctx context.Context, id string) (es.Version, error) {
		_, version, err := baseline.Accounts{Store: plain}.Load(ctx, id)
		return version, err
	}, events)
	check(b, err)
	compare(b, ours, theirs)
}

// BenchmarkAll reads a whole log. An operation is one pass over it.
func BenchmarkAll(b *testing.B) {
	const records = 50_000
	eachStore(b, func(b *testing.B, s backend) {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			store, plain := s.open(b)
			check(b, work.Fill(b.Context(), work.To(store), records, payload))
			ours := work.Scans("All", records, func(ctx context.Context, see func(es.Record)) error {
				for r, err := range store.All(ctx, 0, es.Filter{}) {
					if err != nil {
						return err
					}
					see(r)
				}
				return nil
			})
			if plain == nil {
				compare(b, ours)
				return
			}
			check(b, work.Fill(b.Context(), plain.Append, records, payload))
			theirs := work.Scans("bare driver", records, func(ctx context.Context, see func(es.Record)) error { return plain.Scan(ctx, 0, see) })
			compare(b, ours, theirs)
		})
	})
}

// BenchmarkFollow is the delay with which a follower sees what was appended, counted from the return of Append.
// An operation is one append and the wait until it was seen.
func BenchmarkFollow(b *testing.B) {
	eachStore(b, func(b *testing.B, s backend) {
		b.Run("from=same", func(b *testing.B) {
			store, _ := s.open(b)
			follow(b, store, store)
		})
		if s.again == nil {
			return
		}
		b.Run("from=other", func(b *testing.B) {
			store, _ := s.open(b)
			follow(b, store, s.again(b, store))
		})
	})
}

func follow(b *testing.B, writer es.Store, reader es.Log) {
	ctx, cancel := context.WithCancel(b.Context())
	seen := make(chan time.Time)
	ended := make(chan error, 1)
	go func() {
		for _, err := range es.Follow(ctx, reader, 0, es.Filter{}) {
			if err != nil {
				ended <- err
				return
			}
			seen <- time.Now()
		}
	}()
	defer func() {
		cancel()
		<-ended //nolint:errcheck // the end of the context, which was just ended
	}()
	to, w, event := work.To(writer), work.NewWriters(1)[0], work.Events(1, payload)
	var delays []time.Duration
	for b.Loop() {
		stream, after := w.Next(1)
		check(b, to(ctx, stream, after, event))
		returned := time.Now()
		select {
		case at := <-seen:
			delays = append(delays, max(0, at.Sub(returned)))
		case err := <-ended:
			b.Fatal(err)
		}
	}
	b.ReportMetric(ms(measure.Percentile(delays, 50)), "p50-ms")
	b.ReportMetric(ms(measure.Percentile(delays, 99)), "p99-ms")
}
