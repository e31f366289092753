package main

import (
	"encoding/xml"
	"errors"
	"flag"
	"image/color"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/thalo-go/es/bench/internal/result"
)

var updateGolden = flag.Bool("update", false, "write testdata/RESULTS.golden anew")

func TestReport(t *testing.T) {
	dir := t.TempDir()
	if err := run([]string{"-out", dir, "testdata/bench.txt", "testdata/figures.json"}, strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "RESULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	golden := "testdata/RESULTS.golden"
	if *updateGolden {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("-want +got, go test ./bench/report -update writes it anew:\n%s", diff)
	}
	for _, name := range []string{"append", "latency", "growth", "figures"} {
		svg, err := os.ReadFile(filepath.Join(dir, "charts", name+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(got), "(charts/"+name+".svg)") {
			t.Errorf("chart %s is not shown", name)
		}
		if err := wellFormed(string(svg)); err != nil {
			t.Errorf("chart %s: %v", name, err)
		}
		for _, bad := range []string{"NaN", "Inf", "#-"} {
			if strings.Contains(string(svg), bad) {
				t.Errorf("chart %s has %s in it", name, bad)
			}
		}
	}
}

func wellFormed(text string) error {
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// What is cut off has something in the last pixels before the edge.
func TestNothingIsCutOff(t *testing.T) {
	for _, c := range chartsOf(load(t)) {
		canvas := vgimg.NewWith(vgimg.UseWH(c.width, c.height), vgimg.UseBackgroundColor(color.White))
		c.draw(canvas)
		img := canvas.Image()
		edge := img.Bounds()
		inked := 0
		for x := edge.Min.X; x < edge.Max.X; x++ {
			for y := edge.Min.Y; y < edge.Max.Y; y++ {
				if r, g, b, _ := img.At(x, y).RGBA(); r == 0xffff && g == 0xffff && b == 0xffff {
					continue
				}
				inked++
				if x < edge.Min.X+2 || x >= edge.Max.X-2 || y < edge.Min.Y+2 || y >= edge.Max.Y-2 {
					t.Fatalf("chart %s reaches its edge at %d,%d of %v", c.name, x, y, edge)
				}
			}
		}
		if inked < 5000 {
			t.Errorf("chart %s is almost empty: %d pixels", c.name, inked)
		}
	}
}

func load(t *testing.T) *result.Set {
	t.Helper()
	var set result.Set
	for _, file := range []string{"testdata/bench.txt", "testdata/figures.json"} {
		if err := read(&set, file, nil); err != nil {
			t.Fatal(err)
		}
	}
	return &set
}

func TestAChartWithTooLittleToShowIsLeftOut(t *testing.T) {
	set := load(t)
	set.Figures = nil
	set.Benchmarks = set.Benchmarks[:1]
	if charts := chartsOf(set); len(charts) != 0 {
		t.Errorf("%d charts of one benchmark", len(charts))
	}
	if text := markdown(set, nil); strings.Contains(text, "charts/") || strings.Contains(text, "## Figures") {
		t.Errorf("it shows what there is not:\n%s", text)
	}
}

func TestReadmeGetsTheFiguresThatMatter(t *testing.T) {
	set := &result.Set{Figures: []result.Figure{{Name: "pg-append-1", Text: "0.91"}, {Name: "pg-hot", Text: "93.3"}}}
	text := "# Title\n\nBefore.\n" + readmeBegin + "old\n" + readmeEnd + "After.\n"
	got, err := readme(text, set, []chart{{name: "latency"}, {name: "append", caption: "Appends"}})
	if err != nil {
		t.Fatal(err)
	}
	want := "# Title\n\nBefore.\n" + readmeBegin + `
| PostgreSQL | times as fast | |
| --- | ---: | --- |
| commands of 64 callers on one account, against load, decide, append with retries on conflict | 93.3 | ` + "`pg-hot`" + ` |

![Appends](bench/charts/append.svg)

` + readmeEnd + "After.\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if again, err := readme(got, set, []chart{{name: "append", caption: "Appends"}}); again != got || err != nil {
		t.Errorf("the second time it makes, err %v:\n%s", err, again)
	}
	if _, err := readme("# Title\n", set, nil); err == nil {
		t.Error("no error for a README without a place for them")
	}
}

func TestRunReadsStandardInput(t *testing.T) {
	dir := t.TempDir()
	if err := run([]string{"-out", dir}, strings.NewReader("BenchmarkAll/store=mem-2 1 5 ns/op 7 events/s\n")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "RESULTS.md"))
	if err != nil || !strings.Contains(string(text), "| mem | 7.00 |") {
		t.Errorf("it says %s, err %v", text, err)
	}
	if err := run([]string{"-out", dir}, strings.NewReader("PASS\n")); err == nil {
		t.Error("no error where nothing was measured")
	}
}

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want string
	}{
		{0, "0"},
		{0.000123456, "0.000123"},
		{0.5, "0.500"},
		{1, "1.00"},
		{9.996, "10.0"},
		{12.34, "12.3"},
		{123.6, "124"},
		{999.9, "1,000"},
		{1234.5, "1,230"},
		{1234567, "1,230,000"},
		{math.NaN(), "NaN"},
	} {
		if got := number(c.v); got != c.want {
			t.Errorf("%v is %s, want %s", c.v, got, c.want)
		}
	}
	for _, c := range []struct {
		v    float64
		want string
	}{{0.2, "0.2"}, {5, "5"}, {1000, "1k"}, {50_000, "50k"}, {10_000_000, "10M"}} {
		if got := short(c.v); got != c.want {
			t.Errorf("%v in short is %s, want %s", c.v, got, c.want)
		}
	}
}
