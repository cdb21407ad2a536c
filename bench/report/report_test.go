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
	"github.com/sallyport/sallyport/bench/system"
)

func filled() *report.Report {
	base := report.Measured{System: system.System{Name: "fasthttp", About: "minimal"}, Commands: []string{"bench serve"}, Findings: []system.Finding{
		{Case: "forbidden", Status: 200, Wanted: 403, Why: "plain proxy"},
	}}
	ours := report.Measured{System: system.System{Name: "sallyport-uncached", About: "whole"}, Findings: []system.Finding{
		{Case: "forbidden", Status: 403, Wanted: 403},
	}, Err: errors.New("round 3: 2 of 9 requests failed")}
	for round, cpu := range []float64{20, 40, 30} {
		base.Samples = append(base.Samples, report.Sample{Round: round, CPU: cpu, PerSecond: 1000, P50: 1, P99: 2, Resident: 10})
		if round < 2 {
			ours.Samples = append(ours.Samples, report.Sample{Round: round, CPU: 3 * cpu, PerSecond: 500, P50: 2, P99: 4, Resident: 50})
		}
	}
	broken := report.Measured{System: system.System{Name: "caddy"}, Err: errors.New("does not start")}
	r := &report.Report{}
	r.Fill([]report.Measured{base, ours, broken})
	return r
}

func TestFill(t *testing.T) {
	r := filled()
	if len(r.Rows) != 2 {
		t.Fatalf("%d rows", len(r.Rows))
	}
	if d := cmp.Diff(statistic.Summary{Median: 90, Min: 60, Max: 120}, r.Rows[1].CPU); d != "" {
		t.Error(d)
	}
	if r.Rows[0].WholeJob || !r.Rows[1].WholeJob || r.Rows[1].Rounds != 2 {
		t.Errorf("%+v", r.Rows)
	}
	want := report.Ratio{
		System: "sallyport-uncached", Against: "fasthttp",
		CPU: statistic.Summary{Median: 3, Min: 3, Max: 3}, RPS: statistic.Summary{Median: .5, Min: .5, Max: .5},
	}
	if d := cmp.Diff([]report.Ratio{want}, r.Ratios); d != "" {
		t.Error(d)
	}
}

func TestNothingThatIsAbsentIsHidden(t *testing.T) {
	text := filled().Markdown()
	for _, want := range []string{
		"`caddy`: does not start", "`sallyport-uncached`: round 3", "**200**, not 403", "plain proxy",
		"| `sallyport-uncached` | 3.00 (3.00–3.00) |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestJSONHasTheRows(t *testing.T) {
	dir := t.TempDir()
	if err := filled().Write(dir); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "latest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Rows []struct {
			System string             `json:"system"`
			CPU    map[string]float64 `json:"cpu_us_per_request"`
			RPS    float64            `json:"rps"`
			P50    float64            `json:"p50_ms"`
			P99    float64            `json:"p99_ms"`
			RSS    float64            `json:"rss_mib"`
		} `json:"rows"`
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	row := got.Rows[1]
	if row.System != "sallyport-uncached" || row.RPS != 500 || row.P50 != 2 || row.P99 != 4 || row.RSS != 50 {
		t.Errorf("%+v", row)
	}
	if d := cmp.Diff(map[string]float64{"median": 90, "min": 60, "max": 120}, row.CPU); d != "" {
		t.Error(d)
	}
}

func TestPlotsAreWellFormed(t *testing.T) {
	dir := t.TempDir()
	if err := filled().Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cpu.svg", "rps.svg", "p99.svg", "rss.svg"} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		d, elements := xml.NewDecoder(f), 0
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			elements++
		}
		if elements < 20 {
			t.Errorf("%s has %d elements", name, elements)
		}
	}
}

func TestThisMachine(t *testing.T) {
	m, err := report.ThisMachine()
	if err != nil || m.Cores == 0 || m.MemoryGiB == 0 || m.Kernel == "" || len(strings.Fields(m.LoadBefore)) != 3 {
		t.Errorf("%+v, %v", m, err)
	}
}
