package app

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/watch"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/grant"
	"github.com/sallyport/sallyport/proxy/identitytoken"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/outbound"
	"github.com/sallyport/sallyport/proxy/route"
)

// outgoing is what upstreams are shown of callers is made with. A reload keeps each
// part while its own configuration is the same, with the tokens that it has.
type outgoing struct {
	identity    *identitytoken.Issuer // nil: upstreams get no token of ours
	exchanges   map[string]*grant.Exchanger
	credentials map[string]*credentials
}

// credentials are tokens of the gateway's own, fetched ahead while they run.
type credentials struct {
	*grant.Credentials
	stop func() // nil: not running
}

// buildOutgoing makes the parts that changed and takes the others from old.
func (a *App) buildOutgoing(cfg *config.Config, old *generation) (*outgoing, error) {
	o := &outgoing{exchanges: map[string]*grant.Exchanger{}, credentials: map[string]*credentials{}}
	before, was := &outgoing{}, &config.Config{}
	if old != nil {
		before, was = old.outgoing, old.cfg
	}
	var errs []error
	var err error
	if o.identity, err = a.identityIssuer(cfg, was, before.identity); err != nil {
		errs = append(errs, cfg.At("identity_token", err))
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.TokenExchanges)) {
		c := cfg.TokenExchanges[name]
		if x, ok := before.exchanges[name]; ok && reflect.DeepEqual(was.TokenExchanges[name], c) {
			o.exchanges[name] = x
		} else if o.exchanges[name], err = grant.NewExchanger(c, grant.Deps{Name: name, Metrics: a.telemetry.Metrics}); err != nil {
			errs = append(errs, cfg.At("token_exchanges."+name, err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.ClientCredentials)) {
		c := cfg.ClientCredentials[name]
		if x, ok := before.credentials[name]; ok && reflect.DeepEqual(was.ClientCredentials[name], c) {
			o.credentials[name] = x
			continue
		}
		made, err := grant.NewCredentials(c, grant.Deps{Name: name, Metrics: a.telemetry.Metrics})
		if err != nil {
			errs = append(errs, cfg.At("client_credentials."+name, err))
		}
		o.credentials[name] = &credentials{Credentials: made}
	}
	return o, errors.Join(errs...)
}

// identityIssuer returns what signs the gateway's own tokens: the one before if its
// configuration is the same, else one that goes on with its keys.
func (a *App) identityIssuer(cfg, was *config.Config, before *identitytoken.Issuer) (*identitytoken.Issuer, error) {
	switch {
	case cfg.IdentityToken == nil:
		return nil, nil
	case before != nil && reflect.DeepEqual(was.IdentityToken, cfg.IdentityToken):
		return before, nil
	}
	return identitytoken.New(*cfg.IdentityToken, before, identitytoken.Deps{Metrics: a.telemetry.Metrics})
}

// of returns what the upstream of a route is shown.
func (o *outgoing) of(r route.Config) (judge.Outbound, error) {
	deps := outbound.Deps{Identity: o.identity, Exchanges: o.exchanges, Credentials: map[string]*grant.Credentials{}}
	for name, c := range o.credentials {
		deps.Credentials[name] = c.Credentials
	}
	return outbound.New(r, deps)
}

// endpoints are the paths that the gateway serves itself.
func (o *outgoing) endpoints() []authn.Endpoint {
	if o.identity == nil {
		return nil
	}
	return o.identity.Endpoints()
}

// targets are the watched files.
func (o *outgoing) targets() (out []watch.Target) {
	add := func(name string, r authn.Reloader) {
		if files := r.Files(); len(files) > 0 {
			out = append(out, watch.Target{Name: name, Files: files, Reload: r.Reload})
		}
	}
	if o.identity != nil {
		add("keys of identity tokens", o.identity)
	}
	for name, x := range o.exchanges {
		add("CA of token exchange "+name, x)
	}
	for name, x := range o.credentials {
		add("CA of client credentials "+name, x)
	}
	return out
}

// startOutgoing has tokens of the gateway's own fetched ahead.
func (a *App) startOutgoing(o *outgoing) {
	for name, c := range o.credentials {
		if c.stop == nil {
			c.stop = a.crew.start("client credentials "+name, c.Run)
		}
	}
}

// retire ends what only o used.
func (o *outgoing) retire(next *outgoing) {
	for name, c := range o.credentials {
		if next.credentials[name] != c && c.stop != nil {
			c.stop()
		}
	}
}

// exchanges returns whether a route that asks an entrypoint can exchange tokens.
func exchanges(cfg *config.Config) func(entrypoint string) bool {
	return func(entrypoint string) bool {
		return slices.ContainsFunc(cfg.Routes, func(r route.Config) bool {
			asks := r.Entrypoint
			if asks == "" {
				asks = cfg.Policy.Engine.Entrypoint
			}
			return asks == entrypoint && r.TokenExchange != ""
		})
	}
}

// insecureOutgoing names the choices that weaken the gateway, by key.
func insecureOutgoing(cfg *config.Config) map[string]string {
	out := map[string]string{}
	for name, c := range cfg.TokenExchanges {
		for key, means := range c.Insecure() {
			out[fmt.Sprintf("token_exchanges.%s.%s", name, key)] = means
		}
	}
	for name, c := range cfg.ClientCredentials {
		for key, means := range c.Insecure() {
			out[fmt.Sprintf("client_credentials.%s.%s", name, key)] = means
		}
	}
	return out
}
