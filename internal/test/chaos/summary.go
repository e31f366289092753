package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// counted are counts of processes by the harness itself.
type counted struct {
	starts          map[Role]int
	kills, restarts int
	deaths          int // ended by themselves
	others          int // starts of the other release
}

func (r *run) counted() counted {
	c := counted{starts: make(map[Role]int)}
	for _, p := range r.processes {
		c.starts[p.Role] += p.starts
		c.kills += p.kills
		c.deaths += p.deaths
		c.others += p.others
		c.restarts += max(0, p.starts-1)
	}
	return c
}

func (r *run) happened(c Counts) happenings {
	processes := r.counted()
	return happenings{
		lasts: r.Duration, faults: r.faults, kills: processes.kills, restarts: processes.restarts, acknowledged: c.Acknowledged,
		beside: r.Beside != "", others: processes.others,
		records: c.Records, relayed: r.prefix != "", published: c.Published, timers: c.Timers, reached: r.watch.reached,
	}
}

// summary describes a run in a few lines.
func (r *run) summary(c Counts) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-20s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("run", "seed %d, %v of fault injection, with %d calms of %v in total; %v more to complete all work", r.Seed, r.lasted, r.watch.calms, r.watch.calm.Round(time.Second), r.took.Round(10*time.Millisecond))
	processes := r.counted()
	line("processes", "%d killed, %d failed, %d restarted", processes.kills, processes.deaths, processes.restarts)
	if r.Beside != "" {
		line("  other release", "%d of %d starts", processes.others, processes.restarts+len(r.processes))
	}
	kinds, strikes := make(map[kind][]string), 0
	for _, name := range slices.Sorted(maps.Keys(r.faults)) {
		f := r.faults[name]
		strikes += f.hit
		kinds[f.kind] = append(kinds[f.kind], fmt.Sprintf("%s %d", name, f.hit))
	}
	line("faults", "%d", strikes)
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		line("  "+string(k), "%s", strings.Join(kinds[k], ", "))
	}
	line("records", "%d in %d streams, %d published", c.Records, c.Streams, c.Published)
	for _, model := range slices.Sorted(maps.Keys(r.watch.reached)) {
		line("  during faults", "%d reached %s", r.watch.reached[model], model)
	}
	line("timers", "%d effects", c.Timers)
	line("commands sent", "%d: %d acknowledged, %d refused, %d lost races, %d failed, %d unknown, %d unanswered; %d sent again",
		c.Sent, c.Acknowledged, c.Refused, c.Conflicts, c.Failed, c.Unknown, c.Unsaid, c.Retried)
	line("violations", "%d", len(r.violations))
	return b.String()
}

// details lists what the summary leaves out.
func (r *run) details() string {
	var b strings.Builder
	line := func(name string, value any) { fmt.Fprintf(&b, "%-50s %10v\n", name, value) }
	starts := r.counted().starts
	for _, role := range slices.Sorted(maps.Keys(starts)) {
		line(fmt.Sprintf("processes started: %s", role), starts[role])
	}
	for _, name := range slices.Sorted(maps.Keys(r.faults)) {
		f := r.faults[name]
		line(name+", effective", fmt.Sprintf("%d of %d", f.hit, f.drawn))
	}
	return b.String()
}
