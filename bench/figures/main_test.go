package main

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/result"
)

// constant is a figure that comes out at a value.
func constant(name string, g goal, value float64) figure {
	return figure{name, "nothing, against itself", g, func(context.Context, *session) (outcome, error) {
		return outcome{value: value, details: []string{"ours\t1/s", "theirs\t2/s"}}, nil
	}}
}

func runFigures(t *testing.T, table []figure, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), append([]string{"-dir", t.TempDir()}, args...), table, &out)
	return out.String(), err
}

func TestEveryFigureHasANameOfItsOwn(t *testing.T) {
	seen := make(map[string]bool)
	for _, f := range table() {
		if f.name == "" || f.what == "" || f.goal.bound <= 0 || f.measure == nil {
			t.Errorf("figure %q is not complete: %+v", f.name, f)
		}
		if seen[f.name] {
			t.Errorf("figure %q is in the table twice: its second row could not be named", f.name)
		}
		seen[f.name] = true
	}
}

func TestRun(t *testing.T) {
	figures := []figure{
		constant("fast", atLeast(5), 6),
		constant("slow", atLeast(5), 4.99),
		constant("small", atMost(30, "MB"), 30),
	}
	t.Run("prints a line for each figure", func(t *testing.T) {
		out, err := runFigures(t, figures)
		if err != nil {
			t.Fatal(err)
		}
		var lines [][]string
		for line := range strings.Lines(out) {
			lines = append(lines, strings.Fields(line))
		}
		want := []string{"fast 6.00 ≥ 5 ok", "slow 4.99 ≥ 5 short", "small 30.0 MB ≤ 30 MB ok"}
		if len(lines) != 1+len(want) {
			t.Fatalf("printed %q, want the machine and %d lines", out, len(want))
		}
		for i, want := range want {
			if got := strings.Join(lines[i+1], " "); got != want {
				t.Errorf("line %d is %q, want %q", i+1, got, want)
			}
		}
	})
	t.Run("measures those that are named, in that order", func(t *testing.T) {
		out, err := runFigures(t, figures, "small", "fast")
		if err != nil || strings.Contains(out, "slow") || strings.Index(out, "small") > strings.Index(out, "fast") {
			t.Errorf("printed %q, err %v", out, err)
		}
	})
	t.Run("refuses an unknown name, and lists those that there are", func(t *testing.T) {
		out, err := runFigures(t, figures, "fast", "fst")
		if err == nil || !strings.Contains(err.Error(), `"fst"`) || !strings.Contains(err.Error(), "fast slow small") {
			t.Errorf("err is %v", err)
		}
		if out != "" {
			t.Errorf("printed %q before it looked at the names", out)
		}
	})
	t.Run("fails for a figure that is short only with -strict", func(t *testing.T) {
		if _, err := runFigures(t, figures); err != nil {
			t.Errorf("without -strict: %v", err)
		}
		if _, err := runFigures(t, figures, "-strict"); !errors.Is(err, errShort) {
			t.Errorf("with -strict: %v, want %v", err, errShort)
		}
		if _, err := runFigures(t, figures, "-strict", "fast", "small"); err != nil {
			t.Errorf("with -strict and none short: %v", err)
		}
	})
	t.Run("prints with -v what was measured and the numbers behind it", func(t *testing.T) {
		out, err := runFigures(t, figures, "-v", "fast")
		if err != nil || !strings.Contains(out, "nothing, against itself") || !strings.Contains(out, "theirs  2/s") {
			t.Errorf("printed %q, err %v", out, err)
		}
	})
	t.Run("writes with -json what bench/report reads", func(t *testing.T) {
		file := t.TempDir() + "/figures.json"
		if _, err := runFigures(t, figures, "-json", file); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var set result.Set
		if err := set.Read(file, f); err != nil {
			t.Fatal(err)
		}
		want := []result.Figure{
			{Name: "fast", Value: 6, Text: "6.00", Goal: "≥ 5", Bound: 5, OK: true},
			{Name: "slow", Value: 4.99, Text: "4.99", Goal: "≥ 5", Bound: 5},
			{Name: "small", Value: 30, Text: "30.0 MB", Goal: "≤ 30 MB", Bound: 30, Most: true, OK: true},
		}
		for i := range want {
			want[i].What, want[i].Details = "nothing, against itself", []string{"ours\t1/s", "theirs\t2/s"}
		}
		if diff := cmp.Diff(want, set.Figures); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if m := set.Machine; m.CPUs != runtime.GOMAXPROCS(0) || m.SyncMicros <= 0 || m.Versions["go"] != runtime.Version() {
			t.Errorf("the machine is %+v", m)
		}
	})
	t.Run("names the figure that could not be measured", func(t *testing.T) {
		broken := figure{"broken", "", atLeast(1), func(context.Context, *session) (outcome, error) { return outcome{}, errors.New("no disk") }}
		if _, err := runFigures(t, []figure{broken}); err == nil || err.Error() != "broken: no disk" {
			t.Errorf("err is %v", err)
		}
	})
}

func TestGoal(t *testing.T) {
	for _, c := range []struct {
		goal  goal
		value float64
		want  bool
	}{
		{atLeast(5), 5, true},
		{atLeast(5), 4.999, false},
		{atLeast(5), math.NaN(), false},
		{atMost(1.3, ""), 1.3, true},
		{atMost(1.3, ""), 1.301, false},
		{atMost(1.3, ""), math.NaN(), false},
	} {
		if got := c.goal.metBy(c.value); got != c.want {
			t.Errorf("%v met by %v: %v, want %v", c.goal, c.value, got, c.want)
		}
	}
}

func TestRatioPutsOursOverTheirs(t *testing.T) {
	// Ours counts for a million times as much.
	set := func(context.Context, *round) (ours, theirs measure.Side, err error) {
		idle := func(context.Context, int) error { return nil }
		ours = measure.Side{Name: "ours", Callers: 1, Units: 1_000_000, Op: idle}
		theirs = measure.Side{Name: "theirs", Callers: 1, Units: 1, Op: idle}
		return ours, theirs, nil
	}
	s := &session{effort: smoke, dir: t.TempDir()}
	rate, err := rates(set)(t.Context(), s)
	if err != nil || rate.value < 1000 {
		t.Errorf("ratio of rates is %v, err %v; want ours over theirs, which is far above 1", rate.value, err)
	}
	time, err := times(set)(t.Context(), s)
	if err != nil || time.value > 0.001 {
		t.Errorf("ratio of times is %v, err %v; want ours over theirs, which is far below 1", time.value, err)
	}
}

func TestRoundsHaveFoldersOfTheirOwnAndLeaveNothing(t *testing.T) {
	s := &session{effort: effort{rounds: 2, pairs: 1}, dir: t.TempDir()}
	seen := make(map[string]bool)
	var order []string
	_, err := s.compare(t.Context(), func(_ context.Context, r *round) (ours, theirs measure.Side, err error) {
		seen[r.dir] = true
		r.cleanup(func() error { order = append(order, "first"); return nil })
		r.cleanup(func() error { order = append(order, "second"); return nil })
		side := measure.Side{Callers: 1, Op: func(context.Context, int) error { return nil }}
		return side, side, os.WriteFile(r.dir+"/file", nil, 0o600)
	})
	left, readErr := os.ReadDir(s.dir)
	if err != nil || readErr != nil || len(seen) != 2 || len(left) != 0 {
		t.Errorf("%d folders used, %d left, errors %v, %v; want 2 and 0", len(seen), len(left), err, readErr)
	}
	if got := strings.Join(order, " "); got != "second first second first" {
		t.Errorf("cleaned up %s, want the last one first in each round", got)
	}
}

func TestAFigureOfSQLite(t *testing.T) {
	out, err := runFigures(t, table(), "-short", "sqlite-append-1", "sqlite-load-1000", "sqlite-hot")
	if err != nil || strings.Count(out, "\n") != 4 {
		t.Errorf("printed %q, err %v", out, err)
	}
}

func TestFollowerReportsItsMemory(t *testing.T) {
	path := t.TempDir() + "/store.db"
	if err := sqliteFill(t.Context(), path, 1000); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := measureFollow(t.Context(), []string{"1000", "sqlite", path}, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `"Records":1000`) || strings.Contains(out.String(), `"Most":0`) {
		t.Errorf("it says %s", out.String())
	}
	if err := measureFollow(t.Context(), []string{"1000", "papyrus", path}, &out); err == nil {
		t.Error("no error for a backend that there is not")
	}
}
