package report_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/bench/report"
	"github.com/sallyport/sallyport/bench/statistic"
)

func swept() *report.Sweeps {
	value := func(v ...float64) map[string]statistic.Summary {
		return map[string]statistic.Summary{"cpu_us": statistic.Summarize(v)}
	}
	return &report.Sweeps{Mode: "quick", Rounds: 3, Seconds: 2, Command: "make bench-sweep", Sweeps: []report.Sweep{
		{
			Name: "tokens", Title: "Different tokens", How: "So.", Along: "tokens", Plotted: "cpu_us",
			Columns: []report.Column{{Key: "cpu_us", Title: "CPU µs", Digits: 1}, {Key: "first_us", Title: "first"}},
			Lines: []report.Line{
				{Name: "large cache", About: "as shipped", Points: []report.Point{
					{At: 1, Label: "1", Values: value(10)},
					{At: 1e6, Label: "1,000,000", Values: value(30, 20, 40)},
				}},
				{Name: "small cache", About: "of 1,000", Points: []report.Point{{At: 1000, Label: "1,000", Values: value(12, 14)}}},
			},
			Targets: []report.Target{{Text: "flat", Measured: "1.1x", Met: true}, {Text: "fast", Measured: "slow"}},
		},
		{Name: "start", Title: "Start", Along: "policy", Plotted: "ready_ms", Lines: []report.Line{{}}, Failed: "no gateway\nat all"},
	}}
}

func TestSweepsPage(t *testing.T) {
	text := swept().Markdown()
	for _, want := range []string{
		"| tokens | flat | 1.1x | yes |", "| tokens | fast | slow | **no** |",
		"| start | | not or only partly measured, see below | **no** |", "**Missing:** no gateway; at all",
		"| 1,000,000 | 30.0 (20.0–40.0) | – |", "| 1 | 10.0 | – |",
		"**small cache**: of 1,000", "![Different tokens](sweep-tokens.svg)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "sweep-start.svg") {
		t.Error("the page shows a plot that has nothing to draw")
	}
}

func TestSweepsInJSON(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "results")
	if err := swept().Write(dir); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "sweeps.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got report.Sweeps
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(swept(), &got); d != "" {
		t.Error(d)
	}
}

// texts returns what a reader sees in a plot, and fails when it does not parse.
func texts(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if text, ok := token.(xml.CharData); ok && strings.TrimSpace(string(text)) != "" {
			out = append(out, strings.TrimSpace(string(text)))
		}
	}
}

// The points of all lines are in one order, by size, and each has its label.
func TestSweepPlots(t *testing.T) {
	dir := t.TempDir()
	if err := swept().Write(dir); err != nil {
		t.Fatal(err)
	}
	all := strings.Join(texts(t, filepath.Join(dir, "sweep-tokens.svg")), "\n")
	for _, want := range []string{"Different tokens", "tokens", "CPU µs", "1\n1,000\n1,000,000", "large cache", "small cache"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in the plot:\n%s", want, all)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "sweep-start.svg")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a plot of nothing: %v", err)
	}
}
