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
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/anonymous"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/authn/mtls"
	"github.com/sallyport/sallyport/proxy/judge"
)

// authenticator is one configured mechanism. A reload keeps it while its own
// configuration is the same, with its key set and its verified tokens.
type authenticator struct {
	cfg config.Authenticator
	authn.Authenticator
	jwt  *jwt.Authenticator // nil for other kinds
	stop func()             // nil: not running
}

func (x *authenticator) kind() string {
	switch {
	case x.cfg.JWT != nil:
		return jwt.Kind
	case x.cfg.MTLS != nil:
		return mtls.Kind
	}
	return anonymous.Kind
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
		if o, ok := old[name]; ok && o.jwt != nil && built.jwt != nil {
			built.jwt.Inherit(o.jwt) // a provider that is down now was up before
		}
		out[name] = built
	}
	return out, errors.Join(errs...)
}

func (a *App) buildAuthenticator(name string, c config.Authenticator) (*authenticator, error) {
	out := &authenticator{cfg: c}
	var err error
	switch {
	case c.JWT != nil:
		out.jwt, err = jwt.New(name, *c.JWT, jwt.Deps{Logger: a.logger, Meter: a.telemetry.Meter})
		out.Authenticator = out.jwt
	case c.MTLS != nil:
		out.Authenticator, err = mtls.New(name, *c.MTLS)
	default:
		out.Authenticator = anonymous.New(name, *c.Anonymous)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// prime fetches the key sets of issuers that are new.
func (a *App) prime(ctx context.Context, all map[string]*authenticator) {
	ctx, cancel := context.WithTimeout(ctx, primeTimeout)
	defer cancel()
	for name, x := range all {
		if x.jwt == nil || x.stop != nil {
			continue
		}
		if err := x.jwt.Prime(ctx); err != nil {
			a.logger.WarnContext(ctx, "key set is not there yet; tokens of this issuer get 503 until it is",
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
		return authn.New(links, a.telemetry.Meter)
	}
}
