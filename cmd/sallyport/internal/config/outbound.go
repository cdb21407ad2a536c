package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/route"
	"github.com/sallyport/sallyport/proxy/template"
)

// validateOutbound checks what upstreams are shown of callers, as far as it is more
// than one section's matter.
func (c *Config) validateOutbound() error {
	var errs []error
	if c.IdentityToken != nil {
		errs = append(errs, setting.Under("identity_token", c.IdentityToken.Validate()))
	}
	for _, name := range slices.Sorted(maps.Keys(c.TokenExchanges)) {
		errs = append(errs, setting.Under("token_exchanges."+name, c.TokenExchanges[name].Validate()))
	}
	for _, name := range slices.Sorted(maps.Keys(c.ClientCredentials)) {
		errs = append(errs, setting.Under("client_credentials."+name, c.ClientCredentials[name].Validate()))
	}
	for i := range c.Routes {
		errs = append(errs, setting.Under(fmt.Sprintf("routes[%d]", i), c.validateRouteOutbound(&c.Routes[i])))
	}
	return errors.Join(errs...)
}

func (c *Config) validateRouteOutbound(r *route.Config) error {
	var errs []error
	if r.IdentityToken != nil && c.IdentityToken == nil {
		errs = append(errs, setting.Problemf("identity_token", "needs the section identity_token, which says how the token is made"))
	}
	if c.IdentityToken != nil {
		errs = append(errs, setsTwice(r, c.IdentityToken.HeaderName(), "identity_token"))
	}
	if _, ok := c.TokenExchanges[r.TokenExchange]; !ok && r.TokenExchange != "" {
		errs = append(errs, setting.Problemf("token_exchange", "no exchange of token_exchanges is named %q", r.TokenExchange))
	}
	if _, ok := c.ClientCredentials[r.ClientCredentials]; !ok && r.ClientCredentials != "" {
		errs = append(errs, setting.Problemf("client_credentials", "no entry of client_credentials is named %q", r.ClientCredentials))
	}
	if r.UpstreamAuthorization != "" && r.UpstreamAuthorization != route.AuthorizationNone {
		errs = append(errs, setsTwice(r, "authorization", "upstream_authorization"))
	}
	return errors.Join(errs...)
}

// setsTwice refuses a template for a header that has another origin.
func setsTwice(r *route.Config, header, origin string) error {
	i := slices.IndexFunc(r.UpstreamHeaders, func(h template.Header) bool { return strings.EqualFold(h.Name, header) })
	if i < 0 {
		return nil
	}
	return setting.Problemf(fmt.Sprintf("upstream_headers[%d].name", i), "%s is what %s sets", header, origin)
}
