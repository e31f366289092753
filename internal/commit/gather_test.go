package commit_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es/internal/commit"
)

// Without gather, half of the callers that append again as soon as they are answered would miss the next transaction.
// On a busy machine yielding looks slow, so that gather is skipped. One quiet try of several is enough.
func TestAnsweredCallersJoinTheNextTransaction(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that only yielding lets the callers run
	const callers, appends, tries = 8, 200, 20
	fewest := callers * appends
	for range tries {
		if fewest = min(fewest, transactionsOf(t, callers, appends)); fewest <= appends+appends/2 {
			return
		}
	}
	t.Errorf("at least %d transactions for %d appends by each of %d callers, want about %d", fewest, appends, callers, appends)
}

// transactionsOf lets callers append concurrently and returns the number of transactions.
func transactionsOf(t *testing.T, callers, appends int) int {
	b := backend{write: func(context.Context) { runtime.Gosched() }} // as waiting for a disk does
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

// In a program that uses all CPUs, a goroutine that yields runs again late.
func TestGatherIsSkippedWhileOthersCompute(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const callers, appends = 4, 100
	b := backend{write: func(context.Context) { runtime.Gosched() }}
	q := b.queue(commit.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	slices := 0
	var computing, crowd sync.WaitGroup
	computing.Go(func() {
		for ; ctx.Err() == nil; slices++ {
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
	if n := len(b.batches); slices > n+n/2 {
		t.Errorf("the computing goroutine ran %d times during %d transactions; expected about once per commit", slices, n)
	}
}

// The callers of a long transaction append again a moment after it has ended. Without a wait for them, they would fall into two halves.
func TestCallersOfALongTransactionAreAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, appends = 16, 50
		b := backend{write: func(context.Context) { time.Sleep(10 * time.Millisecond) }}
		q := b.queue(commit.Options{})
		var crowd sync.WaitGroup
		for caller := range callers {
			crowd.Go(func() {
				for n := range appends {
					time.Sleep(time.Duration(rand.Int64N(int64(time.Millisecond)))) // as deciding takes
					if _, err := q.Append(t.Context(), request(strconv.Itoa(caller)+"-"+strconv.Itoa(n), 1, 1)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		crowd.Wait()
		q.Close()
		if n := len(b.batches); n > appends+10 {
			t.Errorf("%d transactions for %d appends by each of %d callers, want about %d", n, appends, callers, appends)
		}
	})
}

// Callers that do not append again soon are soon not awaited any more.
func TestCallersThatDoNotComeBackAreNotAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rounds, took = 50, 10 * time.Millisecond
		b := backend{write: func(context.Context) { time.Sleep(took) }}
		q := b.queue(commit.Options{})
		began := time.Now()
		for round := range rounds {
			var crowd sync.WaitGroup
			for caller := range 4 { // one leads, and the others wait for the second transaction
				crowd.Go(func() {
					if _, err := q.Append(t.Context(), request(strconv.Itoa(caller)+"-"+strconv.Itoa(round), 1, 1)); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
			}
			crowd.Wait()
		}
		q.Close()
		if waited := time.Since(began) - 2*rounds*took; waited > 5*took {
			t.Errorf("the appends took %v longer than their transactions", waited)
		}
	})
}
