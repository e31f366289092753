package chaos

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// A run in which little happens shows little. This is the least that it must have seen in each minute; on a small machine that has
// other things to do it sees ten times as much.
const (
	leastStrikes      = 8
	leastAcknowledged = 60
	leastRecords      = 120
	leastReached      = 20 // of each read model, under the nemesis
)

// happenings are what was done in a run, and what went on meanwhile.
type happenings struct {
	lasts        time.Duration // under the nemesis, as it was asked for
	faults       map[string]*tally
	kills        int // of processes
	restarts     int // of processes that were killed or gave up
	acknowledged int
	records      int
	relayed      bool // there are topics
	published    int
	reached      map[string]int // records, by read model, under the nemesis
}

// tooLittle says why the run shows nothing: what was not done although the seed had it, and what did not go on meanwhile.
func tooLittle(h happenings) (shortfalls []string) {
	least := func(what string, n, aMinute int) {
		if want := leastOf(aMinute, h.lasts); n < want {
			shortfalls = append(shortfalls, fmt.Sprintf("%s: %d in %v, and at least %d must be", what, n, h.lasts, want))
		}
	}
	kinds, strikes := make(map[kind]tally), 0
	for _, name := range slices.Sorted(maps.Keys(h.faults)) {
		f := h.faults[name]
		k := kinds[f.kind]
		kinds[f.kind] = tally{f.kind, k.drawn + f.drawn, k.hit + f.hit}
		strikes += f.hit
		if f.hit < f.drawn/8 {
			shortfalls = append(shortfalls, fmt.Sprintf("%s: %q was to be done %d times, and hit %d times: is what it hits still there?", f.kind, name, f.drawn, f.hit))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		if f := kinds[k]; f.hit < f.drawn/3 {
			shortfalls = append(shortfalls, fmt.Sprintf("faults of kind %q: %d were to be done, and %d hit", k, f.drawn, f.hit))
		}
	}
	least("faults that hit", strikes, leastStrikes)
	if h.restarts < h.kills {
		shortfalls = append(shortfalls, fmt.Sprintf("processes were killed %d times, and started again %d times", h.kills, h.restarts))
	}
	least("acknowledged commands", h.acknowledged, leastAcknowledged)
	least("records", h.records, leastRecords)
	if h.relayed {
		least("published records", h.published, leastRecords)
	}
	for _, model := range slices.Sorted(maps.Keys(h.reached)) {
		least("records that reached "+model+" under the nemesis", h.reached[model], leastReached)
	}
	return shortfalls
}

// leastOf is how many there must be in a run of this length, of something that is asked for by the minute.
func leastOf(aMinute int, d time.Duration) int { return max(1, int(float64(aMinute)*d.Minutes())) }
