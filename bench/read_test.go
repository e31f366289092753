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

// BenchmarkLoad measures loads of one account after the other. No account is cached. An operation is one load, and events/s counts the events
// of its stream.
func BenchmarkLoad(b *testing.B) {
	eachStore(b, func(b *testing.B, s backend) {
		sizes := []int{10, 1_000, 100_000}
		if turn() == 0 {
			sizes = sizes[:2] // nothing is measured, so long streams are not worth writing
		}
		for _, events := range sizes {
			for _, snapshot := range []bool{false, true} {
				b.Run(fmt.Sprintf("events=%d/snapshot=%v", events, snapshot), func(b *testing.B) { loads(b, s, events, snapshot) })
			}
		}
	})
}

func loads(b *testing.B, s backend, events int, snapshot bool) {
	bed := s.open(b)
	newRepo := func() *work.Repo {
		repo := work.NewRepo(bed)
		repo.CacheSize = -1
		if snapshot {
			repo.Snapshots = bed
			repo.SnapshotEvery = events
		}
		return repo
	}
	accounts := min(16, max(1, 16_000/events))
	repo := newRepo()
	ours, err := work.Loads(b.Context(), "Load", work.To(bed), func(ctx context.Context, id string) (es.Version, error) {
		at, err := repo.Load(ctx, id)
		version := at.Version
		return version, err
	}, accounts, events)
	check(b, err)
	if snapshot {
		// One load of each account takes its snapshot, and Close waits for the snapshots.
		_, err := ours.Times(b.Context(), accounts)
		check(b, err)
		check(b, repo.Close(context.Background()))
		repo = newRepo()
	}
	if bed.plain == nil {
		compare(b, bed.server, ours)
		return
	}
	theirs, err := work.Loads(b.Context(), "bare driver", bed.fill, work.OnPlain(baseline.Accounts{Store: bed.plain}).Load, accounts, events)
	check(b, err)
	compare(b, bed.server, ours, rival{"bare", theirs})
}

// BenchmarkAll measures reading a whole log. An operation is one pass over it.
func BenchmarkAll(b *testing.B) {
	records := few(50_000, 5_000)
	eachStore(b, func(b *testing.B, s backend) {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			bed := s.open(b)
			check(b, work.Fill(b.Context(), work.To(bed), records, payload))
			ours := work.Scans("All", records, func(ctx context.Context, see func(es.Record)) error { return all(ctx, bed, 0, see) })
			if bed.plain == nil {
				compare(b, bed.server, ours)
				return
			}
			check(b, work.Fill(b.Context(), bed.fill, records, payload))
			compare(b, bed.server, ours, rival{"bare", work.Scans("bare driver", records, bed.plain.Scan)})
			bytes, err := bed.disk()
			check(b, err)
			b.ReportMetric(float64(bytes)/float64(records), "disk-B/event")
		})
	})
}

func all(ctx context.Context, log es.Log, after es.Position, see func(es.Record)) error {
	for r, err := range log.All(ctx, after, es.Filter{}) {
		if err != nil {
			return err
		}
		see(r)
	}
	return nil
}

// BenchmarkFollow measures the delay from the return of Append until a follower receives the record. An operation is one append and the wait
// for its record.
func BenchmarkFollow(b *testing.B) {
	eachStore(b, func(b *testing.B, s backend) {
		b.Run("from=same", func(b *testing.B) {
			bed := s.open(b)
			follow(b, bed, bed)
		})
		if s.name == "mem" {
			return // no other store value can open the same log
		}
		b.Run("from=other", func(b *testing.B) {
			bed := s.open(b)
			follow(b, bed, bed.again(b))
		})
	})
}

func follow(b *testing.B, writer es.Store, reader es.Log) {
	ctx, cancel := context.WithCancel(b.Context())
	head, err := es.Head(ctx, reader)
	check(b, err)
	seen := make(chan time.Time)
	ended := make(chan error, 1)
	go func() {
		for _, err := range es.Follow(ctx, reader, head, es.Filter{}) {
			if err != nil {
				ended <- err
				return
			}
			seen <- time.Now()
		}
	}()
	defer func() {
		cancel()
		<-ended //nolint:errcheck // the error of the context that has just ended
	}()
	to, event := work.To(writer), work.Events(1, payload)
	stream := es.Stream{Kind: "followed", ID: fmt.Sprint("from-", head)}
	var delays []time.Duration
	for b.Loop() {
		check(b, to(ctx, stream, es.Version(len(delays)), event))
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
