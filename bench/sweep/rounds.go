package sweep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/bench/load"
	"github.com/sallyport/sallyport/bench/process"
	"github.com/sallyport/sallyport/bench/report"
	"github.com/sallyport/sallyport/bench/statistic"
	"github.com/sallyport/sallyport/bench/system"
)

// subject is one point of a line: a gateway, what is asked of it, and what was
// seen.
type subject struct {
	line   int
	at     int
	label  string
	config system.Gateway
	traffic
	// fill is how many requests are sent before all others, so that each key of the
	// traffic was there once; 0: only time counts.
	fill int64
	// alone takes the time of decisions on one connection, where they do not wait
	// for a core that load generator and upstream have.
	alone bool

	client  *load.Client
	single  *load.Client // with one connection
	gateway *gateway
	once    map[string]float64         // seen before the rounds
	samples map[string]map[int]float64 // by key and round
}

// name is what the subject is called in errors and progress.
func (s *subject) name(page *report.Sweep) string {
	return strings.TrimSpace(page.Lines[s.line].Name + " " + s.label)
}

// see keeps a figure of a round.
func (s *subject) see(round int, values map[string]float64) {
	if s.samples == nil {
		s.samples = map[string]map[int]float64{}
	}
	for key, v := range values {
		if s.samples[key] == nil {
			s.samples[key] = map[int]float64{}
		}
		s.samples[key][round] = v
	}
}

// point is the subject on the page.
func (s *subject) point() report.Point {
	p := report.Point{At: float64(s.at), Label: s.label, Values: map[string]statistic.Summary{}}
	for key, v := range s.once {
		p.Values[key] = statistic.Summarize([]float64{v})
	}
	for key, byRound := range s.samples {
		var values []float64
		for _, v := range byRound {
			values = append(values, v)
		}
		p.Values[key] = statistic.Summarize(values)
	}
	return p
}

// fillPage puts the subjects' points into the lines of the page.
func fillPage(page *report.Sweep, subjects []*subject) {
	page.Lines = slices.Clone(page.Lines) // the sweep's own stay as they are
	for _, s := range subjects {
		if len(s.samples) > 0 {
			page.Lines[s.line].Points = append(page.Lines[s.line].Points, s.point())
		}
	}
}

// find returns the subject of a line at a size, or nil.
func find(subjects []*subject, line, at int) *subject {
	i := slices.IndexFunc(subjects, func(s *subject) bool { return s.line == line && s.at == at })
	if i < 0 {
		return nil
	}
	return subjects[i]
}

// flatWithin is how much more a figure that is flat may be at the larger size.
const flatWithin = 1.2

// flat is the target that a figure at one size is at most flatWithin times what it
// is at another, by round. Sizes that the mode leaves out have no target.
func flat(page *report.Sweep, subjects []*subject, line, at, than int, key, text string) {
	a, b := find(subjects, line, at), find(subjects, line, than)
	if a == nil || b == nil {
		return
	}
	ratios := statistic.Ratios(a.samples[key], b.samples[key])
	if len(ratios) == 0 {
		return
	}
	s := statistic.Summarize(ratios)
	page.Targets = append(page.Targets, report.Target{
		Text: text, Measured: fmt.Sprintf("%.2fx (%.2f–%.2f)", s.Median, s.Min, s.Max), Met: s.Median <= flatWithin,
	})
}

// rounds starts a gateway for each subject, all at the same time, and measures
// them in rounds. What fails with one of them does not end the others.
func (g *Ground) rounds(ctx context.Context, page *report.Sweep, subjects []*subject) error {
	var errs []error
	defer func() { fillPage(page, subjects) }()
	for _, s := range subjects {
		if err := g.open(ctx, s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name(page), err))
		}
	}
	for round := range g.Mode.Rounds {
		for _, i := range statistic.Rotated(len(subjects), round) {
			s := subjects[i]
			if s.gateway == nil || ctx.Err() != nil {
				continue
			}
			values, err := s.measure(ctx, load.Until{Length: g.Mode.Length})
			if err != nil {
				errs = append(errs, fmt.Errorf("%s, round %d: %w", s.name(page), round+1, err))
				continue
			}
			s.see(round, values)
			g.Say("  round %d %-24s %6.1f µs/request, %6.1f µs/decision, %4.0f MiB, %6.0f requests/s, others %.0f %%", round+1,
				s.name(page), values["cpu_us"], values["decision_us"], values["rss_mib"], values["rps"], values["others"])
		}
	}
	for _, s := range subjects {
		if s.gateway != nil {
			errs = append(errs, s.gateway.stop())
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// open starts, fills and warms one subject.
func (g *Ground) open(ctx context.Context, s *subject) error {
	w, err := g.start(ctx, s.config, s.traffic)
	if err != nil {
		return err
	}
	s.gateway, s.client, s.single = w, s.loader(w.site.Address), s.loader(w.site.Address)
	s.single.Connections = 1
	s.once = map[string]float64{"ready_ms": float64(w.ready.Microseconds()) / 1e3}
	if s.fill > 0 {
		values, err := s.sample(ctx, s.client, load.Until{Count: s.fill})
		if err != nil {
			return fmt.Errorf("fill: %w", err)
		}
		if s.fill >= worthwhile {
			s.once["first_us"] = values["cpu_us"]
			g.Say("  each of %s once: %.1f µs/request, %.0f MiB", s.label, values["cpu_us"], values["rss_mib"])
		}
	}
	_, err = s.client.Run(ctx, load.Until{Length: g.Mode.Warm})
	return err
}

// worthwhile is how many requests it takes for the CPU time that /proc gives in
// steps of 10 ms to say something about one of them.
const worthwhile = 1_000

// measure measures once, and the time of decisions alone where that is wanted.
func (s *subject) measure(ctx context.Context, until load.Until) (map[string]float64, error) {
	values, err := s.sample(ctx, s.client, until)
	if err != nil || !s.alone {
		return values, err
	}
	alone, err := s.sample(ctx, s.single, load.Until{Length: until.Length / 2})
	if err != nil {
		return nil, fmt.Errorf("on one connection: %w", err)
	}
	values["decision_us"] = alone["decision_us"]
	values["failed"] += alone["failed"]
	values["others"] = max(values["others"], alone["others"])
	return values, nil
}

// sample measures once with a client.
func (s *subject) sample(ctx context.Context, client *load.Client, until load.Until) (map[string]float64, error) {
	machine, err := process.Watch()
	if err != nil {
		return nil, err
	}
	told, err := s.gateway.metrics(ctx)
	if err != nil {
		return nil, err
	}
	before, err := s.gateway.used()
	if err != nil {
		return nil, err
	}
	result, err := client.Run(ctx, until)
	if err != nil {
		return nil, err
	}
	after, err := s.gateway.used()
	if err != nil {
		return nil, err
	}
	now, err := s.gateway.metrics(ctx)
	if err != nil {
		return nil, err
	}
	others, err := machine.Others()
	if err != nil {
		return nil, err
	}
	cpu := float64((after.CPU - before.CPU).Microseconds()) / float64(result.Requests)
	values := map[string]float64{
		"cpu_us": cpu, "rps": result.PerSecond(), "p99_ms": float64(result.P99) / 1e3, "rss_mib": mib(after.Resident),
		"failed": float64(result.Failed), "others": 100 * others,
	}
	const took = "sallyport_decision_duration_seconds"
	if n := now.sum(took+"_count") - told.sum(took+"_count"); n > 0 {
		values["decision_us"] = (now.sum(took+"_sum") - told.sum(took+"_sum")) / n * 1e6
	}
	if size := len(s.body); size >= 64<<10 {
		values["cpu_us_per_mib"] = cpu / mib(int64(size))
	}
	return values, nil
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
