package main

import (
	"fmt"
	"image/color"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
)

// draw draws the funnel with a bar for each stage, divided by band. The extension of path selects the format: .svg, .png or .pdf.
func draw(f *funnel, path string) error {
	p := plot.New()
	p.Title.Text = "Loan applications by the stages they reached"
	p.Title.Padding = vg.Points(8)
	p.Y.Label.Text = "applications"
	p.Y.Min = 0
	p.Legend.Top = true
	p.Legend.Padding, p.Legend.XOffs = vg.Points(2), -vg.Points(6)
	colours := []color.Color{color.RGBA{33, 68, 120, 255}, color.RGBA{66, 120, 181, 255}, color.RGBA{128, 174, 214, 255}, color.RGBA{198, 219, 239, 255}}
	names := make([]string, len(funnelStages))
	for i, s := range funnelStages {
		names[i] = strings.ToLower(strings.TrimPrefix(string(s), "A_"))
	}
	var below *plotter.BarChart
	for b, band := range bands {
		values := make(plotter.Values, len(funnelStages))
		for i, s := range funnelStages {
			if f.reached[s] != nil {
				values[i] = float64(f.reached[s][b])
			}
		}
		bars, err := plotter.NewBarChart(values, vg.Points(46))
		if err != nil {
			return fmt.Errorf("draw %s: %w", path, err)
		}
		bars.Color = colours[b]
		bars.LineStyle.Width = 0
		if below != nil {
			bars.StackOn(below)
		}
		p.Add(bars)
		p.Legend.Add(band+" euros", bars)
		below = bars
	}
	labels, err := totals(f)
	if err != nil {
		return fmt.Errorf("draw %s: %w", path, err)
	}
	p.Add(labels)
	p.NominalX(names...)
	p.X.Tick.Label.YAlign = text.YTop
	p.Y.Max = 1.08 * float64(f.count(funnelStages[0]))
	p.X.Min, p.X.Max = -0.6, float64(len(names))-0.4
	if err := p.Save(22*vg.Centimeter, 12*vg.Centimeter, path); err != nil {
		return fmt.Errorf("draw %s: %w", path, err)
	}
	return nil
}

// totals returns the numbers above the bars.
func totals(f *funnel) (*plotter.Labels, error) {
	at := plotter.XYLabels{}
	for i, s := range funnelStages {
		at.XYs = append(at.XYs, plotter.XY{X: float64(i), Y: float64(f.count(s))})
		at.Labels = append(at.Labels, number(f.count(s)))
	}
	labels, err := plotter.NewLabels(at)
	if err != nil {
		return nil, err
	}
	for i := range labels.TextStyle {
		labels.TextStyle[i].XAlign = text.XCenter
	}
	labels.Offset.Y = vg.Points(3)
	return labels, nil
}
