package result

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Read adds the results in a file to the set. It reads lines of go test -bench and lines of JSON, in any order, and skips other lines such
// as PASS. It returns an error for an incomplete result and for a failed benchmark.
func (s *Set) Read(name string, r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	var found []Benchmark
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		var err error
		switch {
		case strings.HasPrefix(line, "{"):
			err = s.readJSON(line)
		case strings.HasPrefix(line, "Benchmark"):
			var b Benchmark
			if b, err = parseBenchmark(line); err == nil {
				found = append(found, b)
			}
		case strings.HasPrefix(line, "--- FAIL") || strings.HasPrefix(line, "FAIL"):
			err = fmt.Errorf("%q: measure again without failures", line)
		default:
			s.configure(line)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.Benchmarks = together(append(s.Benchmarks, found...))
	return nil
}

func (s *Set) readJSON(text string) error {
	var line Line
	if err := json.Unmarshal([]byte(text), &line); err != nil {
		return err
	}
	if line.Figure != nil {
		s.Figures = append(s.Figures, *line.Figure)
	}
	if m := line.Machine; m != nil {
		for name, version := range m.Versions {
			s.version(name, version)
		}
		m.Versions = s.Machine.Versions
		s.Machine = *m
	}
	return nil
}

// configure reads a line of the form key: value, by which go test and the benchmarks describe the machine.
func (s *Set) configure(line string) {
	key, value, ok := strings.Cut(line, ": ")
	if !ok {
		return
	}
	switch key {
	case "cpu":
		if s.Machine.CPU == "" {
			s.Machine.CPU = value
		}
	case "cpus":
		if n, err := strconv.Atoi(value); err == nil && s.Machine.CPUs == 0 {
			s.Machine.CPUs = n
		}
	case "go", "sqlite", "postgres", "kafka", "librdkafka":
		s.version(key, value)
	}
}

func (s *Set) version(name, version string) {
	if s.Machine.Versions == nil {
		s.Machine.Versions = make(map[string]string)
	}
	s.Machine.Versions[name] = version
}

// parseBenchmark parses a line such as BenchmarkAppend/store=mem/writers=16-2 1000 8103 ns/op 123456 events/s.
func parseBenchmark(line string) (Benchmark, error) {
	fields := strings.Fields(line)
	if len(fields) < 4 || len(fields)%2 != 0 {
		return Benchmark{}, fmt.Errorf("%.80q is not a benchmark result: want a name, a number, and pairs of value and unit", line)
	}
	b := Benchmark{Values: make(map[string]float64)}
	parts := strings.Split(fields[0], "/")
	last := len(parts) - 1
	if i := strings.LastIndexByte(parts[last], '-'); i > 0 {
		if _, err := strconv.Atoi(parts[last][i+1:]); err == nil {
			parts[last] = parts[last][:i] // GOMAXPROCS
		}
	}
	b.Name = strings.TrimPrefix(parts[0], "Benchmark")
	for _, part := range parts[1:] {
		name, value, _ := strings.Cut(part, "=")
		b.Keys = append(b.Keys, Key{name, value})
	}
	for i := 2; i < len(fields); i += 2 {
		value, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return b, fmt.Errorf("%s: %q before %s is not a number", fields[0], fields[i], fields[i+1])
		}
		b.Values[fields[i+1]] = value
	}
	return b, nil
}
