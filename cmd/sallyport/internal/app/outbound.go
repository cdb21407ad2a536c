package app

import (
	"reflect"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/watch"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/identitytoken"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/outbound"
	"github.com/sallyport/sallyport/proxy/route"
)

// identityIssuer returns what signs the gateway's own tokens: that of the
// generation before if its configuration is the same, else one that goes on with
// its keys.
func identityIssuer(cfg *config.Config, old *generation) (*identitytoken.Issuer, error) {
	var before *identitytoken.Issuer
	switch {
	case cfg.IdentityToken == nil:
		return nil, nil
	case old != nil && reflect.DeepEqual(old.cfg.IdentityToken, cfg.IdentityToken):
		return old.identity, nil
	case old != nil:
		before = old.identity
	}
	return identitytoken.New(*cfg.IdentityToken, before, nil)
}

// outbound returns what the upstream of a route is shown of callers.
func (g *generation) outbound(r route.Config) (judge.Outbound, error) {
	return outbound.New(r, outbound.Deps{Identity: g.identity})
}

// endpoints are the paths that the gateway serves itself.
func (g *generation) endpoints() []authn.Endpoint {
	out := endpoints(g.authenticators)
	if g.identity != nil {
		out = append(out, g.identity.Endpoints()...)
	}
	return out
}

// outboundTargets are the watched files of what upstreams are shown.
func (g *generation) outboundTargets() (out []watch.Target) {
	if g.identity != nil && len(g.identity.Files()) > 0 {
		out = append(out, watch.Target{Name: "keys of identity tokens", Files: g.identity.Files(), Reload: g.identity.Reload})
	}
	return out
}
