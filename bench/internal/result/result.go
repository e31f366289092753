// Package result has the results of measurements, in the formats in which programs exchange them: the output of go test -bench, and lines
// of JSON for the figures.
package result

import (
	"slices"
	"strings"

	"github.com/thalo-go/es/bench/internal/measure"
)

// A Set has all results.
type Set struct {
	Machine    Machine
	Figures    []Figure
	Benchmarks []Benchmark
}

// A Line is a line of JSON that bench/figures writes. Exactly one field is set.
type Line struct {
	Machine *Machine `json:",omitempty"`
	Figure  *Figure  `json:",omitempty"`
}

// A Machine describes the machine of the measurement. Unknown fields are empty.
type Machine struct {
	CPU        string
	CPUs       int
	Memory     int64 // bytes
	System     string
	SyncMicros float64 // the time to append a page to a file and sync it
	Versions   map[string]string
}

// A Figure is a figure and its goal.
type Figure struct {
	Name, What string
	Value      float64
	Text       string // the value as it is printed, with its unit
	Goal       string // ≥ 2.3, ≤ 30 MB
	Bound      float64
	Most       bool // Bound is the maximum, not the minimum
	OK         bool
	Details    []string
}

// Reach compares the value with its goal: 1 is equal to the goal, 2 is twice as good, 0.5 is half as good.
func (f Figure) Reach() float64 {
	if f.Most {
		return f.Bound / f.Value
	}
	return f.Value / f.Bound
}

// A Benchmark is one line of go test -bench, or the medians of several with the same name.
type Benchmark struct {
	Name   string // such as Append, without the keys
	Keys   []Key
	Values map[string]float64 // by unit: ns/op and similar units, and the reported metrics
}

// A Key is a part of a benchmark's name, such as store=postgres.
type Key struct{ Name, Value string }

// Get returns the value of a key, "" if the name does not have it.
func (b Benchmark) Get(key string) string {
	for _, k := range b.Keys {
		if k.Name == key {
			return k.Value
		}
	}
	return ""
}

// Has reports whether the benchmark has a value for a unit.
func (b Benchmark) Has(unit string) bool {
	_, ok := b.Values[unit]
	return ok
}

// id returns the name with its keys.
func (b Benchmark) id() string {
	var id strings.Builder
	id.WriteString(b.Name)
	for _, k := range b.Keys {
		id.WriteString("/" + k.Name + "=" + k.Value)
	}
	return id.String()
}

// together merges benchmarks with the same name into one that has the median values. It keeps the order of the first occurrences.
func together(all []Benchmark) []Benchmark {
	var order []string
	runs := make(map[string][]Benchmark)
	for _, b := range all {
		id := b.id()
		if runs[id] == nil {
			order = append(order, id)
		}
		runs[id] = append(runs[id], b)
	}
	merged := make([]Benchmark, 0, len(order))
	for _, id := range order {
		values := make(map[string][]float64)
		for _, b := range runs[id] {
			for unit, v := range b.Values {
				values[unit] = append(values[unit], v)
			}
		}
		b := Benchmark{runs[id][0].Name, runs[id][0].Keys, make(map[string]float64)}
		for unit, v := range values {
			b.Values[unit] = measure.Median(v)
		}
		merged = append(merged, b)
	}
	return slices.Clip(merged)
}
