package main

import (
	"bytes"
	"image/color"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Charts have no background, and pages are light or dark, so colours are of medium brightness.
var (
	grey   = color.RGBA{0x80, 0x80, 0x80, 0xff}
	faint  = color.NRGBA{0x80, 0x80, 0x80, 0x40}
	colors = []color.Color{
		color.RGBA{0x2f, 0x81, 0xf7, 0xff}, // the toolkit
		color.RGBA{0xd9, 0x82, 0x1f, 0xff},
		color.RGBA{0x2e, 0xa0, 0x58, 0xff},
		color.RGBA{0xa3, 0x71, 0xf7, 0xff},
		color.RGBA{0xe0, 0x55, 0x5a, 0xff},
		color.RGBA{0x1f, 0xa0, 0xb0, 0xff},
	}
)

// A chart is one plot or several side by side.
type chart struct {
	name, caption string
	plots         []*plot.Plot
	width, height vg.Length
}

// write writes the chart as SVG, and on request as PNG on white and on black.
func (c chart) write(dir string, png bool) error {
	canvas := vgsvg.New(c.width, c.height)
	c.draw(canvas)
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	// Name fonts with the same widths, for systems without Liberation Sans.
	text := strings.ReplaceAll(svg.String(), "font-family:Liberation Sans;", "font-family:'Liberation Sans',Arial,Helvetica,sans-serif;")
	if err := os.WriteFile(filepath.Join(dir, c.name+".svg"), []byte(text), 0o644); err != nil {
		return err
	}
	if !png {
		return nil
	}
	for name, background := range map[string]color.Color{"light": color.White, "dark": color.RGBA{0x0d, 0x11, 0x17, 0xff}} {
		canvas := vgimg.NewWith(vgimg.UseWH(c.width, c.height), vgimg.UseDPI(150), vgimg.UseBackgroundColor(background))
		c.draw(canvas)
		var out bytes.Buffer
		if _, err := (vgimg.PngCanvas{Canvas: canvas}).WriteTo(&out); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, c.name+"-"+name+".png"), out.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (c chart) draw(canvas vg.CanvasSizer) {
	whole := draw.New(canvas)
	tiles := draw.Tiles{Rows: 1, Cols: len(c.plots), PadX: 18, PadTop: 6, PadBottom: 4, PadLeft: 4, PadRight: 14}
	for i, p := range c.plots {
		p.Draw(tiles.At(whole, i, 0))
	}
}

// newPlot returns an empty plot in the style of the charts. The title names the y values: the library misplaces a label
// at a logarithmic axis.
func newPlot(title, x string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil // transparent
	p.Title.Text, p.X.Label.Text = title, x
	sans := font.Font{Typeface: "Liberation", Variant: "Sans", Size: 10}
	p.Title.TextStyle.Color, p.Title.TextStyle.Font, p.Title.Padding = grey, sans, 6
	p.Title.TextStyle.Font.Size = 12
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Color, axis.Label.TextStyle.Color = grey, grey
		axis.Tick.Color, axis.Tick.Label.Color = grey, grey
		axis.Tick.Label.Font, axis.Label.TextStyle.Font = sans, sans
	}
	p.Legend.TextStyle.Color, p.Legend.TextStyle.Font = grey, sans
	p.Legend.Padding, p.Legend.ThumbnailWidth = 3, 22
	p.Legend.Top, p.Legend.Left, p.Legend.XOffs = true, true, 12
	return p
}

// addGrid adds grid lines behind what is added later.
func addGrid(p *plot.Plot) {
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = faint, faint
	p.Add(grid)
}

// addLine adds a line with points, in the nth colour; lines of baselines are dashed.
func addLine(p *plot.Plot, n int, name string, points plotter.XYs, dashed bool) error {
	line, scatter, err := plotter.NewLinePoints(points)
	if err != nil {
		return err
	}
	line.Color, line.Width = colors[n%len(colors)], 2
	scatter.Color, scatter.Shape, scatter.Radius = colors[n%len(colors)], draw.CircleGlyph{}, 2.5
	if dashed {
		line.Dashes = []vg.Length{5, 3}
	}
	p.Add(line, scatter)
	p.Legend.Add(name, line, scatter)
	return nil
}

// logTicks are ticks at powers of ten with labels like 10k, and ticks in between with a label if there is space.
type logTicks struct{ between []float64 }

// Ticks returns the ticks of a logarithmic axis.
func (t logTicks) Ticks(low, high float64) (ticks []plot.Tick) {
	for power := 1e-6; power <= high; power *= 10 {
		for _, m := range append([]float64{1}, t.between...) {
			if v := power * m; v >= low*0.999 && v <= high*1.001 {
				ticks = append(ticks, plot.Tick{Value: v, Label: short(v)})
			}
		}
	}
	return ticks
}

// short formats 12000 as 12k.
func short(v float64) string {
	switch {
	case v >= 999_500:
		return trim(number(v/1e6)) + "M"
	case v >= 1000:
		return trim(number(v/1e3)) + "k"
	}
	return trim(number(v))
}

func trim(s string) string {
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}
