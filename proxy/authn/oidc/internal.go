package oidc

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
)

// location is an origin in the parts that a request has.
type location struct{ scheme, host string }

// newInternal finds the public origin of a canonical one as which requests arrive, or of
// "http://*" and "https://*" for any host, in what Validate has accepted.
func newInternal(c Config) map[string]location {
	all := map[string]location{}
	for public, entries := range c.InternalOrigins {
		scheme, host, _ := strings.Cut(canonicalURL(public), "://")
		for _, entry := range entries {
			for _, arrived := range expand(entry) {
				all[arrived] = location{scheme, host}
			}
		}
	}
	return all
}

// expand returns the canonical origins that an entry stands for, one for each scheme.
func expand(entry string) []string {
	scheme, host, _ := strings.Cut(entry, "://")
	if scheme == "*" {
		return []string{canonical("http", host), canonical("https", host)}
	}
	return []string{canonical(scheme, host)}
}

// seen returns the request as the browser made it: r itself, or a copy at the public
// origin if r arrived at an internal one. What is left on the copy is for r to take.
func (a *Authenticator) seen(r *authn.Request) *authn.Request {
	if len(a.internal) == 0 {
		return r
	}
	at, ok := a.internal[canonical(r.Scheme, r.Host)]
	if !ok {
		at, ok = a.internal[r.Scheme+"://*"]
	}
	if !ok {
		return r
	}
	return r.At(at.scheme, at.host)
}

// server answers for an endpoint.
type server = func(context.Context, *authn.Request) *authn.Answer

// asSeen has an endpoint answer the request as the browser made it.
func (a *Authenticator) asSeen(serve server) server {
	return func(ctx context.Context, r *authn.Request) *authn.Answer {
		seen := a.seen(r)
		defer r.Take(seen)
		return serve(ctx, seen)
	}
}

func (c Config) validateInternalOrigins() error {
	var errs []error
	owner := map[string]string{}
	for _, public := range slices.Sorted(maps.Keys(c.InternalOrigins)) {
		if err := c.validatePublic(public); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, entry := range c.InternalOrigins[public] {
			if err := c.validateInternal(public, entry, owner); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// validatePublic reports what is wrong with a key of internal_origins.
func (c Config) validatePublic(public string) error {
	_, ok := parseOrigin(public)
	switch {
	case !ok || strings.Contains(public, "*"):
		return setting.Problemf("internal_origins", "%q is not an origin such as https://app.example.com, in lower case", public)
	case len(c.Origins) == 0 || !newOrigins(c).admit(canonicalURL(public)):
		return setting.Problemf("internal_origins", "%q is not one of origins", public)
	case len(c.InternalOrigins[public]) == 0:
		return setting.Problemf("internal_origins", "%q has none: list the origins as which its requests arrive", public)
	}
	return nil
}

// validateInternal reports what is wrong with an entry below public. The origins of the
// entries so far have an owner each.
func (c Config) validateInternal(public, entry string, owner map[string]string) error {
	wild := strings.Contains(entry, "*")
	switch {
	case !internalOrigin(entry):
		return setting.Problemf("internal_origins", "%q is neither an origin such as http://gateway.internal, in lower case, nor one with * for the scheme or the host", entry)
	case wild && (len(c.Origins) != 1 || strings.Contains(c.Origins[0], "*")):
		return setting.Problemf("internal_origins", "%q has a wildcard, which needs a single entry in origins, without one: nothing else would say which of them a browser is at", entry)
	case wild:
		return nil
	}
	o := canonicalURL(entry)
	if newOrigins(c).admit(o) {
		return setting.Problemf("internal_origins", "%q is one of origins itself", entry)
	}
	if other := owner[o]; other != "" && other != public {
		return setting.Problemf("internal_origins", "%q stands for %s and for %s: nothing says which of them a browser is at", entry, other, public)
	}
	owner[o] = public
	return nil
}

func internalOrigin(entry string) bool {
	scheme, host, _ := strings.Cut(entry, "://")
	if scheme != "http" && scheme != "https" && scheme != "*" {
		return false
	}
	_, ok := parseOrigin("http://" + host)
	return host == "*" || ok && !strings.Contains(host, "*") && validPort(host)
}
