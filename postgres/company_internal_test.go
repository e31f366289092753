package postgres

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// A meeting is a store among k processes that all write. What its calls report follows from the times below.
type meeting struct {
	company                     company
	k                           int
	flush, handover, work, more time.Duration // more is what combining adds to the work for each request
}

// batch lets the store write a batch the way it would.
func (m *meeting) batch() {
	if !m.company.combines() {
		took := time.Duration(m.k) * (m.flush + m.handover + m.work)
		time.Sleep(took)
		m.company.met(m.k > 1, took)
		return
	}
	held := time.Duration(m.k) * (m.work + m.more)
	var waited time.Duration
	if m.k > 1 {
		waited = m.flush + m.handover
	}
	c := call{waited: waited.Microseconds(), held: held.Microseconds(), served: m.k - 1, took: waited + held + m.flush + m.handover}
	time.Sleep(c.took)
	m.company.called(c)
}

// combined returns the part of n batches that the store combines.
func (m *meeting) combined(n int) float64 {
	combined := 0
	for range n {
		if m.company.combines() {
			combined++
		}
		m.batch()
	}
	return float64(combined) / float64(n)
}

func TestCombiningIsChosenWhereItPays(t *testing.T) {
	for name, test := range map[string]struct {
		meeting     *meeting
		least, most float64
	}{
		"alone":                             {&meeting{k: 1, flush: 2 * time.Millisecond, work: 100 * time.Microsecond, more: 100 * time.Microsecond}, 0, 0},
		"two on a flush that costs nothing": {&meeting{k: 2, flush: 10 * time.Microsecond, work: 2 * time.Millisecond, more: 2 * time.Millisecond}, 0, 0.2},
		"sixteen on a slow flush":           {&meeting{k: 16, flush: 2 * time.Millisecond, handover: 100 * time.Microsecond, work: 50 * time.Microsecond, more: 100 * time.Microsecond}, 0.95, 1},
		"four on a slow flush":              {&meeting{k: 4, flush: 2 * time.Millisecond, handover: 100 * time.Microsecond, work: 50 * time.Microsecond, more: 100 * time.Microsecond}, 0.95, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := test.meeting
				m.company.init("", slog.New(slog.DiscardHandler))
				if got := m.combined(2000); got < test.least || got > test.most {
					t.Errorf("%.2f of the batches were combined, want %v to %v", got, test.least, test.most)
				}
			})
		})
	}
}

// The others leave: the store goes back to the direct way. They come again: it combines again.
func TestCombiningEndsWithTheCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := meeting{k: 8, flush: 2 * time.Millisecond, handover: 100 * time.Microsecond, work: 50 * time.Microsecond, more: 100 * time.Microsecond}
		m.company.init("", slog.New(slog.DiscardHandler))
		m.combined(100)
		for _, k := range []int{1, 8, 1} {
			m.k = k
			m.combined(2000)
			if got := m.company.combines(); got != (k > 1) {
				t.Errorf("with %d processes, the store combines: %v", k, got)
			}
		}
	})
}
