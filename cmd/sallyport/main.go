// Command sallyport is a policy-as-code gateway: it authenticates callers, asks a
// Rego policy that it evaluates in process, and forwards what the policy allows.
//
// This package is the command line only: one file per verb, each thin. What the
// verbs do lives below internal and in the packages beside cmd.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/exit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "sallyport: %v\n", err)
	}
	os.Exit(exit.Code(err))
}

// root builds the tree of verbs. Errors of arguments and flags have the status
// of wrong usage; each verb gives its own errors theirs.
func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sallyport",
		Short: "A policy-as-code gateway that embeds OPA",
		Long: `Sallyport authenticates callers, asks a Rego policy that it evaluates in process,
and forwards what the policy allows.

Exit status: 0 ok, 1 failed while running, 2 usage, 3 configuration, 4 policy.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help() // standard output is gone
			return exit.With(exit.Usage, fmt.Errorf("name a verb"))
		},
	}
	cmd.SetFlagErrorFunc(usage)
	cmd.AddCommand(verbs()...)
	for _, c := range every(cmd) {
		wrapArgs(c)
	}
	return cmd
}

func usage(cmd *cobra.Command, err error) error {
	return exit.With(exit.Usage, fmt.Errorf("%w; see %s --help", err, cmd.CommandPath()))
}

// wrapArgs makes wrong positional arguments and missing flags errors of usage.
func wrapArgs(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil {
		check = cobra.ArbitraryArgs
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		for _, err := range []error{check(cmd, args), cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups()} {
			if err != nil {
				return usage(cmd, err)
			}
		}
		return nil
	}
}

func every(cmd *cobra.Command) []*cobra.Command {
	out := []*cobra.Command{cmd}
	for _, c := range cmd.Commands() {
		out = append(out, every(c)...)
	}
	return out
}
