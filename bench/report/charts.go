package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/thalo-go/es/bench/internal/result"
)

// stores are the stores with charts.
var stores = []struct{ name, title string }{{"postgres", "PostgreSQL"}, {"sqlite", "SQLite"}}

// rivalNames are the names of baselines in legends.
var rivalNames = map[string]string{"textbook": "textbook transaction", "insert": "one INSERT per event", "limit": "limit of the database"}

// chartsOf returns the charts for which there is data.
func chartsOf(set *result.Set) (charts []chart) {
	add := func(name, caption string, width, height vg.Length, plots []*plot.Plot) {
		if len(plots) > 0 {
			charts = append(charts, chart{name, caption, plots, width * vg.Length(len(plots)), height})
		}
	}
	appends, _ := take(set.Benchmarks, "Append")
	limits, _ := take(set.Benchmarks, "AppendLimit")
	growth, _ := take(set.Benchmarks, "Growth")
	var throughput, latency, grown []*plot.Plot
	for _, s := range stores {
		if p := throughputPlot(s.title, of(appends, s.name), of(limits, s.name)); p != nil {
			throughput = append(throughput, p)
		}
		if p := latencyPlot(s.title, of(appends, s.name)); p != nil {
			latency = append(latency, p)
		}
		if p := growthPlot(s.title, of(growth, s.name)); p != nil {
			grown = append(grown, p)
		}
	}
	add("append", "Appends per second by number of writers, compared with the baselines", 330, 280, throughput)
	add("latency", "Append latency by appends per second", 330, 280, latency)
	add("growth", "Time of the same operations on logs of different sizes", 330, 280, grown)
	if len(set.Figures) > 0 {
		add("figures", "Each figure relative to its goal", 560, vg.Length(60+15*len(set.Figures)), []*plot.Plot{figuresPlot(set.Figures)})
	}
	return charts
}

// of returns the benchmarks of a store.
func of(all []result.Benchmark, store string) (own []result.Benchmark) {
	for _, b := range all {
		if b.Get("store") == store {
			own = append(own, b)
		}
	}
	return own
}

// points returns the x and y values of benchmarks, sorted by x. Benchmarks without both are left out.
func points(rows []result.Benchmark, x, y func(result.Benchmark) (float64, bool)) plotter.XYs {
	var points plotter.XYs
	for _, row := range rows {
		a, haveX := x(row)
		b, haveY := y(row)
		if haveX && haveY && a > 0 && b > 0 {
			points = append(points, plotter.XY{X: a, Y: b})
		}
	}
	slices.SortStableFunc(points, func(a, b plotter.XY) int { return cmp.Compare(a.X, b.X) })
	return points
}

func key(name string) func(result.Benchmark) (float64, bool) {
	return func(b result.Benchmark) (float64, bool) {
		v, err := strconv.ParseFloat(b.Get(name), 64)
		return v, err == nil
	}
}

func unit(name string) func(result.Benchmark) (float64, bool) {
	return func(b result.Benchmark) (float64, bool) {
		v, ok := b.Values[name]
		return v, ok
	}
}

// rivalsOf returns the names of the measured baselines, sorted.
func rivalsOf(rows []result.Benchmark) (rivals []string) {
	for _, row := range rows {
		for u := range row.Values {
			if name, ok := strings.CutPrefix(u, "x-"); ok && !slices.Contains(rivals, name) {
				rivals = append(rivals, name)
			}
		}
	}
	slices.Sort(rivals)
	return rivals
}

func rivalName(rival string) string { return cmp.Or(rivalNames[rival], rival) }

func throughputPlot(title string, rows, limits []result.Benchmark) *plot.Plot {
	ours := points(rows, key("writers"), unit("events/s"))
	if len(ours) < 2 {
		return nil
	}
	p := newPlot(title+": appends per second", "writers")
	logarithmic(p, []float64{2, 5}, []float64{2, 5})
	addGrid(p)
	must(addLine(p, 0, "es", ours, false))
	for i, rival := range rivalsOf(rows) {
		must(addLine(p, i+1, rivalName(rival), points(rows, key("writers"), unit(rival+"-events/s")), true))
	}
	if len(limits) == 1 && limits[0].Has("limit-events/s") {
		y := limits[0].Values["limit-events/s"]
		line := &plotter.Line{XYs: plotter.XYs{{X: ours[0].X, Y: y}, {X: ours[len(ours)-1].X, Y: y}}}
		line.Color, line.Width, line.Dashes = grey, 1.5, []vg.Length{2, 2}
		p.Add(line)
		p.Legend.Add(rivalName("limit"), line)
	}
	headroom(p, len(rivalsOf(rows))+2)
	return p
}

func latencyPlot(title string, rows []result.Benchmark) *plot.Plot {
	if len(points(rows, unit("events/s"), unit("p99-ms"))) < 2 {
		return nil
	}
	p := newPlot(title+": milliseconds", "appends per second (labels: writers)")
	logarithmic(p, []float64{2, 5}, nil)
	addGrid(p)
	byWriters := slices.Clone(rows)
	slices.SortStableFunc(byWriters, func(a, b result.Benchmark) int {
		x, _ := key("writers")(a)
		y, _ := key("writers")(b)
		return cmp.Compare(x, y)
	})
	// A curve follows the number of writers, also back to the left where more writers are slower.
	curve := func(n int, name, prefix, percent string, dashed bool) {
		var points plotter.XYs
		for _, row := range byWriters {
			if x, y := row.Values[prefix+"events/s"], row.Values[prefix+percent]; x > 0 && y > 0 {
				points = append(points, plotter.XY{X: x, Y: y})
			}
		}
		must(addLine(p, n, name, points, dashed))
	}
	curve(0, "es, p50", "", "p50-ms", false)
	curve(5, "es, p99", "", "p99-ms", false)
	rivals := rivalsOf(rows)
	if slices.Contains(rivals, "textbook") {
		rivals = []string{"textbook"}
	}
	for _, rival := range rivals {
		curve(1, rivalName(rival)+", p50", rival+"-", "p50-ms", true)
		curve(4, rivalName(rival)+", p99", rival+"-", "p99-ms", true)
	}
	labelWriters(p, byWriters)
	headroom(p, 4)
	return p
}

// labelWriters adds the number of writers to the points of our p50.
func labelWriters(p *plot.Plot, rows []result.Benchmark) {
	var at plotter.XYLabels
	for _, row := range rows {
		if x, y := row.Values["events/s"], row.Values["p50-ms"]; x > 0 && y > 0 {
			at.XYs = append(at.XYs, plotter.XY{X: x, Y: y})
			at.Labels = append(at.Labels, grouped(row.Get("writers")))
		}
	}
	labels, err := plotter.NewLabels(at)
	must(err)
	for i := range labels.TextStyle {
		labels.TextStyle[i] = p.Legend.TextStyle
		labels.TextStyle[i].Color, labels.TextStyle[i].Font.Size = colors[0], 9
		labels.TextStyle[i].XAlign, labels.TextStyle[i].YAlign = text.XLeft, text.YTop
	}
	labels.Offset = vg.Point{X: 3, Y: -3}
	p.Add(labels)
}

// growthPlot shows the time of operations relative to the smallest log.
func growthPlot(title string, rows []result.Benchmark) *plot.Plot {
	var works []string
	for _, row := range rows {
		if w := row.Get("work"); !slices.Contains(works, w) {
			works = append(works, w)
		}
	}
	p := newPlot(title+": time relative to the smallest log", "events in the log")
	logarithmic(p, nil, nil)
	p.Y.Scale, p.Y.Tick.Marker = plot.LinearScale{}, plot.DefaultTicks{}
	addGrid(p)
	most := 2.0
	lines := 0
	for i, w := range works {
		var own []result.Benchmark
		for _, row := range rows {
			if row.Get("work") == w {
				own = append(own, row)
			}
		}
		// Use the rate for concurrent work and the latency for a single caller.
		points := points(own, key("stored"), func(b result.Benchmark) (float64, bool) {
			if rate, ok := b.Values["events/s"]; ok {
				return 1 / rate, true
			}
			return unit("p50-ms")(b)
		})
		if len(points) < 2 {
			continue
		}
		first := points[0].Y
		for k := range points {
			points[k].Y /= first
			most = max(most, points[k].Y)
		}
		must(addLine(p, i, w, points, false))
		lines++
	}
	if lines == 0 {
		return nil
	}
	p.Y.Min, p.Y.Max = 0, most/(1-legendPart(lines))
	return p
}

// figuresPlot has a bar for each figure, from its goal to its value; to the right is better.
func figuresPlot(all []result.Figure) *plot.Plot {
	p := newPlot("", "value relative to the goal (right is better)")
	names := make([]string, len(all))
	low, high := 0.5, 2.0
	for i, f := range all {
		names[len(all)-1-i] = f.Name
		if r := f.Reach(); r > 0 && !math.IsInf(r, 0) && !math.IsNaN(r) {
			low, high = min(low, r), max(high, r)
		}
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = nil, faint // the text is at the horizontal lines
	p.Add(grid, &bars{all})
	p.NominalY(names...)
	p.Y.Tick.Width = 0
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, logTicks{[]float64{2, 5}}
	p.X.Min, p.X.Max = low/1.1, high*2.6 // space for the numbers beside the bars
	p.Y.Min, p.Y.Max = -0.7, float64(len(all))-0.3
	return p
}

// bars draws the bars of figures.
type bars struct{ figures []result.Figure }

// Plot implements plot.Plotter.
func (b *bars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for i, f := range b.figures {
		reach := f.Reach()
		if math.IsNaN(reach) || math.IsInf(reach, 0) || reach <= 0 {
			continue
		}
		middle := y(float64(len(b.figures) - 1 - i))
		fill := colors[2]
		if !f.OK {
			fill = colors[1]
		}
		from, to := x(1), x(reach)
		half := vg.Length(4.5)
		c.FillPolygon(fill, []vg.Point{{X: from, Y: middle - half}, {X: to, Y: middle - half}, {X: to, Y: middle + half}, {X: from, Y: middle + half}})
		style := p.Legend.TextStyle
		style.Font.Size, style.YAlign, style.XAlign = 9, text.YCenter, text.XLeft
		c.FillText(style, vg.Point{X: max(from, to) + 4, Y: middle + 1.5}, fmt.Sprintf("%s (%s)", f.Text, f.Goal))
	}
	c.StrokeLine2(draw.LineStyle{Color: grey, Width: 1.5}, x(1), c.Min.Y, x(1), c.Max.Y)
}

func logarithmic(p *plot.Plot, betweenX, betweenY []float64) {
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, logTicks{betweenX}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, logTicks{betweenY}
}

// headroom adds space above the lines for a legend with n entries, and a little at the other ends, on logarithmic axes.
func headroom(p *plot.Plot, entries int) {
	legend := legendPart(entries)
	p.Y.Min /= 1.3
	p.Y.Max *= math.Pow(p.Y.Max/p.Y.Min, legend/(1-legend))
	p.X.Min /= 1.15
	p.X.Max *= 1.3
}

// legendPart is the fraction of a plot's height that a legend takes.
func legendPart(entries int) float64 { return 0.06 + 0.075*float64(entries) }

// must panics on errors of plotter, which checked data does not cause.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
