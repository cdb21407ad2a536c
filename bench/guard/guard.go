// Package guard says whether the gateway has become slower. It owns the
// thresholds that are committed beside the benchmark, how rounds are judged by
// them, and how they are renewed. It measures nothing.
//
// What is judged is CPU per request as a ratio to a system of the same round, and
// of these ratios the smallest: what else runs on a machine makes single rounds
// worse, and a change of the code makes all of them worse.
package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"

	"github.com/sallyport/sallyport/bench/report"
	"github.com/sallyport/sallyport/bench/statistic"
)

// Disturbed is the share of the cores from which on the work of others makes a
// round worth repeating.
const Disturbed = 0.5

// Thresholds is the committed file.
type Thresholds struct {
	// About says what the file is, for whoever opens it.
	About string `json:"about"`
	// Slack is how far over the ratio that was measured a threshold is put.
	Slack float64 `json:"slack"`
	// Measured says when and with what.
	Measured string      `json:"measured"`
	Rows     []Threshold `json:"thresholds"`
}

// Threshold is the most that one system may cost as a ratio to another.
type Threshold struct {
	System string `json:"system"`
	// Above, if set, is a system whose cost is taken off first: what System adds to
	// it. The ratio of two rows of the gateway would rise when the lower one becomes
	// faster.
	Above    string  `json:"above,omitempty"`
	Against  string  `json:"against"`
	Most     float64 `json:"most"`
	Measured float64 `json:"measured"` // median of the rounds when it was set
	Reason   string  `json:"reason"`
}

// Read reads the file. A key that does not belong there, and a row that could
// not fail, are errors.
func Read(file string) (*Thresholds, error) {
	raw, err := os.ReadFile(file) //nolint:gosec // the file that the caller names
	if err != nil {
		return nil, fmt.Errorf("read the thresholds: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	t := &Thresholds{}
	if err := dec.Decode(t); err != nil {
		return nil, fmt.Errorf("read the thresholds of %s: %w", file, err)
	}
	if len(t.Rows) == 0 || t.Slack < 1 {
		return nil, fmt.Errorf("read the thresholds of %s: it needs rows, and a slack of at least 1", file)
	}
	for _, row := range t.Rows {
		if row.System == "" || row.Against == "" || row.Most <= 0 || row.Reason == "" {
			return nil, fmt.Errorf("read the thresholds of %s: %+v lacks a system, a system against it, a number above 0 or a reason", file, row)
		}
	}
	return t, nil
}

// Write writes the file.
func (t *Thresholds) Write(file string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(t); err != nil {
		return fmt.Errorf("encode the thresholds: %w", err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil { //nolint:gosec // for everyone to read
		return fmt.Errorf("write the thresholds: %w", err)
	}
	return nil
}

// Systems returns the names of all systems that the rows need.
func (t *Thresholds) Systems() []string {
	var out []string
	for _, row := range t.Rows {
		for _, name := range []string{row.Against, row.Above, row.System} {
			if name != "" && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// Check returns an error for each row that is over its threshold or that could
// not be judged, and one line for each that was judged.
func (t *Thresholds) Check(measured []report.Measured) (lines []string, err error) {
	var errs []error
	for _, row := range t.Rows {
		ratios, all := row.ratios(measured)
		if len(ratios) == 0 {
			errs = append(errs, fmt.Errorf("%s against %s: no round has both, so nothing can be said", row.what(), row.Against))
			continue
		}
		s := statistic.Summarize(ratios)
		lines = append(lines, fmt.Sprintf("%-40s against %-10s %5.2f (%.2f to %.2f in %d of %d rounds), at most %.2f",
			row.what(), row.Against, s.Median, s.Min, s.Max, len(ratios), all, row.Most))
		if s.Min > row.Most {
			errs = append(errs, fmt.Errorf("%s costs %.2f times the CPU of %s for each request, even in the best of %d rounds, and the threshold is %.2f (%s)",
				row.what(), s.Min, row.Against, len(ratios), row.Most, row.Reason))
		}
	}
	return lines, errors.Join(errs...)
}

// Renew sets each threshold from what was measured; the reasons stay.
func (t *Thresholds) Renew(measured []report.Measured, when string) error {
	for i := range t.Rows {
		row := &t.Rows[i]
		ratios, _ := row.ratios(measured)
		if len(ratios) == 0 {
			return fmt.Errorf("set the threshold of %s against %s: no round has both", row.System, row.Against)
		}
		row.Measured = round(statistic.Summarize(ratios).Median)
		row.Most = round(row.Measured * t.Slack)
	}
	t.Measured = when
	return nil
}

func round(f float64) float64 { return math.Round(f*100) / 100 }

// ratios returns the ratios of the rounds that others left in peace; when there
// is none, those of all rounds. All is how many rounds there were.
func (row Threshold) ratios(measured []report.Measured) (ratios []float64, all int) {
	everything := row.within(measured, 1)
	if quiet := row.within(measured, Disturbed); len(quiet) > 0 {
		return quiet, len(everything)
	}
	return everything, len(everything)
}

func (row Threshold) within(measured []report.Measured, most float64) []float64 {
	system := byRound(measured, row.System, most)
	if row.Above != "" {
		above := byRound(measured, row.Above, most)
		for number := range system {
			if taken, ok := above[number]; ok {
				system[number] -= taken
			} else {
				delete(system, number)
			}
		}
	}
	return statistic.Ratios(system, byRound(measured, row.Against, most))
}

func (row Threshold) what() string {
	if row.Above == "" {
		return row.System
	}
	return "what " + row.System + " adds to " + row.Above
}

// byRound returns the CPU per request of a system in the rounds in which others
// used less than most of the cores; 1 is all rounds.
func byRound(measured []report.Measured, name string, most float64) map[int]float64 {
	out := map[int]float64{}
	for _, m := range measured {
		if m.System.Name != name {
			continue
		}
		for _, s := range m.Samples {
			if s.Others < most || most >= 1 {
				out[s.Round] = s.CPU
			}
		}
	}
	return out
}

// Quiet reports whether others left a round in peace.
func Quiet(measured []report.Measured, number int) bool {
	for _, m := range measured {
		for _, s := range m.Samples {
			if s.Round == number && s.Others >= Disturbed {
				return false
			}
		}
	}
	return true
}
