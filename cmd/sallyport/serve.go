package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/app"
)

func serveVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve -c FILE",
		Short: "Run the gateway",
		Long: `Runs the gateway until SIGTERM or SIGINT. The configuration, certificates, key sets and
policies are read again when their files change, the configuration also on SIGHUP; what
is broken is refused and the last good state stays.`,
		Args: cobra.NoArgs,
	}
	file := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return serve(cmd.Context(), *file)
	}
	return cmd
}

func serve(ctx context.Context, file string) error {
	// Whoever reads the logs may end before the gateway does: the decision log counts
	// what it cannot write, and requests go on.
	signal.Ignore(syscall.SIGPIPE)
	a, err := app.New(ctx, app.Options{ConfigFile: file, Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		return err
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-hangup:
				a.Hangup(ctx)
			case <-done:
				return
			}
		}
	}()
	return a.Run(ctx)
}

func checkVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Report everything wrong with a configuration and its policies, without opening a port",
		Args:  cobra.NoArgs,
	}
	file := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := app.Check(cmd.Context(), app.Options{ConfigFile: *file, Stderr: cmd.ErrOrStderr()}); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", *file) //nolint:errcheck // standard output is gone
		return nil
	}
	return cmd
}
