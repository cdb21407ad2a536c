package app

import (
	"context"
	"errors"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/exit"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/version"
	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy"
	"github.com/sallyport/sallyport/proxy/authn/resource"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/ratelimit"
)

// generation is all that one configuration is made of. Parts whose configuration
// did not change are shared with the generation before.
type generation struct {
	cfg            *config.Config
	policy         *policyUnit
	authenticators map[string]*authenticator
	front          *proxy.Snapshot
	outgoing       *outgoing
	limits         *ratelimit.Limiter
	sockets        map[string]*socket // empty until opened
}

// build makes everything of a configuration that can be made without opening a
// port or starting a goroutine. It is what check and serve have in common.
func (a *App) build(ctx context.Context, cfg *config.Config, old *generation) (*generation, error) {
	g := &generation{cfg: cfg}
	var known map[string]*authenticator
	var files error
	if old != nil {
		known = old.authenticators
	} else {
		files = checkCerts(cfg) // a reload reads them where it opens its ports
	}
	var err error
	g.authenticators, err = a.buildAuthenticators(cfg, known)
	if err = errors.Join(files, err); err != nil {
		return nil, exit.With(exit.Config, err)
	}
	if g.outgoing, err = a.buildOutgoing(cfg, old); err != nil {
		return nil, exit.With(exit.Config, err)
	}
	if old != nil && sameSource(old.cfg.Policy, cfg.Policy) {
		g.policy = old.policy
		if err := g.policy.engine.Require(entrypoints(cfg)...); err != nil {
			return nil, exit.With(exit.Policy, err)
		}
	} else if g.policy, err = a.buildPolicy(cfg); err != nil {
		return nil, exit.With(exit.Config, err)
	} else if err := g.policy.load(ctx); err != nil {
		return nil, exit.With(exit.Policy, err)
	}
	g.limits = a.buildLimits(cfg, old)
	resources, err := resource.New(cfg.ProtectedResources)
	if err != nil {
		return nil, exit.With(exit.Config, cfg.At("protected_resources", err))
	}
	front := cfg.Front()
	front.IdentityHeaders = slices.Concat(front.IdentityHeaders, unsignedHeaders(g.authenticators))
	g.front, err = proxy.Build(front, proxy.Parts{
		Decider:   g.policy.engine,
		Chain:     a.chain(g.authenticators),
		Outbound:  g.outgoing.of,
		Endpoints: slices.Concat(endpoints(g.authenticators), resources.Endpoints(), g.outgoing.endpoints()), CredentialHeaders: credentialHeaders(g.authenticators),
		AssertedHeaders:  assertedHeaders(g.authenticators),
		Vouchers:         vouchers(g.authenticators),
		ResourceMetadata: resources.Metadata,
		Limiter:          a.limiter(g.limits),
		TLSOptions:       tlsOptions(cfg),
		Gateway:          authz.Gateway{Name: a.name(cfg), Version: version.String(), Labels: cfg.Gateway.Labels},
		PolicyBodyBytes:  int64(cfg.Policy.MaxBodyBytes),
		Tracer:           a.tracer(),
	})
	return g, exit.With(exit.Config, err)
}

// buildLimits makes a limiter that goes on with what the one before has counted.
func (a *App) buildLimits(cfg *config.Config, old *generation) *ratelimit.Limiter {
	l := ratelimit.New(cfg.RateLimits, a.telemetry.Metrics)
	if old != nil {
		l.Inherit(old.limits)
	}
	return l
}

func (a *App) limiter(l *ratelimit.Limiter) judge.Limiter {
	if a.opts.probing {
		return ratelimit.Free{}
	}
	return l
}

// tracer returns nil when spans go nowhere, so that none are made.
func (a *App) tracer() trace.Tracer {
	if !a.telemetry.Tracing {
		return nil
	}
	return a.telemetry.Tracer
}

// errRestart refuses a reload that the running process cannot carry out whole.
var errRestart = errors.New("needs a restart to take effect; the running configuration stays")
