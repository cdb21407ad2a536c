package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/bench/load"
	"github.com/sallyport/sallyport/bench/process"
	"github.com/sallyport/sallyport/bench/program"
	"github.com/sallyport/sallyport/bench/report"
	"github.com/sallyport/sallyport/bench/statistic"
	"github.com/sallyport/sallyport/bench/system"
	"github.com/sallyport/sallyport/bench/work"
)

// harness is one run.
type harness struct {
	options
	progress io.Writer
	dir      string // for everything that the run needs and nobody keeps
	programs system.Programs
	work     *work.Work
	wrk      *load.Wrk
	upstream *process.Process
	subjects []*subject
}

// subject is one system while it is measured.
type subject struct {
	report.Measured
	address   string
	processes []*process.Process
}

func run(ctx context.Context, args []string, progress io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	chosen, err := choose(o.systems, o.baseline)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return fmt.Errorf("make a folder for the run: %w", err)
	}
	h := &harness{options: o, progress: progress, dir: dir}
	defer func() { err = errors.Join(err, h.stop(), os.RemoveAll(dir)) }()
	r, err := h.prepare(ctx)
	if err != nil {
		return err
	}
	h.start(ctx, chosen)
	if err := h.measure(ctx); err != nil {
		return err
	}
	return h.report(r)
}

// choose returns the systems with these names, or all; and what another build of
// the gateway makes of them, when there is one.
func choose(names, baseline string) ([]system.System, error) {
	out, err := named(names)
	if err != nil || baseline == "" {
		return out, err
	}
	program, err := filepath.Abs(baseline)
	if err != nil {
		return nil, fmt.Errorf("find the baseline: %w", err)
	}
	for _, s := range out {
		if b, ok := s.Baseline(program); ok {
			out = append(out, b)
		}
	}
	return out, nil
}

func named(names string) ([]system.System, error) {
	all := system.All()
	if names == "" {
		return all, nil
	}
	var out []system.System
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(s system.System) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown system %q", name)
		}
		out = append(out, all[i])
	}
	return out, nil
}

// say reports progress; nobody depends on it.
func (h *harness) say(format string, args ...any) {
	_, _ = fmt.Fprintf(h.progress, format+"\n", args...)
}

// portable is a command without the names of folders on this machine.
func (h *harness) portable(command string) string {
	return strings.NewReplacer(h.dir, "DIR", h.root+string(filepath.Separator), "").Replace(command)
}

// prepare gets everything but the systems.
func (h *harness) prepare(ctx context.Context) (*report.Report, error) {
	self, err := h.locate()
	if err != nil {
		return nil, err
	}
	h.say("building the gateway and the peers")
	if h.programs, err = program.Build(ctx, h.root, self); err != nil {
		return nil, err
	}
	r := &report.Report{Time: time.Now().UTC().Format(time.RFC3339)}
	if r.Versions, err = program.Versions(ctx, h.root, h.programs); err != nil {
		return nil, err
	}
	if r.Machine, err = report.ThisMachine(); err != nil {
		return nil, err
	}
	if err := h.furnish(ctx, self); err != nil {
		return nil, err
	}
	r.Work = report.Work{
		Rounds: h.rounds, Seconds: int(h.length.Seconds()), Connections: h.connections, Tokens: h.tokens,
		Load: h.portable("wrk " + strings.Join(h.wrk.Arguments("ADDRESS", h.length), " ")),
	}
	return r, nil
}

// locate finds the repository and returns the harness's own program.
func (h *harness) locate() (string, error) {
	var err error
	if h.root, err = filepath.Abs(h.root); err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the harness's program: %w", err)
	}
	return self, nil
}

// furnish makes the work, the load generator and the upstream.
func (h *harness) furnish(ctx context.Context, self string) error {
	var err error
	if h.work, err = work.New(h.dir, h.tokens, time.Now()); err != nil {
		return err
	}
	if h.wrk, err = load.New(h.dir, h.work.Requests, h.connections); err != nil {
		return err
	}
	address, err := process.FreeAddress(ctx)
	if err != nil {
		return err
	}
	h.upstream, err = process.Start(ctx, h.dir, system.Own(self, "upstream", address, ""))
	return err
}

// start starts, checks and warms every system. One that fails is left out of the
// rounds and reported.
func (h *harness) start(ctx context.Context, systems []system.System) {
	for _, s := range systems {
		sub := &subject{Measured: report.Measured{System: s}}
		h.subjects = append(h.subjects, sub)
		if sub.Err = h.open(ctx, sub); sub.Err != nil {
			h.say("%s: %v", s.Name, sub.Err)
			continue
		}
		h.say("%s: ready, does what is declared", s.Name)
	}
}

func (h *harness) open(ctx context.Context, sub *subject) error {
	site := system.Site{
		Dir: filepath.Join(h.dir, sub.System.Name), Upstream: h.upstream.Spec().Listens, Work: h.work, Programs: h.programs,
	}
	if err := errors.Join(os.Mkdir(site.Dir, 0o750), site.Addresses(ctx)); err != nil {
		return fmt.Errorf("prepare %s: %w", sub.System.Name, err)
	}
	sub.address = site.Address
	specs, err := sub.System.Plan(site)
	if err != nil {
		return err
	}
	for _, spec := range specs {
		p, err := process.Start(ctx, site.Dir, spec)
		if err != nil {
			return err
		}
		sub.processes = append(sub.processes, p)
		sub.Commands = append(sub.Commands, h.portable(spec.String()))
	}
	cases, err := h.work.Cases(time.Now())
	if err != nil {
		return err
	}
	if sub.Findings, err = sub.System.Check(ctx, sub.address, cases); err != nil {
		return err
	}
	_, err = h.wrk.Run(ctx, sub.address, h.warm)
	return err
}

// measure runs the rounds.
func (h *harness) measure(ctx context.Context) error {
	for round := range h.rounds {
		if err := h.round(ctx, round); err != nil {
			return err
		}
	}
	return nil
}

// round measures every system once.
func (h *harness) round(ctx context.Context, round int) error {
	for _, i := range statistic.Rotated(len(h.subjects), round) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
		sub := h.subjects[i]
		if len(sub.Findings) == 0 {
			continue // did not start
		}
		s, err := h.quietSample(ctx, sub)
		if err != nil {
			err = fmt.Errorf("round %d: %w", round+1, err)
			h.say("%s: %v", sub.System.Name, err)
			sub.Err = errors.Join(sub.Err, err)
			continue
		}
		s.Round = round
		sub.Samples = append(sub.Samples, s)
		h.say("round %d/%d %-20s %6.1f µs/request %7.0f requests/s, %2.0f %% of the cores used by others",
			round+1, h.rounds, sub.System.Name, s.CPU, s.PerSecond, 100*s.Others)
	}
	return nil
}

// disturbed is the share of the cores from which on others' work makes a sample
// worth repeating.
const disturbed = 0.1

// quietSample measures one system, again when somebody else used the machine, and
// returns the sample that was disturbed least.
func (h *harness) quietSample(ctx context.Context, sub *subject) (report.Sample, error) {
	best, err := h.sample(ctx, sub)
	for range h.retries {
		if err == nil && best.Others < disturbed || ctx.Err() != nil {
			break
		}
		again, againErr := h.sample(ctx, sub)
		if againErr == nil && (err != nil || again.Others < best.Others) {
			best, err = again, nil
		}
	}
	return best, err
}

// sample measures one system once.
func (h *harness) sample(ctx context.Context, sub *subject) (report.Sample, error) {
	machine, err := process.Watch()
	if err != nil {
		return report.Sample{}, err
	}
	before, err := sub.used()
	if err != nil {
		return report.Sample{}, err
	}
	result, err := h.wrk.Run(ctx, sub.address, h.length)
	if err != nil {
		return report.Sample{}, err
	}
	after, err := sub.used()
	if err != nil {
		return report.Sample{}, err
	}
	others, err := machine.Others()
	if err != nil {
		return report.Sample{}, err
	}
	return report.Sample{
		CPU:       float64((after.CPU - before.CPU).Microseconds()) / float64(result.Requests),
		PerSecond: result.PerSecond(),
		P50:       float64(result.P50) / 1e3, P99: float64(result.P99) / 1e3,
		Resident: float64(after.Resident) / (1 << 20), Failed: result.Failed, Others: others,
	}, nil
}

func (s *subject) used() (process.Usage, error) {
	var pids []int
	for _, p := range s.processes {
		if err := p.Alive(); err != nil {
			return process.Usage{}, err
		}
		pids = append(pids, p.PID())
	}
	return process.Used(pids...)
}

// stop ends everything that was started.
func (h *harness) stop() error {
	var errs []error
	for _, sub := range h.subjects {
		for _, p := range slices.Backward(sub.processes) {
			errs = append(errs, p.Stop())
		}
	}
	if h.upstream != nil {
		errs = append(errs, h.upstream.Stop())
	}
	return errors.Join(errs...)
}

// report writes the results, and fails when a system did.
func (h *harness) report(r *report.Report) error {
	var all []report.Measured
	var failed []string
	for _, sub := range h.subjects {
		all = append(all, sub.Measured)
		if sub.Err != nil {
			failed = append(failed, sub.System.Name)
		}
	}
	var err error
	if r.Machine.LoadAfter, err = report.LoadAverage(); err != nil {
		return err
	}
	r.Fill(all)
	if err := r.Write(h.out); err != nil {
		return err
	}
	if _, err := os.Stdout.WriteString(r.Markdown()); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	if len(failed) > 0 {
		return fmt.Errorf("not or only partly measured: %s", strings.Join(failed, ", "))
	}
	return nil
}
