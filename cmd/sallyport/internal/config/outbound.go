package config

import (
	"errors"
	"fmt"
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
