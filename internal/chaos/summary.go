package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// summary is the table at the end of a run.
func (r *run) summary(c Counts) string {
	var b strings.Builder
	line := func(name string, value any) { fmt.Fprintf(&b, "%-44s %10v\n", name, value) }
	line("seed", r.Seed)
	line("under the nemesis", r.Duration)
	line("to come to the end afterwards", r.took.Round(10*time.Millisecond))
	line("records", c.Records)
	line("streams", c.Streams)
	line("published", c.Published)
	line("sent", c.Sent)
	line("acknowledged", c.Acknowledged)
	line("refused by the rules", c.Refused)
	line("lost races", c.Conflicts)
	line("failed, nothing written", c.Failed)
	line("unknown outcome", c.Unknown)
	line("no answer, as the sender was killed", c.Unsaid)
	line("sent again", c.Retried)
	starts, deaths := make(map[Role]int), 0
	for _, p := range r.processes {
		starts[p.Role] += p.starts
		deaths += p.deaths
	}
	for _, role := range slices.Sorted(maps.Keys(starts)) {
		line(fmt.Sprintf("processes started: %s", role), starts[role])
	}
	line("processes that gave up", deaths)
	for _, fault := range slices.Sorted(maps.Keys(r.faults)) {
		line("nemesis: "+fault, r.faults[fault])
	}
	line("violations", len(r.violations))
	return b.String()
}
