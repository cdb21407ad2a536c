// Command bench measures the gateway beside real peers: it builds the released
// binary, starts every system, checks that each does the work, loads them in
// interleaved rounds, and writes what it saw to bench/results.
//
// It is a black box to the gateway: it imports nothing of it and knows its
// binary, its configuration file and its answers. It runs on Linux, whose /proc
// says what a request costs. All traffic stays on loopback.
//
//	bench [run] [flags]                                  measure beside peers
//	bench sweep [flags]                                  measure the gateway while one thing grows
//	bench guard [flags]                                  fail if the gateway has become slower
//	bench serve -listen ADDR -upstream ADDR NAME         be one of the harness's own servers
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/bench/peer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string, progress io.Writer) error {
	verb := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
	}
	switch verb {
	case "run":
		return run(ctx, args, progress)
	case "sweep":
		return sweeps(ctx, args, progress)
	case "guard":
		return guarded(ctx, args, progress)
	case "serve":
		return serve(ctx, args)
	}
	return fmt.Errorf("unknown verb %q: run, sweep, guard or serve", verb)
}

func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address to listen on")
	upstream := flags.String("upstream", "", "host:port to forward to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	server, ok := peer.Servers()[flags.Arg(0)]
	if !ok {
		return fmt.Errorf("unknown server %q", flags.Arg(0))
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", *listen)
	if err != nil {
		return fmt.Errorf("serve %s: %w", flags.Arg(0), err)
	}
	return server(ctx, ln, *upstream)
}

// options are the flags of a run.
type options struct {
	rounds, retries, connections, tokens int
	length, warm                         time.Duration
	systems, root, out, baseline         string
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", 9, "how often each system is measured")
	flags.IntVar(&o.retries, "retries", 1, "how often a measurement is repeated when other programs used the machine meanwhile")
	flags.DurationVar(&o.length, "length", 4*time.Second, "how long each time, in whole seconds")
	flags.DurationVar(&o.warm, "warm", 2*time.Second, "how long each system is loaded before the first round, in whole seconds")
	flags.IntVar(&o.connections, "connections", 64, "connections that are kept busy")
	flags.IntVar(&o.tokens, "tokens", 1000, "different tokens")
	flags.StringVar(&o.systems, "systems", "", "names of the systems to measure, with commas; empty: all")
	flags.StringVar(&o.root, "root", ".", "the repository")
	flags.StringVar(&o.out, "out", "bench/results", "where the results go")
	flags.StringVar(&o.baseline, "baseline", "", "another build of the gateway to measure beside this one")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.rounds < 1 || o.tokens < 1 || o.connections < 1 || o.length < time.Second || o.warm < time.Second {
		return o, errors.New("rounds, tokens and connections must be at least 1, times at least 1s")
	}
	return o, nil
}
