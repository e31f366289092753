package es_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/thalo-go/es"
)

// moment is the result of one call and the ticks of a shared clock before and after it.
type moment struct {
	begin, end int64
	version    es.Version
	wrote      bool
	refused    bool // version is not known then
	result     es.Result[total, added]
}

const floor = 5 // below which the tally must not fall

// TestCallsAreLinearizable lets callers of several Repos race on one aggregate and looks for an answer that cannot be
// explained if each call takes effect at one instant between its start and its end.
func TestCallsAreLinearizable(t *testing.T) {
	store := new(es.Mem)
	cached, uncached := newTally(store), newTally(store)
	uncached.CacheSize = -1
	// Writers that share no lane. Retries are for the fair: here a writer may lose a hundred times.
	cached.Retries, uncached.Retries = 1000, 1000
	repos := []*tallies{cached, uncached}

	var clock atomic.Int64
	var mu sync.Mutex
	var moments []moment
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(i)))
			for range 60 {
				m := oneCall(t, repos[i%len(repos)], random, &clock)
				mu.Lock()
				moments = append(moments, m)
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	checkMoments(t, store, moments)
}

func oneCall(t *testing.T, repo *tallies, random *rand.Rand, clock *atomic.Int64) (m moment) {
	var err error
	if random.IntN(4) == 0 {
		m.begin = clock.Add(1)
		m.result.Versioned, err = repo.Load(t.Context(), "1")
		m.version = m.result.Version
		m.end = clock.Add(1)
		if err != nil {
			t.Error(err)
		}
		return m
	}
	n := random.IntN(21) - 10
	m.begin = clock.Add(1)
	m.result, err = repo.Execute(t.Context(), "1", func(s total) ([]added, error) {
		runtime.Gosched() // let the others come in between
		switch {
		case n == 0:
			return nil, nil
		case n < 0 && s.N+n < floor:
			return nil, errRefused
		}
		return []added{{n}}, nil
	})
	m.end = clock.Add(1)
	m.version, m.wrote, m.refused = m.result.Version, len(m.result.Events) > 0, errors.Is(err, errRefused)
	if m.refused {
		m.result.Events = []added{{n}} // what it would have been
	} else if err != nil {
		t.Error(err)
	}
	return m
}

func checkMoments(t *testing.T, store *es.Mem, moments []moment) {
	sums := []int{0} // by version
	for _, r := range stored(t, store, tally1) {
		e, err := tallyCodec.Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		if sums = append(sums, sums[len(sums)-1]+e.N); e.N < 0 && sums[len(sums)-1] < floor {
			t.Errorf("version %d brought the tally to %d", r.Version, sums[len(sums)-1])
		}
	}
	writers := make(map[es.Version]int64) // when the call began that wrote a version
	ends := make(map[es.Version]int64)    // when it had ended
	for _, m := range moments {
		if !m.wrote {
			continue
		}
		if _, twice := writers[m.version]; twice {
			t.Errorf("two calls wrote version %d", m.version)
		}
		writers[m.version], ends[m.version] = m.begin, m.end
	}
	if len(writers) != len(sums)-1 {
		t.Errorf("%d calls wrote %d events", len(writers), len(sums)-1)
	}
	for _, m := range moments {
		// The versions that were the last one at some instant of the call.
		first, last := es.Version(0), es.Version(len(sums)-1)
		for v := range writers {
			if ends[v] < m.begin {
				first = max(first, v)
			}
			if writers[v] > m.end {
				last = min(last, v-1)
			}
		}
		if m.refused {
			refusable := false
			for v := first; v <= last; v++ {
				refusable = refusable || sums[v]+m.result.Events[0].N < floor
			}
			if !refusable {
				t.Errorf("%d was refused, and the tally was never so low from version %d to %d", m.result.Events[0].N, first, last)
			}
			continue
		}
		if m.version < first || m.version > last {
			t.Errorf("a call saw version %d; when it ran it was %d to %d", m.version, first, last)
		}
		if m.result.State.N != sums[m.version] {
			t.Errorf("a call saw %d at version %d, where it was %d", m.result.State.N, m.version, sums[m.version])
		}
	}
}

// TestTransfersConserveMoney moves it between two aggregates by commands that are sent again whenever their outcome is unknown.
func TestTransfersConserveMoney(t *testing.T) {
	store := newSpy()
	var calls atomic.Int64
	store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
		switch n := calls.Add(1); n % 5 {
		case 1:
			return 0, fmt.Errorf("lost before it: %w", es.ErrUnknownOutcome)
		case 2:
			if _, err := write(); err != nil {
				return 0, err
			}
			return 0, fmt.Errorf("lost after it: %w", es.ErrUnknownOutcome)
		}
		return write()
	}
	repos := []*tallies{newTally(store), newTally(store)}
	repos[0].Retries, repos[1].Retries = 1000, 1000
	insist := func(repo *tallies, id string, n int, command string) {
		for {
			_, err := repo.Execute(t.Context(), id, add(n), es.CommandID(command))
			if !errors.Is(err, es.ErrUnknownOutcome) {
				if err != nil {
					t.Error(err)
				}
				return
			}
		}
	}
	var movers sync.WaitGroup
	for i := range 8 {
		movers.Go(func() {
			for j := range 20 {
				command := fmt.Sprintf("%d/%d", i, j)
				insist(repos[i%2], "1", -j, command)
				insist(repos[i%2], "2", j, command)
			}
		})
	}
	movers.Wait()
	want := 8 * 19 * 20 / 2
	for id, want := range map[string]int{"1": -want, "2": want} {
		if at, err := newTally(store.Log).Load(t.Context(), id); err != nil || at.State.N != want {
			t.Errorf("tally %s is %d, %v; want %d", id, at.State.N, err, want)
		}
	}
}
