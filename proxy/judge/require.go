package judge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/route"
)

// require checks what a route requires of an identity. It runs for every request:
// what was cached for one route must not open another.
func require(r *route.Require, id *authz.Identity) error {
	if len(r.Scopes) == 0 && len(r.Audiences) == 0 {
		return nil
	}
	if !id.Authenticated {
		return fmt.Errorf("route requires scopes or an audience: %w", authn.ErrNoCredential)
	}
	if len(r.Audiences) > 0 && !slices.ContainsFunc(r.Audiences, func(a string) bool { return slices.Contains(id.Audiences, a) }) {
		return fmt.Errorf("%w %q, the route wants one of %q: %w", authn.ErrAudience, id.Audiences, r.Audiences, authn.ErrInvalid)
	}
	for _, s := range r.Scopes {
		if !slices.Contains(id.Scopes, s) {
			return fmt.Errorf("scope %s: %w", s, authn.ErrInsufficientScope)
		}
	}
	return nil
}

// withScope adds what the route requires to a bearer challenge (RFC 6750 section 3).
func withScope(challenge string, r *route.Require) string {
	if len(r.Scopes) == 0 {
		return challenge
	}
	return withParameter(challenge, "scope", strings.Join(r.Scopes, " "))
}

// withParameter adds a parameter to a challenge for OAuth tokens.
func withParameter(challenge, name, value string) string {
	scheme, rest, _ := strings.Cut(challenge, " ")
	if !strings.EqualFold(scheme, "bearer") && !strings.EqualFold(scheme, "dpop") {
		return challenge
	}
	parameter := name + `="` + value + `"`
	if rest == "" {
		return scheme + " " + parameter
	}
	return challenge + ", " + parameter
}

// discover has the challenges of an answer say where the client learns who issues
// tokens for what it asked (RFC 9728 section 5.1).
func (j *Judge) discover(c *judged) {
	if c.Answer == nil || j.cfg.ResourceMetadata == nil {
		return
	}
	for i := range c.Answer.Headers {
		h := &c.Answer.Headers[i]
		if h.Name != "www-authenticate" {
			continue
		}
		if url := j.cfg.ResourceMetadata(nameOf(&c.who), c.who.Path); url != "" {
			h.Value = withParameter(h.Value, "resource_metadata", url)
		}
	}
}
