// Package result is what measurements come to, as programs hand it on: the lines of go test -bench, and lines of JSON of the figures.
package result

import (
	"slices"
	"strings"

	"github.com/thalo-go/es/bench/internal/measure"
)

// A Set is all that was measured.
type Set struct {
	Machine    Machine
	Figures    []Figure
	Benchmarks []Benchmark
}

// A Line is a line of JSON of bench/figures. One of its fields is set.
type Line struct {
	Machine *Machine `json:",omitempty"`
	Figure  *Figure  `json:",omitempty"`
}

// A Machine is where it was measured. What is not known is empty.
type Machine struct {
	CPU        string
	CPUs       int
	Memory     int64 // bytes
	System     string
	SyncMicros float64 // to append a page to a file and wait for the disk
	Versions   map[string]string
}

// A Figure is a figure and its goal.
type Figure struct {
	Name, What string
	Value      float64
	Text       string // the value as it is printed, with its unit
	Goal       string // ≥ 2.3, ≤ 30 MB
	Bound      float64
	Most       bool // the bound is the most that is good, not the least
	OK         bool
	Details    []string
}

// Reach tells how the value stands to its goal: 1 is right at it, 2 twice as good, 0.5 half as good.
func (f Figure) Reach() float64 {
	if f.Most {
		return f.Bound / f.Value
	}
	return f.Value / f.Bound
}

// A Benchmark is one line of go test -bench, or the medians of several with the same name.
type Benchmark struct {
	Name   string // Append, without what follows
	Keys   []Key
	Values map[string]float64 // by unit; of ns/op and the like, and what the benchmark has reported
}

// A Key is store=postgres in the name of a benchmark.
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

// Has tells whether the benchmark has reported a unit.
func (b Benchmark) Has(unit string) bool {
	_, ok := b.Values[unit]
	return ok
}

// id is the name in full.
func (b Benchmark) id() string {
	var id strings.Builder
	id.WriteString(b.Name)
	for _, k := range b.Keys {
		id.WriteString("/" + k.Name + "=" + k.Value)
	}
	return id.String()
}

// together makes one of benchmarks with the same name: the medians of what they reported. The order is that in which each name first came.
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
