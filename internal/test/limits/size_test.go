package limits_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// scaled returns n with ES_TEST_LARGE=1, and otherwise a small part of it.
func scaled(n, small int) int {
	if os.Getenv("ES_TEST_LARGE") == "1" {
		return n
	}
	return small
}

// A heap records the peak of memory in use. It does not check Mem, which keeps everything in memory.
type heap struct {
	before uint64
	most   atomic.Uint64
	end    chan struct{}
	done   sync.WaitGroup
}

func watchHeap() *heap {
	h := &heap{before: live(), end: make(chan struct{})}
	h.done.Go(func() {
		for {
			select {
			case <-h.end:
				return
			case <-time.After(20 * time.Millisecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				h.most.Store(max(h.most.Load(), m.HeapAlloc))
			}
		}
	})
	return h
}

// live returns the memory in use after a collection.
func live() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// within fails the test if more than the given number of MiB, including garbage, was in use at any time.
func (h *heap) within(t *testing.T, log es.Log, mib uint64) {
	t.Helper()
	close(h.end)
	h.done.Wait()
	most, now := (max(h.most.Load(), h.before)-h.before)>>20, (max(live(), h.before)-h.before)>>20
	t.Logf("at most %d MiB were in use, %d are now", most, now)
	if _, memory := log.(*es.Mem); !memory && most > mib {
		t.Errorf("%d MiB were in use, want at most %d", most, mib)
	}
}

// fill appends events in batches of some thousands, from a few goroutines.
func fill(t *testing.T, log es.Log, n int, of func(i int) es.Append) {
	t.Helper()
	const each = 2500
	var next atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for {
				from := int(next.Add(each)) - each
				var appends []es.Append
				for i := from; i < min(from+each, n); i++ {
					appends = append(appends, of(i))
				}
				if len(appends) == 0 {
					return
				}
				if _, err := log.Append(t.Context(), appends...); err != nil {
					t.Errorf("append: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
}

func deposited(stream string) es.Append {
	return es.Append{Stream: es.Stream{Kind: "account", ID: stream}, Expected: es.AnyVersion, Events: []es.Record{{Type: "deposited", Data: []byte(`{"Amount":1}`)}}}
}

func TestAMillionStreams(t *testing.T) {
	n := scaled(1_000_000, 20_000)
	stores(t, func(t *testing.T, log es.Log) {
		h := watchHeap()
		begin := time.Now()
		fill(t, log, n, func(i int) es.Append { return deposited(fmt.Sprint(i)) })
		written := time.Since(begin)
		begin = time.Now()
		at := es.Position(0)
		for r, err := range log.All(t.Context(), 0, es.Filter{}) {
			must(t, err)
			if r.Position != at+1 || r.Version != 1 {
				t.Fatalf("%s is at position %d after %d", r.ID(), r.Position, at)
			}
			at = r.Position
		}
		if int(at) != n {
			t.Errorf("%d records, want %d", at, n)
		}
		t.Logf("%d streams written in %v, read in %v", n, written.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
		// A Repo that loads all of them keeps the size of its cache.
		r := es.NewRepo(log, "account", account.Rules{}, account.Codec)
		for i := range min(n, 30_000) {
			if at, err := r.Load(t.Context(), fmt.Sprint(i)); err != nil || at.Version != 1 {
				t.Fatalf("account/%d at version %d: %v", i, at.Version, err)
			}
		}
		h.within(t, log, 256)
	})
}

func TestAStreamOfAMillionEvents(t *testing.T) {
	n := scaled(1_000_000, 20_000)
	stores(t, func(t *testing.T, log es.Log) {
		h := watchHeap()
		stream := es.Stream{Kind: "account", ID: "ann"}
		_, err := log.Append(t.Context(), es.Append{Stream: stream, Events: []es.Record{{Type: "opened", Data: []byte(`{"Owner":"Ann"}`)}}})
		must(t, err)
		fill(t, log, n, func(int) es.Append { return deposited("ann") })
		load := func() (d time.Duration) {
			r := es.NewRepo(log, "account", account.Rules{}, account.Codec)
			r.Snapshots = log.(es.Snapshots)
			begin := time.Now()
			at, err := r.Load(t.Context(), "ann")
			a, v := at.State, at.Version
			d = time.Since(begin)
			if err != nil || int(a.Balance) != n || int(v) != n+1 {
				t.Errorf("balance %d at version %d, %v: want %d at %d", a.Balance, v, err, n, n+1)
			}
			must(t, r.Close(context.Background()))
			return d
		}
		cold, warm := load(), load()
		t.Logf("%d events loaded in %v, from the snapshot in %v", n, cold.Round(time.Millisecond), warm.Round(time.Microsecond))
		h.within(t, log, 256)
	})
}

func TestALargeEvent(t *testing.T) {
	n := scaled(50, 5)
	stores(t, func(t *testing.T, log es.Log) {
		h := watchHeap()
		data := bytes.Repeat([]byte("0123456789"), 1<<20)
		for i := range n {
			data[0] = byte(i)
			_, err := log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "scan", ID: "1"}, Expected: es.Version(i), Events: []es.Record{{Type: "scanned", Data: data}}})
			must(t, err)
		}
		for r, err := range log.Read(t.Context(), es.Stream{Kind: "scan", ID: "1"}, 0) {
			must(t, err)
			if data[0] = byte(r.Version - 1); !bytes.Equal(r.Data, data) {
				t.Fatalf("%s differs from what was written", r.ID())
			}
		}
		_, err := log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "scan", ID: "1"}, Expected: es.AnyVersion, Events: []es.Record{{Type: "scanned", Data: make([]byte, es.MaxData+1)}}})
		if !errors.Is(err, es.ErrInvalid) {
			t.Errorf("an event over the limit: %v", err)
		}
		h.within(t, log, 512) // some events of 10 MiB in flight, and the garbage of earlier ones
	})
}

func TestTenThousandCommandsAtOnce(t *testing.T) {
	n := scaled(10_000, 2_000)
	stores(t, func(t *testing.T, log es.Log) {
		h := watchHeap()
		r := es.NewRepo(log, "account", account.Rules{}, account.Codec)
		accounts := []string{"hot", "warm"}
		for i := range 100 {
			accounts = append(accounts, fmt.Sprint("cold", i))
		}
		for _, id := range accounts {
			_, err := r.Execute(t.Context(), id, account.Open{Owner: id})
			must(t, err)
		}
		begin := time.Now()
		ready := make(chan struct{})
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				<-ready
				id := accounts[0]
				if i%2 == 0 {
					id = accounts[i%len(accounts)]
				}
				if _, err := r.Execute(t.Context(), id, account.Deposit{Amount: 1}); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			})
		}
		close(ready)
		all.Wait()
		t.Logf("%d commands in %v", n, time.Since(begin).Round(time.Millisecond))
		sum := 0
		for _, id := range accounts {
			at, err := es.NewRepo(log, "account", account.Rules{}, account.Codec).Load(t.Context(), id)
			a := at.State
			must(t, err)
			sum += int(a.Balance)
		}
		if sum != n {
			t.Errorf("the balances add up to %d cents, want %d", sum, n)
		}
		h.within(t, log, 256)
	})
}

// A slow follower delays no one else, and what it has not read yet is not in memory.
func TestASlowFollower(t *testing.T) {
	n := scaled(200_000, 20_000)
	stores(t, func(t *testing.T, log es.Log) {
		h := watchHeap()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		taken, step := make(chan es.Position), make(chan struct{})
		var follower sync.WaitGroup
		follower.Go(func() {
			for r, err := range es.Follow(ctx, log, 0, es.Filter{}) {
				if err != nil {
					return
				}
				select {
				case taken <- r.Position:
				case <-ctx.Done():
					return
				}
				select {
				case <-step: // closed when it may continue
				case <-ctx.Done():
					return
				}
			}
		})
		fat := bytes.Repeat([]byte("x"), 2000)
		write := func(i int) es.Append {
			a := deposited(fmt.Sprint(i % 100))
			a.Events[0].Data = fat
			return a
		}
		fill(t, log, 1, write)
		if at := <-taken; at != 1 {
			t.Fatalf("the first record is at %d", at)
		}
		fill(t, log, n, write) // while the follower is in its loop body
		close(step)
		for at := es.Position(2); int(at) <= n+1; at++ {
			if got := <-taken; got != at {
				t.Fatalf("got record %d, want %d", got, at)
			}
		}
		cancel()
		follower.Wait()
		h.within(t, log, 256)
	})
}
