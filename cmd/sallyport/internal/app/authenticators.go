package app

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/anonymous"
	"github.com/sallyport/sallyport/proxy/authn/apikey"
	"github.com/sallyport/sallyport/proxy/authn/basic"
	"github.com/sallyport/sallyport/proxy/authn/clientcredentials"
	"github.com/sallyport/sallyport/proxy/authn/httpsignature"
	"github.com/sallyport/sallyport/proxy/authn/introspection"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/authn/kubernetes"
	"github.com/sallyport/sallyport/proxy/authn/mtls"
	"github.com/sallyport/sallyport/proxy/authn/oidc"
	"github.com/sallyport/sallyport/proxy/authn/signedheader"
	"github.com/sallyport/sallyport/proxy/judge"
)

// authenticator is one configured mechanism. A reload keeps it while its own
// configuration is the same, with its key set and its verified tokens.
type authenticator struct {
	cfg config.Authenticator
	authn.Authenticator
	stop func() // nil: not running
}

// primeTimeout is how long a reload waits for the key set of a new issuer. A
// provider that is down does not hold the reload up: its tokens get 503 until its
// keys are there.
const primeTimeout = 2 * time.Second

// buildAuthenticators makes those that changed and takes the others from old.
func (a *App) buildAuthenticators(cfg *config.Config, old map[string]*authenticator) (map[string]*authenticator, error) {
	out := make(map[string]*authenticator, len(cfg.Authenticators))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Authenticators)) {
		c := cfg.Authenticators[name]
		if o, ok := old[name]; ok && reflect.DeepEqual(o.cfg, c) {
			out[name] = o
			continue
		}
		built, err := a.buildAuthenticator(name, c)
		if err != nil {
			errs = append(errs, cfg.At("authenticators."+name, err))
			continue
		}
		if o, ok := old[name]; ok {
			inherit(built, o)
		}
		out[name] = built
	}
	if err := oneEach(out); err != nil {
		errs = append(errs, cfg.At("authenticators", err))
	}
	return out, errors.Join(errs...)
}

// oneEach refuses two mechanisms that serve one path: the second would never be asked.
func oneEach(all map[string]*authenticator) error {
	owner := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		s, ok := all[name].Authenticator.(authn.Server)
		if !ok {
			continue
		}
		for _, e := range s.Endpoints() {
			if other, taken := owner[e.Path]; taken && other != name {
				return setting.Problemf(name, "serves %s, as %s does; give each its own paths", e.Path, other)
			}
			owner[e.Path] = name
		}
	}
	return nil
}

func (a *App) buildAuthenticator(name string, c config.Authenticator) (*authenticator, error) {
	var made authn.Authenticator
	var err error
	switch {
	case c.JWT != nil:
		made, err = jwt.New(name, *c.JWT, jwt.Deps{Logger: a.logger, Meter: a.telemetry.Meter, Metrics: a.telemetry.Metrics})
	case c.Introspection != nil:
		made, err = introspection.New(name, *c.Introspection, introspection.Deps{Logger: a.logger, Meter: a.telemetry.Meter, Metrics: a.telemetry.Metrics})
	case c.Kubernetes != nil:
		made, err = kubernetes.New(name, *c.Kubernetes, kubernetes.Deps{Meter: a.telemetry.Meter})
	case c.MTLS != nil:
		made, err = mtls.New(name, *c.MTLS)
	case c.OIDC != nil:
		made, err = oidc.New(name, *c.OIDC, oidc.Deps{Logger: a.logger, Metrics: a.telemetry.Metrics})
	case c.APIKey != nil:
		made, err = apikey.New(name, *c.APIKey)
	case c.Basic != nil:
		made, err = basic.New(name, *c.Basic)
	case c.SignedHeader != nil:
		made, err = signedheader.New(name, *c.SignedHeader, signedheader.Deps{Logger: a.logger, Meter: a.telemetry.Meter})
	case c.ClientCredentials != nil:
		made, err = clientcredentials.New(name, *c.ClientCredentials, clientcredentials.Deps{Logger: a.logger, Meter: a.telemetry.Meter, Metrics: a.telemetry.Metrics})
	case c.HTTPSignature != nil:
		made, err = httpsignature.New(name, *c.HTTPSignature, httpsignature.Deps{Logger: a.logger, Meter: a.telemetry.Meter})
	default:
		made = anonymous.New(name, *c.Anonymous)
	}
	if err != nil {
		return nil, err
	}
	return &authenticator{cfg: c, Authenticator: made}, nil
}

// inherit gives a new authenticator what the old one of its name has: a provider that
// is down now was up before, and sessions outlive a changed configuration.
func inherit(built, old *authenticator) {
	switch next := built.Authenticator.(type) {
	case *jwt.Authenticator:
		if prev, ok := old.Authenticator.(*jwt.Authenticator); ok {
			next.Inherit(prev)
		}
	case *introspection.Authenticator:
		if prev, ok := old.Authenticator.(*introspection.Authenticator); ok {
			next.Inherit(prev)
		}
	case *httpsignature.Authenticator:
		if prev, ok := old.Authenticator.(*httpsignature.Authenticator); ok {
			next.Inherit(prev)
		}
	case *oidc.Authenticator:
		if prev, ok := old.Authenticator.(*oidc.Authenticator); ok {
			next.Inherit(prev)
		}
	}
}

// endpoints are the paths that mechanisms serve themselves.
func endpoints(all map[string]*authenticator) (out []authn.Endpoint) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if s, ok := all[name].Authenticator.(authn.Server); ok {
			out = append(out, s.Endpoints()...)
		}
	}
	return out
}

// credentialHeaders are the headers in which credentials travel.
func credentialHeaders(all map[string]*authenticator) (out []string) {
	for _, x := range all {
		if c, ok := x.Authenticator.(authn.Carrier); ok {
			out = append(out, c.CredentialHeaders()...)
		}
	}
	return out
}

// assertedHeaders are the headers in which something in front says who the caller is.
func assertedHeaders(all map[string]*authenticator) (out []string) {
	for _, x := range all {
		if c, ok := x.Authenticator.(authn.Asserter); ok {
			out = append(out, c.AssertedHeaders()...)
		}
	}
	return out
}

// vouchers say which proxies are believed what they say of clients' certificates.
func vouchers(all map[string]*authenticator) (out []func(*authn.Request) bool) {
	for _, x := range all {
		if v, ok := x.Authenticator.(authn.Voucher); ok {
			if vouches := v.Vouches(); vouches != nil {
				out = append(out, vouches)
			}
		}
	}
	return out
}

// unsignedHeaders are those that a proxy in front sets without a signature: a client
// could have sent them too, so they end here.
func unsignedHeaders(all map[string]*authenticator) (out []string) {
	for _, x := range all {
		if s, ok := x.Authenticator.(*signedheader.Authenticator); ok {
			out = append(out, s.UnsignedHeaders()...)
		}
	}
	return out
}

// prime fetches what new authenticators need from their providers.
func (a *App) prime(ctx context.Context, all map[string]*authenticator) {
	ctx, cancel := context.WithTimeout(ctx, primeTimeout)
	defer cancel()
	for name, x := range all {
		p, ok := x.Authenticator.(authn.Primer)
		if !ok || x.stop != nil {
			continue
		}
		if err := p.Prime(ctx); err != nil {
			a.logger.WarnContext(ctx, "the provider is not there yet; its credentials get 503 until it is",
				slog.String("authenticator", name), slog.Any("error", err))
		}
	}
}

// chain returns what makes the chain of a route from the names that it lists.
func (a *App) chain(all map[string]*authenticator) func(names []string) (judge.Chain, error) {
	return func(names []string) (judge.Chain, error) {
		links := make([]authn.Named, len(names))
		for i, name := range names {
			links[i] = authn.Named{Name: name, Authenticator: all[name].Authenticator}
		}
		return authn.New(links, a.telemetry.Metrics)
	}
}
