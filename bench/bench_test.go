package bench_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/thalo-go/es/bench/internal/measure"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == writeWord {
		if err := writeInChild(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() != "" {
		defer func() {
			if err := servers.close(); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
		if err := servers.start(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// A rival is a baseline. Its name is part of the metrics: x-insert is our rate divided by the rate of the rival insert.
type rival struct {
	name string
	side measure.Side
}

// turnsInATime is the number of turns of each side within the time that -benchtime gives a benchmark.
const turnsInATime = 10

// turn returns the length of a turn. If -benchtime is a number of iterations, as in 1x, a turn is one operation of each caller. Such a
// run only shows that the benchmark works.
func turn() time.Duration {
	d, err := time.ParseDuration(flag.Lookup("test.benchtime").Value.String())
	if err != nil {
		return 0
	}
	return d / turnsInATime
}

// compare runs a side and its rivals alternately and reports the results. An iteration of the benchmark is one turn of each side, but
// the timer counts only ours. Metrics are for one operation or for one event.
func compare(b *testing.B, server func() time.Duration, ours measure.Side, theirs ...rival) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context()) // a context that can end, like that of most callers
	defer cancel()
	sides := []measure.Side{ours}
	for _, r := range theirs {
		sides = append(sides, r.side)
	}
	turn := turn()
	if turn > 0 { // warm up
		for _, s := range sides {
			_, err := s.For(ctx, turn)
			check(b, err)
		}
	}
	samples := make([][]measure.Sample, len(sides))
	var usage measure.Usage
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		for k := range sides {
			n := (i + k) % len(sides) // each side goes first in turn
			if n > 0 {
				s, err := sides[n].For(ctx, turn)
				check(b, err)
				samples[n] = append(samples[n], s)
				continue
			}
			used, err := measure.Using(server, func() error {
				b.StartTimer()
				defer b.StopTimer()
				s, err := ours.For(ctx, turn)
				samples[0] = append(samples[0], s)
				return err
			})
			check(b, err)
			usage.Add(used)
		}
		b.StartTimer()
	}
	report(b, measure.Together(samples[0]), usage)
	for i, r := range theirs {
		against(b, r.name, samples[0], samples[i+1])
	}
}

// report reports the metrics of our side.
func report(b *testing.B, s measure.Sample, u measure.Usage) {
	ops, events := float64(len(s.Latencies)), float64(s.Units)
	b.ReportMetric(float64(s.Elapsed)/ops, "ns/op")
	b.ReportMetric(float64(u.Bytes)/ops, "B/op")
	b.ReportMetric(float64(u.Allocs)/ops, "allocs/op")
	b.ReportMetric(s.Rate(), "events/s")
	b.ReportMetric(ms(measure.Percentile(s.Latencies, 50)), "p50-ms")
	b.ReportMetric(ms(measure.Percentile(s.Latencies, 99)), "p99-ms")
	b.ReportMetric(float64(u.Allocs)/events, "allocs/event")
	b.ReportMetric(us(u.CPU)/events, "cpu-us/event")
	if u.Server > 0 {
		b.ReportMetric(us(u.Server)/events, "server-cpu-us/event")
	}
}

// against reports what a rival did, and the median of the ratios turn by turn.
func against(b *testing.B, name string, ours, theirs []measure.Sample) {
	pairs := measure.Pairs{A: ours, B: theirs}
	sum := measure.Together(theirs)
	b.ReportMetric(pairs.Ratio(), "x-"+name)
	b.ReportMetric(sum.Rate(), name+"-events/s")
	b.ReportMetric(ms(measure.Percentile(sum.Latencies, 50)), name+"-p50-ms")
	b.ReportMetric(ms(measure.Percentile(sum.Latencies, 99)), name+"-p99-ms")
}

// callers runs a benchmark for each number of callers.
func callers(b *testing.B, what string, numbers []int, run func(b *testing.B, callers int)) {
	for _, n := range numbers {
		b.Run(fmt.Sprintf("%s=%d", what, n), func(b *testing.B) { run(b, n) })
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
