package report

import (
	"fmt"
	"image/color"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/sallyport/sallyport/bench/statistic"
)

// figure is one plot: a bar for each system, and the range of its rounds.
type figure struct {
	file, title, axis string
	value             func(Row) statistic.Summary
}

var figures = []figure{
	{"cpu.svg", "CPU per request (shorter is better)", "µs, user and system, all processes", func(r Row) statistic.Summary { return r.CPU }},
	{"rps.svg", "Requests per second at saturation (longer is better)", "requests/s", func(r Row) statistic.Summary { return r.Spread["rps"] }},
	{"p99.svg", "99th percentile at saturation (shorter is better)", "ms", func(r Row) statistic.Summary { return r.Spread["p99_ms"] }},
	{"rss.svg", "Memory under load (shorter is better)", "MiB resident", func(r Row) statistic.Summary { return r.Spread["rss_mib"] }},
}

// Colours: systems that do all of the work, and those that do less.
var (
	whole = color.RGBA{R: 0x1f, G: 0x6f, B: 0xb4, A: 0xff}
	less  = color.RGBA{R: 0xb8, G: 0xc4, B: 0xce, A: 0xff}
)

func (r *Report) plots(dir string) error {
	if len(r.Rows) == 0 {
		return nil
	}
	for _, f := range figures {
		if err := f.draw(r.Rows, filepath.Join(dir, f.file)); err != nil {
			return fmt.Errorf("plot %s: %w", f.file, err)
		}
	}
	return nil
}

func (f figure) draw(rows []Row, path string) error {
	p := plot.New()
	p.Title.Text, p.X.Label.Text = f.title, f.axis
	p.BackgroundColor = color.White
	var names []string
	all, part := make(plotter.Values, len(rows)), make(plotter.Values, len(rows))
	ranges := spread{}
	for i := range rows {
		row := rows[len(rows)-1-i]             // the first row is at the top
		names = append(names, "  "+row.System) // the margin is measured in another font than the reader's
		s := f.value(row)
		if all[i] = s.Median; !row.WholeJob {
			all[i], part[i] = 0, s.Median
		}
		ranges.XYs = append(ranges.XYs, plotter.XY{X: s.Median, Y: float64(i)})
		ranges.XErrors = append(ranges.XErrors, struct{ Low, High float64 }{s.Min - s.Median, s.Max - s.Median})
	}
	if err := bars(p, part, less, "does a part of the work"); err != nil {
		return err
	}
	if err := bars(p, all, whole, "does all of it"); err != nil {
		return err
	}
	marks, err := plotter.NewXErrorBars(ranges)
	if err != nil {
		return err
	}
	p.Add(marks)
	p.NominalY(names...)
	p.X.Min, p.Legend.Top = 0, true
	return p.Save(20*vg.Centimeter, vg.Length(3+len(rows))*vg.Centimeter*0.8, path)
}

// spread is the range of each bar's rounds.
type spread struct {
	plotter.XYs
	plotter.XErrors
}

func bars(p *plot.Plot, values plotter.Values, c color.Color, legend string) error {
	b, err := plotter.NewBarChart(values, vg.Points(12))
	if err != nil {
		return err
	}
	b.Horizontal, b.Color, b.LineStyle.Width = true, c, 0
	p.Add(b)
	p.Legend.Add(legend, b)
	return nil
}
