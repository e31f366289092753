package measure_test

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es/bench/internal/measure"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{7}, 7},
		{[]float64{1, 9}, 5},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 100, 2}, 3},
	} {
		given := slices.Clone(c.values)
		if got := measure.Median(given); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
		if !slices.Equal(given, c.values) {
			t.Errorf("Median changed %v to %v", c.values, given)
		}
	}
	if got := measure.Median(nil); !math.IsNaN(got) {
		t.Errorf("median of no values is %v, want NaN, which meets no goal", got)
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100 - i)
	}
	for _, c := range []struct {
		latencies []time.Duration
		percent   float64
		want      time.Duration
	}{
		{nil, 50, 0},
		{[]time.Duration{8}, 0, 8},
		{[]time.Duration{8}, 99, 8},
		{[]time.Duration{3, 1, 2}, 50, 2},
		{hundred, 1, 1},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 99.5, 100},
		{hundred, 100, 100},
	} {
		if got := measure.Percentile(c.latencies, c.percent); got != c.want {
			t.Errorf("percentile %v of %d latencies is %v, want %v", c.percent, len(c.latencies), got, c.want)
		}
	}
}

func TestRatioIsTheMedianOfTheRatiosPairByPair(t *testing.T) {
	var p measure.Pairs
	rate := func(n int) measure.Sample { return measure.Sample{Units: n, Elapsed: time.Second} }
	p.Add(rate(20), rate(10)) // 2
	p.Add(rate(4), rate(1))   // 4, because other load slowed both down
	p.Add(rate(100), rate(1)) // 100, because other load slowed theirs down
	if got := p.Ratio(); got != 4 {
		t.Errorf("ratio is %v, want 4", got)
	}
	// The ratio of the sums would be 124/12, and the ratio of the medians 20/1.
}

func TestTogether(t *testing.T) {
	got := measure.Together([]measure.Sample{
		{Units: 10, Elapsed: time.Second, Latencies: []time.Duration{1}},
		{Units: 50, Elapsed: 2 * time.Second, Latencies: []time.Duration{2, 3}},
	})
	if got.Rate() != 20 || !slices.Equal(got.Latencies, []time.Duration{1, 2, 3}) {
		t.Errorf("got %v at %v a second, want all three latencies at 20", got.Latencies, got.Rate())
	}
}

func TestSide(t *testing.T) {
	t.Run("For finishes and counts operations that have begun in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			side := measure.Side{Callers: 2, Units: 10, Op: func(context.Context, int) error { time.Sleep(30 * time.Millisecond); return nil }}
			s, err := side.For(t.Context(), 100*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			// Each caller begins at 0, 30, 60 and 90 ms.
			if s.Units != 2*4*10 || s.Elapsed != 120*time.Millisecond {
				t.Errorf("%d units in %v, want 80 in 120ms", s.Units, s.Elapsed)
			}
			if len(s.Latencies) != 8 || measure.Percentile(s.Latencies, 100) != 30*time.Millisecond {
				t.Errorf("latencies are %v, want 30ms eight times", s.Latencies)
			}
		})
	})
	t.Run("For runs at least one operation of each caller", func(t *testing.T) {
		var calls [3]atomic.Int64
		side := measure.Side{Callers: 3, Op: func(_ context.Context, caller int) error { calls[caller].Add(1); return nil }}
		if _, err := side.For(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		for i := range calls {
			if n := calls[i].Load(); n != 1 {
				t.Errorf("caller %d did %d operations, want 1", i, n)
			}
		}
	})
	t.Run("Times runs n operations of all callers together", func(t *testing.T) {
		var calls atomic.Int64
		side := measure.Side{Callers: 7, Op: func(context.Context, int) error { calls.Add(1); return nil }}
		s, err := side.Times(t.Context(), 100)
		if err != nil || calls.Load() != 100 || s.Units != 100 {
			t.Errorf("%d calls, %d units, err %v; want 100, 100, nil", calls.Load(), s.Units, err)
		}
	})
	t.Run("Before is called once before each turn and is not measured", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			before := 0
			side := measure.Side{
				Callers: 2,
				Before:  func(context.Context) error { before++; time.Sleep(time.Hour); return nil },
				Op:      func(context.Context, int) error { time.Sleep(time.Second); return nil },
			}
			s, err := side.Times(t.Context(), 2)
			if err != nil || before != 1 || s.Elapsed != time.Second {
				t.Errorf("Before was called %d times, %v elapsed, err %v; want once, 1s, nil", before, s.Elapsed, err)
			}
		})
	})
	t.Run("an error of one caller ends the turn and is returned", func(t *testing.T) {
		broken := errors.New("broken")
		side := measure.Side{Callers: 2, Op: func(ctx context.Context, caller int) error {
			if caller == 0 {
				return broken
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		if _, err := side.For(t.Context(), time.Hour); !errors.Is(err, broken) {
			t.Errorf("err is %v, want %v", err, broken)
		}
	})
	t.Run("a turn without an operation is an error", func(t *testing.T) {
		side := measure.Side{Name: "idle", Callers: 1, Op: func(context.Context, int) error { return nil }}
		if _, err := side.Times(t.Context(), 0); err == nil {
			t.Error("no error for a turn without an operation")
		}
	})
}

func TestInTurns(t *testing.T) {
	var mu sync.Mutex
	var order []string
	side := func(name string, units int) measure.Side {
		return measure.Side{Name: name, Callers: 1, Units: units, Op: func(context.Context, int) error {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
			return nil
		}}
	}
	var p measure.Pairs
	if err := p.InTurns(t.Context(), 3, 0, side("a", 1), side("b", 2)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "b", "a", "a", "b"}; !slices.Equal(order, want) {
		t.Errorf("turns were %v, want %v, in which each goes first in turn", order, want)
	}
	for i := range 3 {
		if p.A[i].Units != 1 || p.B[i].Units != 2 {
			t.Errorf("pair %d has %d and %d units, want those of a and b", i, p.A[i].Units, p.B[i].Units)
		}
	}
}

func TestMemory(t *testing.T) {
	measure.Settle()
	heap := measure.HeapInUse()
	held := make([]byte, 64<<20)
	before := measure.Resident() // pages without a write take no memory yet
	for i := range held {
		held[i] = 1
	}
	if grown := measure.HeapInUse() - heap; grown < 60<<20 || grown > 80<<20 {
		t.Errorf("HeapInUse grew by %d bytes with 64 MiB", grown)
	}
	if grown := measure.Resident() - before; grown < 60<<20 { // the race detector adds its own
		t.Errorf("Resident grew by %d bytes with 64 MiB", grown)
	}
	if held[len(held)-1] != 1 { // keeps it alive
		t.Error("impossible")
	}
}

func TestSync(t *testing.T) {
	if cost, err := measure.Sync(t.TempDir()); err != nil || cost <= 0 {
		t.Errorf("Sync is %v, err %v", cost, err)
	}
	if _, err := measure.Sync(t.TempDir() + "/missing"); err == nil {
		t.Error("no error for a missing folder")
	}
}

func TestUsing(t *testing.T) {
	if measure.CPU() == 0 {
		t.Skip("the CPU time is not known on this system")
	}
	spin := func() error {
		for begin := measure.CPU(); measure.CPU() < begin+20*time.Millisecond; {
			kept = make([]byte, 1<<10)
		}
		return nil
	}
	server := time.Duration(0)
	u, err := measure.Using(func() time.Duration { server += time.Second; return server }, spin)
	if err != nil {
		t.Fatal(err)
	}
	if u.CPU < 20*time.Millisecond || u.Server != time.Second || u.Allocs < 1 || u.Bytes < 1<<10 {
		t.Errorf("usage is %+v, want at least 20 ms of CPU, one second of the server, and the allocations", u)
	}
	sum := u
	sum.Add(u)
	if sum.CPU != 2*u.CPU || sum.Allocs != 2*u.Allocs || sum.Bytes != 2*u.Bytes || sum.Server != 2*time.Second {
		t.Errorf("twice %+v is %+v", u, sum)
	}
	broken := errors.New("broken")
	if _, err := measure.Using(nil, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("err is %v, want %v", err, broken)
	}
}

var kept []byte // makes spin allocate on the heap

// The time of a process includes that of its children, of those that have ended and of those that still run.
func TestCPUOfCountsTheChildren(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no /proc")
	}
	// Two children use CPU time. The shell waits for the first, and the second still runs when its time is read.
	const spin = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
	shell := exec.Command("sh", "-c", "("+spin+"); ("+spin+"; echo done; cat) ; true")
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if cpu := measure.CPUOf(shell.Process.Pid); cpu < 50*time.Millisecond {
		t.Errorf("%v, want the time of two loops of 300,000 turns", cpu)
	}
	if err := errors.Join(in.Close(), shell.Wait()); err != nil {
		t.Fatal(err)
	}
	if cpu := measure.CPUOf(0); cpu != 0 {
		t.Errorf("a missing process has used %v", cpu)
	}
}
