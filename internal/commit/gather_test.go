package commit_test

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/thalo-go/es/internal/commit"
)

// With callers who append again as soon as they are answered, half of them would find the next transaction gone without them.
// A machine that does other things takes the CPU away in between, which looks as if yielding were dear; so one quiet try of several will do.
func TestThoseWhoWereAnsweredShareTheNextTransaction(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that only yielding lets the callers run
	const callers, appends, tries = 8, 200, 20
	fewest := callers * appends
	for range tries {
		if fewest = min(fewest, transactionsOf(t, callers, appends)); fewest <= appends+appends/2 {
			return
		}
	}
	t.Errorf("%d transactions at the least for %d appends each of %d callers, want hardly more than %d", fewest, appends, callers, appends)
}

// transactionsOf has callers append one after the other, and returns in how many transactions that was.
func transactionsOf(t *testing.T, callers, appends int) int {
	b := backend{write: func(context.Context) { runtime.Gosched() }} // as one that waits for its disk does
	q := b.queue(commit.Options{})
	var crowd sync.WaitGroup
	for caller := range callers {
		crowd.Go(func() {
			for n := range appends {
				if _, err := q.Append(t.Context(), request(strconv.Itoa(caller)+"-"+strconv.Itoa(n), 1, 1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	crowd.Wait()
	q.Close()
	return len(b.batches)
}

// In a program that computes on all its CPUs, a goroutine that yields comes back late.
func TestNobodyYieldsToThoseWhoCompute(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const callers, appends = 4, 100
	b := backend{write: func(context.Context) { runtime.Gosched() }}
	q := b.queue(commit.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	turns := 0
	var computing, crowd sync.WaitGroup
	computing.Go(func() {
		for ; ctx.Err() == nil; turns++ {
			for began := time.Now(); time.Since(began) < time.Millisecond; {
				continue
			}
			runtime.Gosched()
		}
	})
	for caller := range callers {
		crowd.Go(func() {
			for n := range appends {
				if _, err := q.Append(t.Context(), request(strconv.Itoa(caller)+"-"+strconv.Itoa(n), 1, 1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	crowd.Wait()
	cancel()
	computing.Wait()
	q.Close()
	if n := len(b.batches); turns > n+n/2 {
		t.Errorf("who computes had %d turns during %d transactions; expected hardly more than the one in each commit", turns, n)
	}
}
