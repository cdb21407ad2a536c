package app

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/plugins"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/engine"
)

// policyUnit is an engine with the source that feeds it. A reload keeps it unless
// the policy section changed, so that a change of routes never loads a policy.
type policyUnit struct {
	cfg    config.Policy
	engine *engine.Engine
	source bundles.Source
	// manager is OPA's, once the source runs that has one. It belongs to the unit, so
	// that one that a refused reload started never gets the decisions of another.
	manager *atomic.Pointer[plugins.Manager]
	stop    func() // nil: not running
}

// manager returns OPA's manager of the policy that decides, nil without one.
func (a *App) manager() *plugins.Manager {
	if g := a.current.Load(); g != nil {
		return g.policy.manager.Load()
	}
	return nil
}

// entrypoints lists every rule that a route of the configuration asks.
func entrypoints(cfg *config.Config) []string {
	all := map[string]bool{cfg.Policy.Engine.Entrypoint: true}
	for _, r := range cfg.Routes {
		if r.Entrypoint != "" {
			all[r.Entrypoint] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// sameSource tells whether two policy sections have the same engine and source.
func sameSource(a, b config.Policy) bool {
	a.MaxBodyBytes = b.MaxBodyBytes // belongs to the front
	return reflect.DeepEqual(a, b)
}

// buildPolicy builds an engine with the source of its policies. Policies in files
// are loaded, so that a start with policies that do not compile stops; bundle
// services are contacted when the unit runs.
func (a *App) buildPolicy(cfg *config.Config) (*policyUnit, error) {
	e, err := engine.New(cfg.Policy.Engine, engine.Deps{Logger: a.logger, Metrics: a.telemetry.Metrics, Now: time.Now})
	if err != nil {
		return nil, err
	}
	if err := e.Require(entrypoints(cfg)...); err != nil {
		return nil, err
	}
	manager := &atomic.Pointer[plugins.Manager]{}
	source, err := bundles.New(cfg.Policy.Sources, bundles.Deps{
		Engine: e, Logger: a.logger, Meter: a.telemetry.Meter, OnManager: manager.Store,
	})
	if err != nil {
		return nil, err
	}
	return &policyUnit{cfg: cfg.Policy, engine: e, source: source, manager: manager}, nil
}

// load brings in policies that need no running source.
func (u *policyUnit) load(ctx context.Context) error {
	if len(u.cfg.Sources.Paths) == 0 {
		return nil
	}
	return u.source.Reload(ctx)
}

// activation is how long a reload waits for the policies of a changed source:
// until they are there, the configuration that works stays.
const activation = 10 * time.Second

// awaitReady waits until every bundle of a running unit is active.
func (u *policyUnit) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, activation)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		s := u.source.Status()
		if s.Ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("policy of the new configuration is not active after %v: %s", activation, s.Error)
		case <-tick.C:
		}
	}
}
