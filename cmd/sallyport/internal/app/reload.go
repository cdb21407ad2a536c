package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/proxy/authn"
)

// Reload reads the configuration file again and makes it the one that serves, all
// or nothing: whatever can fail happens before anything that serves is touched.
func (a *App) Reload(ctx context.Context) error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	if a.crew == nil || a.stopping.Load() {
		return errors.New("reload: the gateway is starting or ending")
	}
	err := a.reload(ctx)
	a.status.reloaded(ctx, err)
	return err
}

// Hangup reloads for a signal, whose sender reads the log for what came of it.
func (a *App) Hangup(ctx context.Context) {
	if err := a.Reload(ctx); err != nil {
		a.logger.ErrorContext(ctx, "reload refused; the last good state stays", slog.String("target", "configuration"), slog.Any("error", err))
	}
}

func (a *App) reload(ctx context.Context) error {
	old := a.current.Load()
	// What a refused configuration asked of the policy is not asked any more, and
	// neither is what only the old one did.
	defer func() {
		g := a.current.Load()
		if err := g.policy.engine.Retain(entrypoints(g.cfg)...); err != nil {
			a.logger.WarnContext(ctx, "entrypoints that no route asks stay prepared", slog.Any("error", err))
		}
	}()
	cfg, err := config.Load(a.opts.ConfigFile)
	if err != nil {
		return err
	}
	if err := fixed(old.cfg, cfg); err != nil {
		return err
	}
	next, err := a.build(ctx, cfg, old)
	if err != nil {
		return err
	}
	a.prime(ctx, next.authenticators)
	if next.sockets, err = a.openListeners(ctx, cfg, old.sockets); err != nil {
		return err
	}
	if err := a.startPolicy(ctx, next.policy); err != nil {
		return errors.Join(err, closeNew(next.sockets, old.sockets))
	}

	// Point of no return: nothing below can fail. Requests that have begun end on
	// the old snapshot, new ones begin on the new.
	a.front.Swap(next.front)
	a.current.Store(next)
	a.startAuthenticators(next)
	a.startOutgoing(next.outgoing)
	a.serveSockets(next)
	a.retire(old, next)
	a.logger.InfoContext(ctx, "configuration reloaded", slog.String("revision", a.revision(cfg)))
	return nil
}

// fixed refuses changes of what belongs to the process and not to a snapshot.
func fixed(old, next *config.Config) error {
	var errs []error
	for key, same := range map[string]bool{
		"admin":        reflect.DeepEqual(old.Admin, next.Admin),
		"telemetry":    reflect.DeepEqual(old.Telemetry, next.Telemetry),
		"decision_log": reflect.DeepEqual(old.DecisionLog, next.DecisionLog),
	} {
		if !same {
			errs = append(errs, fmt.Errorf("%s: %w", key, errRestart))
		}
	}
	return errors.Join(errs...)
}

// startPolicy runs a new policy unit and waits until it can decide, so that no
// request meets a gateway without policy because of a reload.
func (a *App) startPolicy(ctx context.Context, u *policyUnit) error {
	if u.stop != nil {
		return nil
	}
	u.stop = a.crew.start("policy source", u.source.Run)
	if err := u.awaitReady(ctx); err != nil {
		u.stop()
		return err
	}
	return nil
}

func (a *App) startAuthenticators(g *generation) {
	for name, x := range g.authenticators {
		if x.stop != nil {
			continue
		}
		x.stop = func() {}
		if r, ok := x.Authenticator.(authn.Runner); ok {
			x.stop = a.crew.start("authenticator "+name, r.Run)
		}
	}
}

// retire ends what only the old generation used. Requests in flight keep their
// authenticators and their policy snapshot: ending a source stops what feeds
// them, not what they decide with.
func (a *App) retire(old, next *generation) {
	for name, s := range old.sockets {
		n := next.sockets[name]
		if n == nil || n.port != s.port {
			s.stop()
		}
		if s.fresh != nil && (n == nil || n.certs != s.certs) {
			s.fresh()
		}
	}
	for name, x := range old.authenticators {
		if next.authenticators[name] != x {
			x.stop()
		}
	}
	old.outgoing.retire(next.outgoing)
	if old.policy != next.policy {
		old.policy.stop()
	}
}
