package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport/sallyport/bench/guard"
	"github.com/sallyport/sallyport/bench/program"
	"github.com/sallyport/sallyport/bench/report"
)

// maxExtraRounds is how many disturbed rounds are measured again, all in all.
const maxExtraRounds = 3

// whatNow is for whoever sees the guard fail.
const whatNow = `If the gateway has become slower, profile it (make build LDFLAGS= and perf record -g, or go test -bench of the package that changed)
and compare with the commit before (make bench BENCH_FLAGS='-systems sallyport -baseline OTHER_BUILD'). If it is meant to cost that much, raise the
threshold in bench/thresholds.json and give the reason in the commit`

// guarded is the verb: a short run, judged by the committed thresholds.
func guarded(ctx context.Context, args []string, progress io.Writer) (err error) {
	o := options{connections: 64, tokens: 1000, warm: time.Second}
	flags := flag.NewFlagSet("guard", flag.ContinueOnError)
	file := flags.String("thresholds", "bench/thresholds.json", "the thresholds")
	renew := flags.Bool("renew", false, "set the thresholds from this run instead of judging it")
	flags.IntVar(&o.rounds, "rounds", 5, "how often each system is measured")
	flags.DurationVar(&o.length, "length", 2*time.Second, "how long each time, in whole seconds")
	flags.StringVar(&o.root, "root", ".", "the repository")
	switch err := flags.Parse(args); {
	case err != nil:
		return err
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.rounds < 1 || o.length < time.Second:
		return errors.New("rounds must be at least 1, the length at least 1s")
	}
	thresholds, err := guard.Read(*file)
	if err != nil {
		return err
	}
	systems, err := named(strings.Join(thresholds.Systems(), ","))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return fmt.Errorf("make a folder for the run: %w", err)
	}
	h := &harness{options: o, progress: progress, dir: dir}
	defer func() { err = errors.Join(err, h.stop(), os.RemoveAll(dir)) }()
	if err := h.prepareGuard(ctx); err != nil {
		return err
	}
	h.start(ctx, systems)
	if err := h.measureQuiet(ctx); err != nil {
		return err
	}
	if *renew {
		return h.renew(ctx, thresholds, *file)
	}
	return h.judge(thresholds)
}

// prepareGuard gets the gateway and the few programs that the guard needs.
func (h *harness) prepareGuard(ctx context.Context) error {
	self, err := h.locate()
	if err != nil {
		return err
	}
	h.say("building the gateway")
	if h.programs, err = program.BuildGateway(ctx, h.root, self); err != nil {
		return err
	}
	if h.programs.Nginx, err = exec.LookPath("nginx"); err != nil {
		return fmt.Errorf("find nginx: %w (run .ci/bench-deps)", err)
	}
	return h.furnish(ctx, self)
}

// measureQuiet runs the rounds, and further ones for those in which others used
// too much of the cores.
func (h *harness) measureQuiet(ctx context.Context) error {
	quiet := 0
	for round := 0; quiet < h.rounds && round < h.rounds+maxExtraRounds; round++ {
		if err := h.round(ctx, round); err != nil {
			return err
		}
		if guard.Quiet(h.measured(), round) {
			quiet++
		} else {
			h.say("round %d was disturbed by other programs", round+1)
		}
	}
	return nil
}

func (h *harness) measured() []report.Measured {
	out := make([]report.Measured, len(h.subjects))
	for i, s := range h.subjects {
		out[i] = s.Measured
	}
	return out
}

func (h *harness) judge(t *guard.Thresholds) error {
	lines, err := t.Check(h.measured())
	for _, l := range lines {
		h.say("%s", l)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, whatNow)
	}
	return nil
}

// renew writes what was measured into the file.
func (h *harness) renew(ctx context.Context, t *guard.Thresholds, file string) error {
	versions, err := program.GatewayVersions(ctx, h.root)
	if err != nil {
		return err
	}
	machine, err := report.ThisMachine()
	if err != nil {
		return err
	}
	when := fmt.Sprintf("%s, %s, %d cores, %d rounds of %s",
		versions["sallyport"], machine.CPU, machine.Cores, h.rounds, h.length)
	if err := t.Renew(h.measured(), when); err != nil {
		return err
	}
	h.say("wrote %s", filepath.Clean(file))
	return t.Write(file)
}
