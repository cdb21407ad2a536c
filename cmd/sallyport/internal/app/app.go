// Package app is the process: it builds everything from one configuration, runs
// every long-lived part, and exchanges what a changed configuration changes
// without dropping a request.
//
// It judges nothing and knows no mechanism; it is plain wiring by constructors.
// One generation is what one configuration is made of; the front, the decision
// log, the admin listener and telemetry live as long as the process.
package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/metric"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/exit"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/telemetry"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/version"
	"github.com/sallyport/sallyport/engine/decisionlog"
	"github.com/sallyport/sallyport/proxy"
)

// Options are what the process was started with.
type Options struct {
	ConfigFile string
	Stdout     io.Writer // decision log
	Stderr     io.Writer // operator's log

	probing bool // nobody sent what is judged: nothing is taken for it

	meter func(metric.Meter) metric.Meter // a test looks at what is registered; nil: nobody
}

// App is one gateway process.
type App struct {
	opts      Options
	logger    *slog.Logger
	telemetry *telemetry.Providers
	log       *decisionlog.Log
	front     *proxy.Server
	crew      *crew // nil until Run
	status    *status

	reloading sync.Mutex // one reload at a time
	current   atomic.Pointer[generation]
	stopping  atomic.Bool
}

// New reads the configuration and builds everything that needs neither port nor
// goroutine. Errors carry the exit status of what is wrong.
func New(ctx context.Context, opts Options) (*App, error) {
	cfg, err := config.Load(opts.ConfigFile)
	if err != nil {
		return nil, exit.With(exit.Config, err)
	}
	a := &App{opts: opts, logger: telemetry.NewLogger(cfg.Telemetry.Log, opts.Stderr)}
	if a.telemetry, err = telemetry.New(ctx, cfg.Telemetry, "sallyport", version.String(), a.logger); err != nil {
		return nil, exit.With(exit.Config, err)
	}
	if opts.meter != nil {
		a.telemetry.Meter = opts.meter(a.telemetry.Meter)
	}
	if a.log, err = decisionlog.New(cfg.DecisionLog, opts.Stdout, decisionlog.Deps{
		Logger: a.logger, Metrics: a.telemetry.Metrics, Meter: a.telemetry.Meter, Entrypoint: cfg.Policy.Engine.Entrypoint,
		Sinks: []decisionlog.Sink{&opaLog{logger: a.logger, manager: a.manager}},
	}); err != nil {
		return nil, exit.With(exit.Config, err)
	}
	if a.status, err = newStatus(a.telemetry.Meter); err != nil {
		return nil, err
	}
	if err := a.registerExpiry(a.telemetry.Meter); err != nil {
		return nil, err
	}
	if a.front, err = proxy.New(proxy.Deps{Logger: a.logger, Metrics: a.telemetry.Metrics, Tracer: a.tracer(), Recorder: a.log}); err != nil {
		return nil, err
	}
	g, err := a.build(ctx, cfg, nil)
	if err != nil {
		return nil, errors.Join(err, a.telemetry.Shutdown(ctx))
	}
	a.current.Store(g)
	return a, nil
}

// Check builds everything as New does, checks the policies against the input
// schema, and reports every problem. It opens no port.
func Check(ctx context.Context, opts Options) error {
	stderr := opts.Stderr
	opts.Stdout, opts.Stderr = io.Discard, io.Discard
	cfg, err := config.Load(opts.ConfigFile)
	if err != nil {
		return exit.With(exit.Config, err)
	}
	choices := insecureChoices(cfg)
	for _, key := range slices.Sorted(maps.Keys(choices)) {
		fmt.Fprintf(stderr, "warning: insecure choice: %v\n", cfg.At(key, errors.New(choices[key]))) //nolint:errcheck // nobody reads it
	}
	policies := checkPolicies(ctx, cfg)
	a, err := New(ctx, opts)
	switch {
	case err == nil:
		return errors.Join(exit.With(exit.Policy, policies), a.telemetry.Shutdown(ctx))
	case policies != nil && exit.Code(err) == exit.Policy:
		return exit.With(exit.Policy, policies) // the same, and with all that the schema shows
	}
	return errors.Join(err, policies)
}

// name is what the gateway calls itself.
func (a *App) name(cfg *config.Config) string {
	if cfg.Gateway.Name != "" {
		return cfg.Gateway.Name
	}
	host, err := os.Hostname()
	if err != nil {
		return "sallyport"
	}
	return host
}

// revision identifies the text of the configuration file.
func (a *App) revision(cfg *config.Config) string {
	sum := sha256.Sum256(cfg.Text)
	return hex.EncodeToString(sum[:6])
}

// checkPolicies type-checks the policies of cfg against the input schema.
func checkPolicies(ctx context.Context, cfg *config.Config) error {
	caps, err := engineCapabilities(cfg)
	if err != nil {
		return err
	}
	var out []error
	for _, p := range bundles.Check(ctx, cfg.Policy.Sources, bundles.Checking{
		Entrypoints: entrypoints(cfg), Capabilities: caps, Exchanges: exchanges(cfg),
	}) {
		out = append(out, p)
	}
	return errors.Join(out...)
}
