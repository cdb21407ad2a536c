package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/admin"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/exit"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/memory"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/version"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/watch"
	"github.com/sallyport/sallyport/proxy/authn"
)

// Run serves until ctx ends, then drains. An error means that the gateway could
// not start or that one of its parts failed.
func (a *App) Run(ctx context.Context) error {
	end, err := a.begin(ctx)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-a.crew.ctx.Done():
	}
	return errors.Join(end(ctx), a.crew.wait(ctx), a.telemetry.Shutdown(context.WithoutCancel(ctx)))
}

// begin opens the ports and starts every part. What it returns ends them in the
// order in which nothing is lost. It excludes reloads: a signal may come early.
func (a *App) begin(ctx context.Context) (end func(context.Context) error, err error) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	g := a.current.Load()
	a.warn(ctx, g.cfg)
	if err := memory.Govern(ctx); err != nil {
		a.logger.WarnContext(ctx, "going on without a memory limit", slog.Any("error", err))
	}
	if g.sockets, err = a.openListeners(ctx, g.cfg, nil); err != nil {
		return nil, exit.With(exit.Failed, err)
	}
	adminListener, err := a.listen(ctx, g.cfg.Admin.Address)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("admin listener: %w", err), closeNew(g.sockets, nil))
	}
	files := &watch.Watcher{Logger: a.logger, Targets: a.targets}
	files.Mark()

	// From here on things run, and end by shutdown alone.
	a.crew = newCrew(context.WithoutCancel(ctx)) // parts end in the order of shutdown, not all at once
	stopLog := a.crew.start("decision log", a.log.Run)
	stopAdmin := a.crew.start("admin listener", func(ctx context.Context) error { return a.serveAdmin(ctx, adminListener) })
	stopFiles := a.crew.start("file watcher", files.Run)
	g.policy.stop = a.crew.start("policy source", g.policy.source.Run)
	a.startAuthenticators(g)
	a.startOutgoing(g.outgoing)
	a.front.Swap(g.front)
	a.serveSockets(g)
	a.logger.InfoContext(ctx, "serving", slog.String("version", version.String()), slog.String("config", a.opts.ConfigFile), slog.String("revision", a.revision(g.cfg)))
	return func(ctx context.Context) error {
		stopFiles()
		err := a.drain(ctx)
		stopLog() // after the last request
		stopAdmin()
		return err
	}, nil
}

// drain takes the gateway out of traffic: not ready, a pause in which load
// balancers notice, no new connections, and time for requests that have begun.
func (a *App) drain(ctx context.Context) error {
	a.reloading.Lock()
	a.stopping.Store(true) // no reload begins any more
	a.reloading.Unlock()
	limits := a.current.Load().cfg.Shutdown
	a.logger.InfoContext(ctx, "shutting down", slog.String("delay", limits.Delay.String()), slog.String("timeout", limits.Timeout.String()))
	if limits.Delay > 0 {
		time.Sleep(limits.Delay) // the pause that load balancers need; nothing ends it early
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limits.Timeout)
	defer cancel()
	if err := a.front.Shutdown(ctx); err != nil {
		return fmt.Errorf("requests under way were cut after shutdown.timeout, %v: %w", limits.Timeout, err)
	}
	return nil
}

// targets are the files that are watched now, each group with its owner.
func (a *App) targets() []watch.Target {
	g := a.current.Load()
	out := []watch.Target{
		{Name: "configuration", Files: []string{a.opts.ConfigFile}, Reload: a.Reload},
		{Name: "policy", Files: g.policy.source.Files(), Reload: g.policy.source.Reload},
	}
	for name, u := range g.cfg.Upstreams {
		// Connections to an upstream belong to a generation: new files, new generation.
		files := slices.DeleteFunc([]string{u.TLS.CAFile, u.TLS.CertFile, u.TLS.KeyFile}, func(f string) bool { return f == "" })
		if len(files) > 0 {
			out = append(out, watch.Target{Name: "certificates of upstream " + name, Files: files, Reload: a.Reload})
		}
	}
	for name, s := range g.sockets {
		if s.certs != nil {
			out = append(out, watch.Target{Name: "certificates of listener " + name, Files: s.certs.Files(), Reload: s.certs.Reload})
		}
	}
	for name, x := range g.authenticators {
		if r, ok := x.Authenticator.(authn.Reloader); ok && len(r.Files()) > 0 {
			out = append(out, watch.Target{Name: "files of authenticator " + name, Files: r.Files(), Reload: r.Reload})
		}
	}
	return append(out, g.outgoing.targets()...)
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
