package sqlite

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mattn/go-sqlite3"
)

// A store that begins its next transaction right after a commit leaves the lock to others from time to time, so that all have it alike.
func TestNoWriterStarves(t *testing.T) {
	const (
		stores = 100
		holds  = 3 * time.Millisecond
		gap    = 2 * time.Microsecond // between two transactions of a store
		runs   = 30 * time.Second
		limit  = 10 * time.Second // the default of Config.BusyTimeout
	)
	synctest.Test(t, func(t *testing.T) {
		var lock sync.Mutex // without a queue: a store tries to get it, as with SQLite's
		last := -1          // the store that had it before, which the version of the data shows
		var work sync.WaitGroup
		var counts [stores]int
		var longest time.Duration
		end := time.Now().Add(runs)
		for i := range stores {
			work.Go(func() {
				var own turns
				for time.Now().Before(end) {
					asked := time.Now()
					err := own.take(t.Context(), limit, func() error {
						if !lock.TryLock() {
							return sqlite3.Error{Code: sqlite3.ErrBusy}
						}
						return nil
					})
					if err != nil {
						t.Errorf("store %d: %v", i, err)
						return
					}
					longest = max(longest, time.Since(asked))
					if last >= 0 && last != i {
						own.noticed()
					}
					last = i
					time.Sleep(holds)
					counts[i]++
					lock.Unlock()
					own.end()
					time.Sleep(gap)
				}
			})
		}
		work.Wait()
		total := 0
		for _, n := range counts {
			total += n
		}
		for i, n := range counts {
			if n < total/stores/4 {
				t.Errorf("store %d has had the lock %d times of %d", i, n, total)
			}
		}
		if longest > limit/2 { // 8 s if no store pauses
			t.Errorf("a store has waited for %v", longest)
		}
		if busy := time.Duration(total) * holds; busy < runs/2 {
			t.Errorf("the lock was used for %v of %v", busy, runs)
		}
	})
}

// A writer that meets no other never pauses, and one that has met another pauses no longer than ten seconds.
func TestALoneWriterNeverPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var own turns
		free := func() error { return nil }
		paused := func() (n int) {
			for range 1000 {
				began := time.Now()
				if err := own.take(t.Context(), time.Second, free); err != nil {
					t.Fatal(err)
				}
				if time.Since(began) > 0 {
					n++
				}
				time.Sleep(time.Millisecond)
				own.end()
			}
			return n
		}
		if n := paused(); n > 0 {
			t.Errorf("a lone writer has paused %d times", n)
		}
		own.noticed()
		if n := paused(); n < 50 || n > 100 {
			t.Errorf("beside another writer it has paused %d times of 1000", n)
		}
		time.Sleep(othersFor)
		if n := paused(); n > 0 {
			t.Errorf("long after it has met another writer it has paused %d times", n)
		}
	})
}
