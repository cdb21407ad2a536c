package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/exit"
	"github.com/sallyport/sallyport/engine"
)

func testVerb() *cobra.Command {
	var t bundles.Tests
	var file string
	var floor float64
	var verbose bool
	cmd := &cobra.Command{
		Use:   "test [-c FILE] [PATH...]",
		Short: "Run the Rego tests of policies and say what they do not cover",
		Long: `Runs every rule whose name begins with test_, as opa test does, with the built-in
functions that a gateway allows. Paths default to policy.paths of the configuration.`,
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file whose policies are tested")
	cmd.Flags().StringVar(&t.Filter, "run", "", "regular expression on package and name of the tests to run")
	cmd.Flags().DurationVar(&t.Timeout, "timeout", 0, "bound of one test (default 5s)")
	cmd.Flags().Float64Var(&floor, "coverage-floor", 0, "fail when less than this percentage of the rows is covered")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "list tests that pass too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if file == "" && len(args) == 0 {
			return usage(cmd, errors.New("name a configuration or paths of policies"))
		}
		cfg := engine.Default()
		if file != "" {
			c, err := config.Load(file)
			if err != nil {
				return exit.With(exit.Config, err)
			}
			cfg = c.Policy.Engine
			if len(args) == 0 {
				args = c.Policy.Sources.Paths
			}
		}
		e, err := engine.New(cfg, engine.Deps{})
		if err != nil {
			return err
		}
		t.Paths, t.Capabilities = args, e.Capabilities()
		report, err := bundles.RunTests(cmd.Context(), t)
		if err != nil {
			return policyError(err)
		}
		printTests(cmd.OutOrStdout(), report, verbose)
		return exit.With(exit.Policy, verdict(report, floor))
	}
	return cmd
}

func printTests(w io.Writer, r *bundles.TestReport, verbose bool) {
	out := func(format string, args ...any) { fmt.Fprintf(w, format, args...) } //nolint:errcheck // standard output is gone
	for _, t := range r.Results {
		word := "PASS"
		switch {
		case t.Skipped:
			word = "SKIP"
		case !t.Passed():
			word = "FAIL"
		case !verbose:
			continue
		}
		out("%s %s:%d %s.%s (%v)\n", word, t.File, t.Row, t.Package, t.Name, t.Duration)
		if t.Failure != "" {
			out("  %s\n", t.Failure)
		}
		if t.Output != "" {
			out("  printed: %s\n", t.Output)
		}
	}
	for _, n := range r.NotCovered {
		out("not covered: %s:%d-%d\n", n.File, n.From, n.To)
	}
	out("%d tests, %d failed, coverage %.1f%%\n", len(r.Results), r.Failed(), r.Coverage)
}

func verdict(r *bundles.TestReport, floor float64) error {
	switch {
	case len(r.Results) == 0:
		return errors.New("no test was found")
	case r.Failed() > 0:
		return fmt.Errorf("%d of %d tests failed", r.Failed(), len(r.Results))
	case r.Coverage < floor:
		return fmt.Errorf("coverage %.1f%% is below %.1f%%", r.Coverage, floor)
	}
	return nil
}
