package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sallyport/sallyport/bench/statistic"
)

// Sweeps is what a run of sweeps saw: the gateway alone, while one thing grows.
type Sweeps struct {
	Time     string            `json:"time"`
	Machine  Machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Command  string            `json:"command"` // that repeats the run
	Mode     string            `json:"mode"`
	Rounds   int               `json:"rounds"`
	Seconds  float64           `json:"seconds_per_round"`
	Sweeps   []Sweep           `json:"sweeps"`
}

// Sweep is one thing that grows, and what that costs.
type Sweep struct {
	Name    string   `json:"name"`
	Title   string   `json:"title"`
	How     string   `json:"how"`   // it was measured, in words
	Along   string   `json:"along"` // what grows, with its unit
	Columns []Column `json:"columns"`
	Plotted string   `json:"plotted"` // the key of the column that is drawn
	Lines   []Line   `json:"lines"`
	Targets []Target `json:"targets"`
	Failed  string   `json:"failed,omitempty"` // why figures are missing
}

// Column is one of the figures of each point.
type Column struct {
	Key    string `json:"key"`
	Title  string `json:"title"` // with the unit
	Digits int    `json:"digits"`
}

// Line is one way that the thing grows.
type Line struct {
	Name   string  `json:"name"`
	About  string  `json:"about"`
	Points []Point `json:"points"`
}

// Point is one size of what grows. A figure that was not measured is absent.
type Point struct {
	At     float64                      `json:"at"` // orders the points of all lines
	Label  string                       `json:"label"`
	Values map[string]statistic.Summary `json:"values"`
}

// Target is what must hold, and whether it does.
type Target struct {
	Text     string `json:"text"`
	Measured string `json:"measured"`
	Met      bool   `json:"met"`
}

// Write writes JSON, page and plots into dir.
func (s *Sweeps) Write(dir string) error {
	raw, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return fmt.Errorf("encode the sweeps: %w", err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make the folder of results: %w", err)
	}
	var errs []error
	for name, text := range map[string][]byte{"sweeps.json": append(raw, '\n'), "sweeps.md": []byte(s.Markdown())} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), text, 0o644)) //nolint:gosec // results are for everybody
	}
	for _, sweep := range s.Sweeps {
		if err := sweep.plot(filepath.Join(dir, sweep.file())); err != nil {
			errs = append(errs, fmt.Errorf("plot %s: %w", sweep.Name, err))
		}
	}
	return errors.Join(errs...)
}

// file is the name of the plot.
func (s Sweep) file() string { return "sweep-" + s.Name + ".svg" }

// measured reports whether there is anything to draw.
func (s Sweep) measured() bool {
	for _, l := range s.Lines {
		for _, p := range l.Points {
			if _, ok := p.Values[s.Plotted]; ok {
				return true
			}
		}
	}
	return false
}

// column is the plotted one.
func (s Sweep) column() Column {
	for _, c := range s.Columns {
		if c.Key == s.Plotted {
			return c
		}
	}
	return Column{Key: s.Plotted, Title: s.Plotted}
}
