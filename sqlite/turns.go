package sqlite

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// turns shares the write lock with other processes. SQLite keeps no queue for it: the store that asks in the right moment gets it. A store that begins
// its next transaction right after a commit would leave the others moments of a few microseconds, and they ask about once a millisecond.
//
// While there are other writers, a store therefore pauses for one such interval when it has had the lock for longestTurn. A lone writer
// never pauses.
type turns struct {
	mu     sync.Mutex
	others time.Time // when another writer was last noticed
	began  time.Time // when the turn began
	ended  time.Time // when the last transaction ended
}

const (
	longestTurn = 10 * time.Millisecond
	othersFor   = 10 * time.Second // a writer that was noticed is expected for this long
	askEvery    = time.Millisecond // about how often a store that waits asks for the lock
	leastWait   = askEvery / 10
	impatient   = time.Second // a store that has waited for longer asks more often
)

// noticed notes that there is another writer.
func (t *turns) noticed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.others = time.Now()
}

// end notes the end of a transaction.
func (t *turns) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = time.Now()
}

// over reports whether the store must leave the lock to others before its next transaction.
func (t *turns) over() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Sub(t.ended) > leastWait+askEvery { // the others have had their chance
		t.began = now
		return false
	}
	if t.others.IsZero() || now.Sub(t.others) > othersFor || now.Sub(t.began) < longestTurn {
		return false
	}
	t.began = now.Add(leastWait + askEvery)
	return true
}

// take calls try until it does not return that another writer has the lock, and for no longer than a limit.
func (t *turns) take(ctx context.Context, limit time.Duration, try func() error) error {
	if t.over() {
		if err := sleep(ctx, leastWait+askEvery); err != nil {
			return err
		}
	}
	for began := time.Now(); ; {
		err := try()
		if !isBusy(err) {
			return err
		}
		t.noticed()
		waited := time.Since(began)
		if waited > limit {
			return fmt.Errorf("%w for more than %v", err, limit)
		}
		if err := sleep(ctx, untilNext(waited)); err != nil {
			return err
		}
	}
}

// untilNext returns how long a store that has waited for some time waits before it asks again. Many stores that ask often would take the time of
// those that work, so the pauses grow; after a second they are short again, so that the oldest come first. The time is random, so that of two
// processes neither always comes too late.
func untilNext(waited time.Duration) time.Duration {
	most := askEvery
	if waited < impatient {
		most = min(max(most, waited/4), 10*askEvery)
	}
	return leastWait + rand.N(most)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
