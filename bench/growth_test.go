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

// BenchmarkGrowth measures the same operations on logs of different sizes. Their cost should not grow with the log.
// ES_BENCH_STORED lists the sizes, separated by commas; the default is 10000,100000. A million events take about ten seconds to write, ten
// million take two minutes.
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

// growthSizes returns the numbers that ES_BENCH_STORED lists, or the default.
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
			b.Fatalf("ES_BENCH_STORED is %q: want numbers of at least 10000, separated by commas", list)
		}
		sizes = append(sizes, n)
	}
	return sizes
}

// A grown is a log of accounts with ten events each.
type grown struct {
	bed
	stored, accounts int
	perEvent         float64       // bytes on disk
	next             *atomic.Int64 // the number of accounts returned by account
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

// account returns the next account. Consecutive accounts are far from each other, so that the pages of one do not help to find the next.
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

// growthLoad measures loads of one account after the other.
func growthLoad(b *testing.B, g grown) {
	repo := g.repo()
	g.compare(b, measure.Side{Name: "Load", Callers: 1, Op: func(ctx context.Context, _ int) error {
		_, err := repo.Load(ctx, g.account())
		return err
	}})
}

// growthAll measures reading the last thousand records of the log, as a reader with a small lag does.
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

// growthExecute measures 128 callers with commands on accounts that are not cached.
func growthExecute(b *testing.B, g grown) {
	repo := g.repo()
	g.compare(b, measure.Side{Name: "Execute", Callers: 128, Op: func(ctx context.Context, _ int) error {
		_, err := repo.Execute(ctx, g.account(), account.Deposit{Amount: 1})
		return err
	}})
}

// growthAppend measures 128 writers with their own streams.
func growthAppend(b *testing.B, g grown) {
	to, kind := work.To(g), fmt.Sprint("run-", g.next.Add(1)) // differs from that of the accounts and of earlier runs
	g.compare(b, work.Appends("Append", func(ctx context.Context, stream es.Stream, after es.Version, events []es.Record) error {
		stream.Kind = kind
		return to(ctx, stream, after, events)
	}, 128, 1, payload))
}
