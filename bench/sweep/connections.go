package sweep

import (
	"context"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/bench/load"
	"github.com/sallyport/sallyport/bench/process"
	"github.com/sallyport/sallyport/bench/report"
	"github.com/sallyport/sallyport/bench/statistic"
	"github.com/sallyport/sallyport/bench/system"
)

func connections() Sweep {
	return Sweep{run: runConnections, page: report.Sweep{
		Name: "connections", Title: "Connections that wait", Along: "connections", Plotted: "wake_ms",
		How: "A new gateway for each point and round, as in the row `sallyport`. 64 connections are busy for the length of a round; then the others are\n" +
			"opened, each has one request answered and waits, while the 64 are busy for as long again. What the process has resident more than\n" +
			"before, divided by those that wait, is the memory of one; the kernel's buffers are not in it. Then the 64 stop, and all that there are, as\n" +
			"many as the point says, send one request at the same moment: until the last is answered is the time to wake. They come from several\n" +
			"loopback addresses.",
		Columns: []report.Column{
			{Key: "idle_kib", Title: "KiB of RSS for each that waits", Digits: 1},
			memoryColumn,
			{Key: "wake_ms", Title: "until all have answered, ms"},
			{Key: "wake_failed", Title: "failed when woken"},
			cpuColumn, failedColumn, othersColumn,
		},
		Lines: []report.Line{{}},
	}}
}

func runConnections(ctx context.Context, g *Ground, page *report.Sweep) error {
	var all []*subject
	most := 0
	for _, n := range g.Mode.Connections {
		most = max(most, n)
		all = append(all, &subject{
			at: n, label: count(n), config: system.Gateway{Files: system.Granting()},
			traffic: traffic{method: "GET", path: orders, token: everybody(g.Work)},
		})
	}
	// The gateway also has its connections to the upstream, and files.
	if err := process.OpenFiles(uint64(most) + 2_000); err != nil {
		return err
	}
	defer func() { fillPage(page, all) }()
	var errs []error
	for round := range g.Mode.Rounds {
		for _, i := range statistic.Rotated(len(all), round) {
			if err := g.wake(ctx, all[i], round); err != nil {
				errs = append(errs, fmt.Errorf("%s, round %d: %w", all[i].label, round+1, err))
			}
		}
	}
	waitingTargets(page, find(all, 0, 10_000))
	return errors.Join(append(errs, ctx.Err())...)
}

func waitingTargets(page *report.Sweep, s *subject) {
	if s == nil || len(s.samples) == 0 {
		return
	}
	v := s.point().Values
	idle, wake, failed := v["idle_kib"], v["wake_ms"], v["wake_failed"]
	page.Targets = append(page.Targets,
		report.Target{
			Text: "at most 12 KiB of RSS for each of 10,000 connections that wait", Met: idle.Median <= 12,
			Measured: fmt.Sprintf("%.1f KiB (%.1f–%.1f)", idle.Median, idle.Min, idle.Max),
		},
		report.Target{
			Text: "all of 10,000 answer within 1 s when they wake, and none fails", Met: wake.Median <= 1000 && failed.Max == 0,
			Measured: fmt.Sprintf("%.0f ms (%.0f–%.0f), %.0f failed in the worst round", wake.Median, wake.Min, wake.Max, failed.Max),
		})
}

// wake measures one point once, with a new gateway.
func (g *Ground) wake(ctx context.Context, s *subject, round int) (err error) {
	w, err := g.start(ctx, s.config, s.traffic)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	s.gateway, s.client = w, s.loader(w.site.Address)
	if _, err := s.client.Run(ctx, load.Until{Length: g.Mode.Warm}); err != nil {
		return err
	}
	before, err := s.sample(ctx, s.client, load.Until{Length: g.Mode.Length})
	if err != nil {
		return err
	}
	waiting := max(0, s.at-busy)
	held, err := load.Hold(ctx, w.site.Address, waiting, s.request(nil, 0))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	values, err := s.sample(ctx, s.client, load.Until{Length: g.Mode.Length})
	if err != nil {
		return err
	}
	if waiting > 0 {
		values["idle_kib"] = (values["rss_mib"] - before["rss_mib"]) * 1024 / float64(waiting)
	}
	// Those that were busy are closed by now; as many come back to be woken too.
	again, err := load.Hold(ctx, w.site.Address, s.at-waiting, s.request(nil, 0))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, again.Close()) }()
	woken := held.And(again).Wake(s.request(nil, 1))
	values["wake_ms"], values["wake_failed"] = float64(woken.All.Microseconds())/1e3, float64(woken.Failed)
	s.see(round, values)
	g.Say("  round %d %7s connections: %.1f KiB each, all answered after %.0f ms, %d failed", round+1, s.label,
		values["idle_kib"], values["wake_ms"], woken.Failed)
	if woken.Failed > 0 {
		return fmt.Errorf("%d of %d failed when woken: %w", woken.Failed, s.at, woken.Err)
	}
	return nil
}
