package sweep

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/sallyport/sallyport/bench/report"
	"github.com/sallyport/sallyport/bench/statistic"
	"github.com/sallyport/sallyport/bench/system"
)

func starts() Sweep {
	return Sweep{run: runStarts, page: report.Sweep{
		Name: "start", Title: "Start", Along: "policy", Plotted: "ready_ms",
		How: "From the start of the process to the first answer 200, with a token that is verified and a decision of the default policy. The client tries\n" +
			"every millisecond. The policy is the embedded one as `sallyport demo --dir` writes it: the gateway reads policies from files. The median of all starts; the program's file is in the page cache.",
		Columns: []report.Column{{Key: "ready_ms", Title: "start to first 200, ms", Digits: 1}, {Key: "rss_mib", Title: "RSS MiB then"}, {Key: "starts", Title: "starts"}},
		Lines:   []report.Line{{}},
	}}
}

func runStarts(ctx context.Context, g *Ground, page *report.Sweep) error {
	dir := filepath.Join(g.Dir, "demo")
	if out, err := exec.CommandContext(ctx, g.Programs.Sallyport, "demo", "--dir", dir).CombinedOutput(); err != nil { //nolint:gosec // the gateway
		return fmt.Errorf("write the default policy: %w: %s", err, out)
	}
	policy := system.Gateway{Folder: filepath.Join(dir, "policies")}
	s := &subject{label: "default", config: policy, traffic: traffic{method: "GET", path: orders, token: one(g.Work, "reader")}}
	for i := range g.Mode.Starts {
		if err := g.startOnce(ctx, s, i); err != nil {
			return fmt.Errorf("start %d: %w", i+1, err)
		}
	}
	s.once = map[string]float64{"starts": float64(g.Mode.Starts)}
	fillPage(page, []*subject{s})
	took := page.Lines[0].Points[0].Values["ready_ms"]
	page.Targets = []report.Target{{
		Text: "start to first 200 with the default policy within 100 ms", Met: took.Median <= 100,
		Measured: fmt.Sprintf("%.0f ms (%.0f–%.0f)", took.Median, took.Min, took.Max),
	}}
	g.Say("  %s", spread(took))
	return nil
}

func (g *Ground) startOnce(ctx context.Context, s *subject, i int) (err error) {
	w, err := g.start(ctx, s.config, s.traffic)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	used, err := w.used()
	if err != nil {
		return err
	}
	s.see(i, map[string]float64{"ready_ms": float64(w.ready.Microseconds()) / 1e3, "rss_mib": mib(used.Resident)})
	return nil
}

// spread is a summary for the progress.
func spread(s statistic.Summary) string {
	return fmt.Sprintf("%.1f (%.1f–%.1f)", s.Median, s.Min, s.Max)
}
