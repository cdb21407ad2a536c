package report

import (
	"cmp"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// strokes are the colours of lines, in their order.
var strokes = []color.Color{
	whole, color.RGBA{R: 0xd1, G: 0x5b, B: 0x2a, A: 0xff}, color.RGBA{R: 0x3f, G: 0x8f, B: 0x4f, A: 0xff},
}

// plot draws the plotted column of each line over the points, which stand at
// equal distances: their sizes grow by factors.
func (s Sweep) plot(path string) error {
	if !s.measured() {
		return nil
	}
	places, labels := s.places()
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = s.Title, s.Along, s.column().Title
	p.BackgroundColor = color.White
	for i, l := range s.Lines {
		if err := l.draw(p, s.Plotted, places, strokes[i%len(strokes)]); err != nil {
			return err
		}
	}
	p.NominalX(labels...)
	p.X.Min, p.X.Max = -0.5, float64(len(labels))-0.5
	p.Y.Min, p.Y.Max = 0, p.Y.Max*1.25 // room for the legend
	p.Legend.Top, p.Legend.XOffs = true, -vg.Points(6)
	return p.Save(18*vg.Centimeter, 10*vg.Centimeter, path)
}

// places are the points of all lines in their order, by size.
func (s Sweep) places() (places map[float64]float64, labels []string) {
	var all []Point
	for _, l := range s.Lines {
		all = append(all, l.Points...)
	}
	slices.SortStableFunc(all, func(a, b Point) int { return cmp.Compare(a.At, b.At) })
	places = map[float64]float64{}
	for _, p := range all {
		if _, ok := places[p.At]; !ok {
			places[p.At] = float64(len(labels))
			labels = append(labels, p.Label)
		}
	}
	return places, labels
}

// points are what is drawn of a line: the median and the range of its rounds.
type points struct {
	plotter.XYs
	plotter.YErrors
}

func (l Line) draw(p *plot.Plot, key string, places map[float64]float64, c color.Color) error {
	var drawn points
	for _, point := range l.Points {
		v, ok := point.Values[key]
		if !ok {
			continue
		}
		drawn.XYs = append(drawn.XYs, plotter.XY{X: places[point.At], Y: v.Median})
		drawn.YErrors = append(drawn.YErrors, struct{ Low, High float64 }{v.Min - v.Median, v.Max - v.Median})
	}
	if len(drawn.XYs) == 0 {
		return nil
	}
	line, dots, err := plotter.NewLinePoints(drawn.XYs)
	if err != nil {
		return err
	}
	marks, err := plotter.NewYErrorBars(drawn)
	if err != nil {
		return err
	}
	line.Color, dots.Color, dots.Shape, marks.Color = c, c, draw.CircleGlyph{}, c
	line.Width = vg.Points(1.5)
	p.Add(line, dots, marks)
	if l.Name != "" {
		p.Legend.Add(l.Name, line, dots)
	}
	return nil
}
