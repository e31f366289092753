package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/thalo-go/es/bench/internal/result"
)

// A section is the part of the report about a benchmark.
type section struct {
	benchmark, title, text string
	chart                  string // names of the charts above the table
	without                string // a unit that is meaningless here
}

// sections are in the order of the report. Other benchmarks follow at the end.
var sections = []section{
	{"Append", "Append, one event at a time", "Each writer appends an event of 120 bytes as soon as its previous one is durable.", "append latency", ""},
	{"AppendLimit", "Append against the limit of the database", "1,000 writers with one event each, against inserting the same rows as fast as possible, 1,000 per transaction.", "", ""},
	{"AppendBatch", "Append, several events at a time", "16 writers.", "", ""},
	{"AppendPayload", "Append, by size of the event", "128 writers.", "", ""},
	{"Processes", "Several processes on one log", "64 writers in total, against as many in one process.", "", ""},
	{"Execute", "Commands", "Warm: each caller has its own cached account. Cold: no account is cached. Hot: all callers use one account. Mixed: nine loads for each command.", "", ""},
	{"Load", "Loads", "Loading the state of an account that is not cached.", "", "events/s"},
	{"All", "Reading the whole log", "", "", ""},
	{"Follow", "Following", "Delay from the return of Append to the follower's loop body.", "", ""},
	{"Inline", "Inline projections", "Appends of one event to a log with a projection that runs in the append transaction, against the same log without it.", "", ""},
	{"Rebuild", "Rebuilding a read model", "A count and a sum for each account, over the whole log.", "", ""},
	{"Project", "Delay of a projection", "Delay from the return of Append to the commit of the read model by another store value.", "", ""},
	{"Relay", "Relay to Kafka", "From es.Mem; kafkatest is the in-process broker.", "", ""},
	{"RelayDelay", "Delay of a relay", "Delay from the return of Append to a reader of committed messages.", "", ""},
	{"Consumer", "Consumer", "At least once, against a consumer that only reads; both join a group first.", "", ""},
	{"Source", "Read models from Kafka", "Exactly once, against a consumer that only reads.", "", ""},
	{"EndToEnd", "End to end", "Delay from the return of Execute to the commit of the read model in another service's database, through a relay, a topic and a source.", "", ""},
	{"Growth", "Growth", "The same operations on logs that already have the given number of events.", "growth", ""},
}

// columns are the units in the tables, in this order, together with the ratios to baselines.
var columns = []struct{ unit, title string }{
	{"events/s", "events/s"},
	{"p50-ms", "p50 ms"},
	{"p99-ms", "p99 ms"},
	{"x-", ""}, // all ratios
	{"cpu-us/event", "CPU µs/event"},
	{"server-cpu-us/event", "server CPU µs/event"},
	{"allocs/event", "allocs/event"},
	{"disk-B/event", "disk B/event"},
}

func markdown(set *result.Set, charts []chart) string {
	var b strings.Builder
	b.WriteString("# Results\n\nWritten by [bench/report](report); `make results` measures everything again. [bench](doc.go) describes what is measured and how, [bench/baseline](baseline/baseline.go) what the baselines leave out.\n" +
		"Toolkit and baseline ran alternately, so the ratios are more reliable than the rates: \"× insert 7\" is seven times the rate of one INSERT per event.\n")
	machine(&b, set.Machine)
	figures(&b, set.Figures, charts)
	left := slices.Clone(set.Benchmarks)
	for _, s := range sections {
		var rows []result.Benchmark
		rows, left = take(left, s.benchmark)
		benchmarks(&b, s, rows, charts)
	}
	for len(left) > 0 {
		var rows []result.Benchmark
		name := left[0].Name
		rows, left = take(left, name)
		if name != "Sync" { // shown in the table of the machine
			benchmarks(&b, section{benchmark: name, title: name}, rows, charts)
		}
	}
	return b.String()
}

// take separates the benchmarks with a name from the others.
func take(all []result.Benchmark, name string) (named, others []result.Benchmark) {
	for _, b := range all {
		if b.Name == name {
			named = append(named, b)
		} else {
			others = append(others, b)
		}
	}
	return named, others
}

func machine(b *strings.Builder, m result.Machine) {
	b.WriteString("\n## Machine\n\n| | |\n| --- | --- |\n")
	row := func(what, value string) {
		if value != "" {
			fmt.Fprintf(b, "| %s | %s |\n", what, value)
		}
	}
	if m.CPUs > 0 {
		row("processors", strings.TrimSpace(fmt.Sprintf("%d × %s", m.CPUs, m.CPU))+", shared by clients and servers")
	}
	if m.Memory > 0 {
		row("memory", fmt.Sprintf("%.0f GB", float64(m.Memory)/(1<<30)))
	}
	row("system", m.System)
	if m.SyncMicros > 0 {
		row("write of a page and fsync", number(m.SyncMicros)+" µs")
	}
	names := map[string]string{"go": "Go", "sqlite": "SQLite", "postgres": "PostgreSQL", "kafka": "Kafka", "librdkafka": "librdkafka"}
	for _, name := range slices.Sorted(maps.Keys(m.Versions)) {
		row(names[name], strings.TrimPrefix(m.Versions[name], "go"))
	}
}

func figures(b *strings.Builder, all []result.Figure, charts []chart) {
	if len(all) == 0 {
		return
	}
	short := 0
	for _, f := range all {
		if !f.OK {
			short++
		}
	}
	fmt.Fprintf(b, "\n## Figures\n\n%d of %d reach their goal. Figures without a unit are ratios.\n", len(all)-short, len(all))
	picture(b, charts, "figures")
	b.WriteString("\n| figure | | goal | | what |\n| --- | ---: | --- | --- | --- |\n")
	for _, f := range all {
		verdict := "ok"
		if !f.OK {
			verdict = "**short**"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", f.Name, f.Text, f.Goal, verdict, f.What)
	}
}

func picture(b *strings.Builder, charts []chart, name string) {
	for _, c := range charts {
		if c.name == name {
			fmt.Fprintf(b, "\n![%s](charts/%s.svg)\n", c.caption, c.name)
		}
	}
}

func benchmarks(b *strings.Builder, s section, rows []result.Benchmark, charts []chart) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n", s.title)
	if s.text != "" {
		fmt.Fprintf(b, "\n%s\n", s.text)
	}
	for name := range strings.FieldsSeq(s.chart) {
		picture(b, charts, name)
	}
	keys, units := keysOf(rows), unitsOf(rows)
	units = slices.DeleteFunc(units, func(c column) bool { return c.unit == s.without })
	b.WriteString("\n|")
	for _, k := range keys {
		fmt.Fprintf(b, " %s |", k)
	}
	for _, u := range units {
		fmt.Fprintf(b, " %s |", u.title)
	}
	b.WriteString("\n|" + strings.Repeat(" --- |", len(keys)) + strings.Repeat(" ---: |", len(units)) + "\n")
	for _, row := range rows {
		b.WriteString("|")
		for _, k := range keys {
			fmt.Fprintf(b, " %s |", grouped(row.Get(k)))
		}
		for _, u := range units {
			text := ""
			if v, ok := row.Values[u.unit]; ok {
				text = number(v)
			}
			fmt.Fprintf(b, " %s |", text)
		}
		b.WriteString("\n")
	}
}

// keysOf returns the keys in the names of benchmarks, in order of first occurrence.
func keysOf(rows []result.Benchmark) (keys []string) {
	for _, row := range rows {
		for _, k := range row.Keys {
			if !slices.Contains(keys, k.Name) {
				keys = append(keys, k.Name)
			}
		}
	}
	return keys
}

type column struct{ unit, title string }

// unitsOf returns the columns that have a value in any row.
func unitsOf(rows []result.Benchmark) (units []column) {
	reported := make(map[string]bool)
	for _, row := range rows {
		for unit := range row.Values {
			reported[unit] = true
		}
	}
	for _, c := range columns {
		if c.unit == "x-" {
			for _, unit := range slices.Sorted(maps.Keys(reported)) {
				if name, ok := strings.CutPrefix(unit, c.unit); ok {
					units = append(units, column{unit, "× " + name})
				}
			}
		} else if reported[c.unit] {
			units = append(units, column{c.unit, c.title})
		}
	}
	return units
}

// number formats a number with three significant digits, and groups the digits of a whole number.
func number(v float64) string {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'e', 2, 64), 64)
	if err != nil {
		return err.Error() // does not happen
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(rounded))+1e-9))
	return grouped(strconv.FormatFloat(rounded, 'f', max(digits, 0), 64))
}

// grouped inserts thousands separators into a whole number and returns any other text unchanged.
func grouped(text string) string {
	if _, err := strconv.ParseUint(text, 10, 64); err != nil {
		return text
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
