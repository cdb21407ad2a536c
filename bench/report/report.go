// Package report turns the samples of a run into what people and programs read:
// JSON, a table in Markdown, plots. It measures nothing and hides nothing: what
// failed and what could not be had stand beside the figures.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/bench/statistic"
	"github.com/sallyport/sallyport/bench/system"
)

// Sample is one system in one round.
type Sample struct {
	Round     int
	CPU       float64 // microseconds of all its processes per request, user and system
	PerSecond float64
	P50, P99  float64 // milliseconds
	Resident  float64 // MiB
	Failed    int64   // requests
	Others    float64 // share of the cores that other programs used
}

// Measured is all that is known of one system.
type Measured struct {
	System   system.System
	Commands []string
	Findings []system.Finding
	Samples  []Sample
	Err      error // why there are no or fewer samples
}

// Report is what is written.
type Report struct {
	Time     string            `json:"time"`
	Machine  Machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Work     Work              `json:"work"`
	Rows     []Row             `json:"rows"`
	Ratios   []Ratio           `json:"ratios"`
	Failed   map[string]string `json:"failed"` // rows that should have been there, and why they are not or lack rounds
	Commands map[string]string `json:"commands"`
}

// Work says what was asked of each system.
type Work struct {
	Rounds      int    `json:"rounds"`
	Seconds     int    `json:"seconds_per_round"`
	Connections int    `json:"connections"`
	Tokens      int    `json:"tokens"`
	Load        string `json:"load_generator"`
}

// Row is one system. Its plain figures are medians over the rounds.
type Row struct {
	System   string                       `json:"system"`
	About    string                       `json:"about"`
	CPU      statistic.Summary            `json:"cpu_us_per_request"`
	RPS      float64                      `json:"rps"`
	P50      float64                      `json:"p50_ms"`
	P99      float64                      `json:"p99_ms"`
	RSS      float64                      `json:"rss_mib"`
	Rounds   int                          `json:"rounds"`
	Failed   int64                        `json:"failed_requests"` // of all rounds
	Others   statistic.Summary            `json:"others_share"`    // of the cores, used by programs that have nothing to do with the benchmark
	Spread   map[string]statistic.Summary `json:"spread"`
	Checks   []system.Finding             `json:"checks"`
	WholeJob bool                         `json:"does_all_of_the_work"`
}

// Ratio compares the CPU per request and the rate of two systems, round by round.
type Ratio struct {
	System  string            `json:"system"`
	Against string            `json:"against"`
	CPU     statistic.Summary `json:"cpu"`
	RPS     statistic.Summary `json:"rps"`
}

// baselines are what each system is compared with.
var baselines = []string{"fasthttp", "nginx", "haproxy-jwt", "nginx-opa-jwtcache", "sallyport-plain", "sallyport"}

// Fill computes rows, ratios and failures.
func (r *Report) Fill(all []Measured) {
	r.Failed, r.Commands = map[string]string{}, map[string]string{}
	for _, m := range all {
		if m.Err != nil {
			r.Failed[m.System.Name] = m.Err.Error()
		}
		for i, c := range m.Commands {
			r.Commands[fmt.Sprintf("%s %d", m.System.Name, i+1)] = c
		}
		if len(m.Samples) > 0 {
			r.Rows = append(r.Rows, row(m))
		}
	}
	for _, base := range all {
		if len(base.Samples) > 0 && isBaseline(base.System.Name) {
			r.Ratios = append(r.Ratios, against(base, all)...)
		}
	}
}

// isBaseline holds for another build of the gateway too.
func isBaseline(name string) bool {
	return slices.Contains(baselines, name) || strings.HasSuffix(name, "-baseline")
}

func row(m Measured) Row {
	rps, p50 := summary(m, Sample.perSecond), summary(m, Sample.p50)
	p99, rss := summary(m, Sample.p99), summary(m, Sample.resident)
	out := Row{
		System: m.System.Name, About: m.System.About, CPU: summary(m, Sample.cpu),
		RPS: rps.Median, P50: p50.Median, P99: p99.Median, RSS: rss.Median, Rounds: len(m.Samples),
		Spread: map[string]statistic.Summary{"rps": rps, "p50_ms": p50, "p99_ms": p99, "rss_mib": rss},
		Others: summary(m, Sample.others), Checks: m.Findings, WholeJob: true,
	}
	for _, s := range m.Samples {
		out.Failed += s.Failed
	}
	for _, f := range m.Findings {
		out.WholeJob = out.WholeJob && f.Why == ""
	}
	return out
}

func against(base Measured, all []Measured) []Ratio {
	var out []Ratio
	for _, m := range all {
		if m.System.Name == base.System.Name || len(m.Samples) == 0 {
			continue
		}
		out = append(out, Ratio{
			System: m.System.Name, Against: base.System.Name,
			CPU: statistic.Summarize(statistic.Ratios(byRound(m, Sample.cpu), byRound(base, Sample.cpu))),
			RPS: statistic.Summarize(statistic.Ratios(byRound(m, Sample.perSecond), byRound(base, Sample.perSecond))),
		})
	}
	return out
}

func (s Sample) cpu() float64       { return s.CPU }
func (s Sample) perSecond() float64 { return s.PerSecond }
func (s Sample) p50() float64       { return s.P50 }
func (s Sample) p99() float64       { return s.P99 }
func (s Sample) others() float64    { return s.Others }
func (s Sample) resident() float64  { return s.Resident }

func summary(m Measured, of func(Sample) float64) statistic.Summary {
	var values []float64
	for _, s := range m.Samples {
		values = append(values, of(s))
	}
	return statistic.Summarize(values)
}

func byRound(m Measured, of func(Sample) float64) map[int]float64 {
	out := map[int]float64{}
	for _, s := range m.Samples {
		out[s.Round] = of(s)
	}
	return out
}

// Write writes everything into dir.
func (r *Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	for name, data := range map[string][]byte{"latest.json": append(raw, '\n'), "latest.md": []byte(r.Markdown())} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil { //nolint:gosec // for everyone to read
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return r.plots(dir)
}
