package chaos

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// A run in which little happens shows little. These are the minimum counts for each minute. A busy small machine
// reaches ten times as much.
const (
	leastStrikes      = 8
	leastAcknowledged = 60
	leastRecords      = 120
	leastOthers       = 4
	leastTimers       = 10
	leastReached      = 20 // records in each read model, during fault injection
)

// happenings are the counts of a run.
type happenings struct {
	lasts        time.Duration // requested duration of fault injection
	faults       map[string]*tally
	kills        int // of processes
	restarts     int // of processes that were killed or failed
	acknowledged int
	beside       bool // the run has processes of another release
	others       int  // starts of them
	records      int
	relayed      bool // the run has topics
	published    int
	timers       int            // effects of timers
	reached      map[string]int // records by read model, during fault injection
}

// tooLittle returns the reasons why a run is not significant: faults that were drawn but had no effect, and counts that
// are too low.
func tooLittle(h happenings) (shortfalls []string) {
	least := func(what string, n, aMinute int) {
		if want := leastOf(aMinute, h.lasts); n < want {
			shortfalls = append(shortfalls, fmt.Sprintf("%s: %d in %v, want at least %d", what, n, h.lasts, want))
		}
	}
	kinds, strikes := make(map[kind]tally), 0
	for _, name := range slices.Sorted(maps.Keys(h.faults)) {
		f := h.faults[name]
		k := kinds[f.kind]
		kinds[f.kind] = tally{f.kind, k.drawn + f.drawn, k.hit + f.hit}
		strikes += f.hit
		if f.hit < f.drawn/8 {
			shortfalls = append(shortfalls, fmt.Sprintf("%s: %q was drawn %d times and had an effect %d times: does its target still exist?", f.kind, name, f.drawn, f.hit))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		if f := kinds[k]; f.hit < f.drawn/3 {
			shortfalls = append(shortfalls, fmt.Sprintf("faults of kind %q: %d were drawn and %d had an effect", k, f.drawn, f.hit))
		}
	}
	least("effective faults", strikes, leastStrikes)
	if h.restarts < h.kills {
		shortfalls = append(shortfalls, fmt.Sprintf("processes were killed %d times but restarted %d times", h.kills, h.restarts))
	}
	if h.beside {
		least("starts of the other release", h.others, leastOthers)
	}
	least("acknowledged commands", h.acknowledged, leastAcknowledged)
	least("records", h.records, leastRecords)
	least("effects of timers", h.timers, leastTimers)
	if h.relayed {
		least("published records", h.published, leastRecords)
	}
	for _, model := range slices.Sorted(maps.Keys(h.reached)) {
		least("records that reached "+model+" during fault injection", h.reached[model], leastReached)
	}
	return shortfalls
}

// leastOf returns the minimum for a run of this length from the minimum for a minute.
func leastOf(aMinute int, d time.Duration) int { return max(1, int(float64(aMinute)*d.Minutes())) }
