package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport/sallyport/bench/process"
	"github.com/sallyport/sallyport/bench/program"
	"github.com/sallyport/sallyport/bench/report"
	"github.com/sallyport/sallyport/bench/sweep"
	"github.com/sallyport/sallyport/bench/system"
	"github.com/sallyport/sallyport/bench/work"
)

// sweepOptions are the flags of sweeps.
type sweepOptions struct {
	mode               sweep.Mode
	chosen             []sweep.Sweep
	gateway, root, out string
}

func parseSweeps(args []string) (sweepOptions, error) {
	var o sweepOptions
	var mode, names string
	var rounds int
	var length time.Duration
	flags := flag.NewFlagSet("sweep", flag.ContinueOnError)
	flags.StringVar(&mode, "mode", "quick", "sizes and lengths: mini, quick or long")
	flags.StringVar(&names, "sweeps", "", "names of the sweeps, with commas; empty: all of "+sweepNames())
	flags.IntVar(&rounds, "rounds", 0, "how often each point is measured; 0: what the mode says")
	flags.DurationVar(&length, "length", 0, "how long each time; 0: what the mode says")
	flags.StringVar(&o.gateway, "gateway", "", "a build of the gateway to measure; empty: build it")
	flags.StringVar(&o.root, "root", ".", "the repository")
	flags.StringVar(&o.out, "out", "bench/results", "where the results go")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var known bool
	if o.mode, known = sweep.Modes()[mode]; !known {
		return o, fmt.Errorf("unknown mode %q: mini, quick or long", mode)
	}
	if rounds < 0 || length < 0 {
		return o, errors.New("rounds and length must not be negative")
	}
	o.mode.Rounds, o.mode.Length = cmp.Or(rounds, o.mode.Rounds), cmp.Or(length, o.mode.Length)
	var err error
	o.chosen, err = sweep.Named(names)
	return o, err
}

func sweepNames() string {
	var names []string
	for _, s := range sweep.All() {
		names = append(names, s.Name())
	}
	return strings.Join(names, ",")
}

// sweepTokens is how many RS256 tokens sweeps have that are not about tokens, as
// many as the benchmark beside peers.
const sweepTokens = 1000

// sweeps measures and writes the results. What could not be measured is an error
// when all else is written.
func sweeps(ctx context.Context, args []string, progress io.Writer) (err error) {
	o, err := parseSweeps(args)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return fmt.Errorf("make a folder for the run: %w", err)
	}
	g := &sweep.Ground{Dir: dir, Mode: o.mode, Say: func(format string, args ...any) {
		_, _ = fmt.Fprintf(progress, format+"\n", args...) // nobody depends on it
	}}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	page, err := o.prepare(ctx, g)
	if err != nil {
		return err
	}
	address, err := process.FreeAddress(ctx)
	if err != nil {
		return err
	}
	upstream, err := process.Start(ctx, dir, system.Own(g.Programs.Bench, "upstream", address, ""))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upstream.Stop()) }()
	g.Upstream = address
	for _, s := range o.chosen {
		page.Sweeps = append(page.Sweeps, s.Run(ctx, g))
	}
	return o.write(page)
}

// prepare builds the gateway and makes what all sweeps need.
func (o *sweepOptions) prepare(ctx context.Context, g *sweep.Ground) (*report.Sweeps, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the harness's program: %w", err)
	}
	page := &report.Sweeps{
		Time: time.Now().UTC().Format(time.RFC3339), Mode: o.mode.Name, Rounds: o.mode.Rounds, Seconds: o.mode.Length.Seconds(),
		Command: o.command(),
	}
	if o.gateway == "" {
		g.Say("building the gateway")
		if g.Programs, err = program.BuildGateway(ctx, o.root, self); err != nil {
			return nil, err
		}
	} else {
		g.Programs = system.Programs{Bench: self, Sallyport: o.gateway}
	}
	if g.Programs.Sallyport, err = filepath.Abs(g.Programs.Sallyport); err != nil {
		return nil, fmt.Errorf("find the gateway: %w", err)
	}
	if page.Versions, err = program.GatewayVersions(ctx, o.root); err != nil {
		return nil, err
	}
	if o.gateway != "" {
		page.Versions["sallyport"] = "a build that was given"
	}
	if page.Machine, err = report.ThisMachine(); err != nil {
		return nil, err
	}
	g.Work, err = work.New(g.Dir, sweepTokens, time.Now())
	return page, err
}

// command repeats the run.
func (o *sweepOptions) command() string {
	var names []string
	for _, s := range o.chosen {
		names = append(names, s.Name())
	}
	return fmt.Sprintf("make bench-sweep BENCH_FLAGS='-mode %s -rounds %d -length %s -sweeps %s'",
		o.mode.Name, o.mode.Rounds, o.mode.Length, strings.Join(names, ","))
}

func (o *sweepOptions) write(page *report.Sweeps) error {
	var err error
	if page.Machine.LoadAfter, err = report.LoadAverage(); err != nil {
		return err
	}
	if err := page.Write(o.out); err != nil {
		return err
	}
	if _, err := os.Stdout.WriteString(page.Markdown()); err != nil {
		return fmt.Errorf("print the tables: %w", err)
	}
	var failed []string
	for _, s := range page.Sweeps {
		if s.Failed != "" {
			failed = append(failed, s.Name)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("not or only partly measured: %s", strings.Join(failed, ", "))
	}
	return nil
}
