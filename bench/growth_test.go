package bench_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/examples/bank/account"
)

// BenchmarkGrowth is the same work on logs that have so many events already: what it costs should not grow with what is stored.
// ES_BENCH_STORED lists the sizes, with commas; 10000,100000 if it is not set. A million takes about ten seconds to write, ten million two minutes.
func BenchmarkGrowth(b *testing.B) {
	eachDurable(b, func(b *testing.B, s backend) {
		for _, stored := range growthSizes(b) {
			b.Run(fmt.Sprintf("stored=%d", stored), func(b *testing.B) {
				log := grow(b, s.open(b), stored)
				for _, c := range []struct {
					name string
					run  func(b *testing.B, s grown)
				}{
					{"load", growthLoad},
					{"all", growthAll},
					{"follow", growthFollow},
					{"execute", growthExecute},
					{"append", growthAppend},
				} {
					b.Run("work="+c.name, func(b *testing.B) { c.run(b, log) })
				}
			})
		}
	})
}

// growthSizes are the numbers that ES_BENCH_STORED lists, or those that are worth waiting for.
func growthSizes(b *testing.B) []int {
	b.Helper()
	list := os.Getenv("ES_BENCH_STORED")
	switch {
	case list == "" && turn() == 0:
		return []int{10_000}
	case list == "":
		return []int{10_000, 100_000}
	}
	var sizes []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 10_000 {
			b.Fatalf("ES_BENCH_STORED is %q: give numbers from 10000 on, with commas between them", list)
		}
		sizes = append(sizes, n)
	}
	return sizes
}

// A grown is a log of accounts of ten events each.
type grown struct {
	bed
	stored, accounts int
	perEvent         float64       // bytes on disk
	next             *atomic.Int64 // of a walk over the accounts
}

func grow(b *testing.B, s bed, stored int) grown {
	b.Helper()
	const events = 10
	accounts := stored / events
	check(b, work.FillAccounts(b.Context(), s, accounts, events))
	bytes, err := s.disk()
	check(b, err)
	return grown{s, stored, accounts, float64(bytes) / float64(stored), new(atomic.Int64)}
}

// account is the next of a walk on which each is far from the one before it, so that none is found where the one before was.
func (g grown) account() string {
	const stride = 1_000_003 // a prime
	return work.AccountID(int(g.next.Add(1)) * stride % g.accounts)
}

func (g grown) repo() *work.Repo {
	repo := work.NewRepo(g)
	repo.CacheSize = -1
	return repo
}

func (g grown) compare(b *testing.B, side measure.Side) {
	compare(b, g.server, side)
	b.ReportMetric(g.perEvent, "disk-B/event")
}

// growthLoad loads one account after the other.
func growthLoad(b *testing.B, g grown) {
	repo := g.repo()
	g.compare(b, measure.Side{Name: "Load", Callers: 1, Op: func(ctx context.Context, _ int) error {
		_, err := repo.Load(ctx, g.account())
		return err
	}})
}

// growthAll reads a thousand records from the end of the log, which is what those do who have fallen a little behind.
func growthAll(b *testing.B, g grown) {
	const records = 1000
	g.compare(b, measure.Side{Name: "All", Callers: 1, Units: records, Op: func(ctx context.Context, _ int) error {
		n := 0
		for _, err := range g.All(ctx, es.Position(g.stored-records), es.Filter{}) {
			if err != nil {
				return err
			}
			if n++; n == records {
				return nil
			}
		}
		return fmt.Errorf("the log ended after %d records of %d", n, records)
	}})
}

func growthFollow(b *testing.B, g grown) { follow(b, g, g.again(b)) }

// growthExecute is 128 callers with commands on accounts that are not cached.
func growthExecute(b *testing.B, g grown) {
	repo := g.repo()
	g.compare(b, measure.Side{Name: "Execute", Callers: 128, Op: func(ctx context.Context, _ int) error {
		_, err := repo.Execute(ctx, g.account(), account.Deposit{Amount: 1})
		return err
	}})
}

// growthAppend is 128 writers on streams of their own.
func growthAppend(b *testing.B, g grown) {
	to, kind := work.To(g), fmt.Sprint("run-", g.next.Add(1)) // not that of the accounts, nor of a run before
	g.compare(b, work.Appends("Append", func(ctx context.Context, stream es.Stream, after es.Version, events []es.Record) error {
		stream.Kind = kind
		return to(ctx, stream, after, events)
	}, 128, 1, payload))
}
