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
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/admin"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/exit"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/telemetry"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/version"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/watch"
	"github.com/sallyport/sallyport/engine/decisionlog"
	"github.com/sallyport/sallyport/proxy"
)

// Options are what the process was started with.
type Options struct {
	ConfigFile string
	Stdout     io.Writer // decision log
	Stderr     io.Writer // operator's log
}

// App is one gateway process.
type App struct {
	opts      Options
	logger    *slog.Logger
	telemetry *telemetry.Providers
	log       *decisionlog.Log
	opaLog    *opaLog
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
	a.opaLog = &opaLog{logger: a.logger}
	if a.log, err = decisionlog.New(cfg.DecisionLog, opts.Stdout, decisionlog.Deps{
		Logger: a.logger, Meter: a.telemetry.Meter, Entrypoint: cfg.Policy.Engine.Entrypoint,
		Sinks: []decisionlog.Sink{a.opaLog},
	}); err != nil {
		return nil, exit.With(exit.Config, err)
	}
	if a.status, err = newStatus(a.telemetry.Meter); err != nil {
		return nil, err
	}
	if a.front, err = proxy.New(proxy.Deps{Logger: a.logger, Meter: a.telemetry.Meter, Tracer: a.tracer(), Recorder: a.log}); err != nil {
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
	opts.Stdout, opts.Stderr = io.Discard, io.Discard
	cfg, err := config.Load(opts.ConfigFile)
	if err != nil {
		return exit.With(exit.Config, err)
	}
	problems, err := checkPolicies(ctx, cfg)
	if err != nil || len(problems) > 0 {
		return exit.With(exit.Policy, errors.Join(err, errors.Join(problems...)))
	}
	if err := checkCerts(cfg); err != nil {
		return exit.With(exit.Config, err)
	}
	a, err := New(ctx, opts)
	if err != nil {
		return err
	}
	return a.telemetry.Shutdown(ctx)
}

// Run serves until ctx ends, then drains. An error means that the gateway could
// not start or that one of its parts failed.
func (a *App) Run(ctx context.Context) error {
	g := a.current.Load()
	a.crew = newCrew(context.WithoutCancel(ctx)) // parts end in the order of shutdown, not all at once
	a.warn(ctx, g.cfg)
	var err error
	if g.sockets, err = a.openListeners(ctx, g.cfg, nil); err != nil {
		return exit.With(exit.Failed, err)
	}
	adminListener, err := a.listen(ctx, g.cfg.Admin.Address)
	if err != nil {
		return errors.Join(fmt.Errorf("admin listener: %w", err), closeNew(g.sockets, nil))
	}
	files := &watch.Watcher{Logger: a.logger, Targets: a.targets}
	files.Mark()

	// From here on things run, and end by shutdown alone.
	stopLog := a.crew.start("decision log", a.log.Run)
	stopAdmin := a.crew.start("admin listener", func(ctx context.Context) error { return a.serveAdmin(ctx, adminListener) })
	stopFiles := a.crew.start("file watcher", files.Run)
	g.policy.stop = a.crew.start("policy source", g.policy.source.Run)
	a.startAuthenticators(g)
	a.front.Swap(g.front)
	a.serveSockets(g)
	a.logger.InfoContext(ctx, "serving", slog.String("version", version.String()), slog.String("config", a.opts.ConfigFile), slog.String("revision", a.revision(g.cfg)))

	select {
	case <-ctx.Done():
	case <-a.crew.ctx.Done():
	}
	stopFiles() // no reload begins any more
	err = a.drain(ctx)
	stopLog() // after the last request
	stopAdmin()
	return errors.Join(err, a.crew.wait(ctx), a.telemetry.Shutdown(context.WithoutCancel(ctx)))
}

// drain takes the gateway out of traffic: not ready, a pause in which load
// balancers notice, no new connections, and time for requests that have begun.
func (a *App) drain(ctx context.Context) error {
	g := a.current.Load()
	limits := g.cfg.Shutdown
	a.stopping.Store(true)
	a.logger.InfoContext(ctx, "shutting down", slog.String("delay", limits.Delay.String()), slog.String("timeout", limits.Timeout.String()))
	if limits.Delay > 0 {
		time.Sleep(limits.Delay) // the pause that load balancers need; nothing ends it early
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limits.Timeout)
	defer cancel()
	return a.front.Shutdown(ctx)
}

// targets are the files that are watched now, each group with its owner.
func (a *App) targets() []watch.Target {
	g := a.current.Load()
	out := []watch.Target{
		{Name: "configuration", Files: []string{a.opts.ConfigFile}, Reload: a.Reload},
		{Name: "policy", Files: g.policy.source.Files(), Reload: g.policy.source.Reload},
	}
	for name, s := range g.sockets {
		if s.certs != nil {
			out = append(out, watch.Target{Name: "certificates of listener " + name, Files: s.certs.Files(), Reload: s.certs.Reload})
		}
	}
	for name, x := range g.authenticators {
		if x.jwt != nil && len(x.jwt.Files()) > 0 {
			out = append(out, watch.Target{Name: "keys of authenticator " + name, Files: x.jwt.Files(), Reload: x.jwt.Reload})
		}
	}
	return out
}

func (a *App) serveAdmin(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: admin.New(admin.Deps{
			Ready: a.ready, Status: a.statusPage, Version: version.Get(),
			Metrics: a.telemetry.Handler(), Decisions: a.log,
		}),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends followers of the log
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return srv.Shutdown(grace)
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
func checkPolicies(ctx context.Context, cfg *config.Config) ([]error, error) {
	caps, err := engineCapabilities(cfg)
	if err != nil {
		return nil, err
	}
	var out []error
	for _, p := range bundles.Check(ctx, cfg.Policy.Sources, bundles.Checking{Entrypoints: entrypoints(cfg), Capabilities: caps}) {
		out = append(out, p)
	}
	return out, nil
}
