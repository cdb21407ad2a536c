// Package outbound puts together what a route's upstream is shown of the caller:
// headers from templates, the gateway's own word on who it is, and the
// credential in Authorization. It owns the order and the fact that each header
// has one origin; how each is made belongs to the packages that make it.
package outbound

import (
	"context"
	"errors"
	"slices"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/grant"
	"github.com/sallyport/sallyport/proxy/identitytoken"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/route"
	"github.com/sallyport/sallyport/proxy/template"
)

// Set is what one route shows its upstream. It is safe for concurrent use.
type Set struct {
	parts     []judge.Outbound
	owned     []string
	exchanges bool
}

// Deps are the parts that routes share. What is nil is not configured.
type Deps struct {
	Identity    *identitytoken.Issuer
	Exchanges   map[string]*grant.Exchanger   // by name
	Credentials map[string]*grant.Credentials // by name
}

// New returns what a route's upstream is shown, nil if that is nothing.
func New(r route.Config, deps Deps) (judge.Outbound, error) {
	s := &Set{}
	if len(r.UpstreamHeaders) > 0 {
		h, err := template.NewHeaders(r.UpstreamHeaders)
		if err != nil {
			return nil, err
		}
		s.add(templates{h}, h.Names())
	}
	if r.IdentityToken != nil {
		if deps.Identity == nil {
			return nil, errors.New("identity_token: the gateway has no keys to sign with")
		}
		s.add(identity{deps.Identity, r.IdentityToken.Audience}, []string{deps.Identity.Header()})
	}
	if err := s.addAuthorization(r, deps); err != nil {
		return nil, err
	}
	if len(s.parts) == 0 {
		return nil, nil
	}
	return s, nil
}

func (s *Set) add(part judge.Outbound, owned []string) {
	s.parts = append(s.parts, part)
	s.owned = append(s.owned, owned...)
}

// Exchanges reports whether a policy may ask for a token exchange.
func (s *Set) Exchanges() bool { return s.exchanges }

// Owned returns the names of the headers that are not the client's.
func (s *Set) Owned() []string { return slices.Clone(s.owned) }

// Headers returns what all parts set. One that cannot closes.
func (s *Set) Headers(ctx context.Context, o *judge.Outgoing) ([]authz.Header, error) {
	var out []authz.Header
	for _, p := range s.parts {
		set, err := p.Headers(ctx, o)
		if err != nil {
			return nil, err
		}
		out = append(out, set...)
	}
	return out, nil
}

// templates are the route's upstream_headers.
type templates struct{ headers *template.Headers }

func (t templates) Headers(_ context.Context, o *judge.Outgoing) ([]authz.Header, error) {
	return t.headers.Render(template.Caller(o.Input.Identity, template.Tokens{Access: o.Caller.Token, ID: o.Caller.IDToken}, withoutSessions(o.Caller.Headers)))
}

// withoutSessions returns headers without the gateway's own cookies, which no upstream
// gets under any name.
func withoutSessions(headers []authz.Header) []authz.Header {
	i := slices.IndexFunc(headers, func(h authz.Header) bool { return h.Name == "cookie" }) // there is one at the most
	if i < 0 {
		return headers
	}
	headers = slices.Clone(headers)
	headers[i].Value = authn.WithoutCookies(headers[i].Value, nil)
	return headers
}

// identity is the route's identity_token.
type identity struct {
	issuer   *identitytoken.Issuer
	audience string
}

// Headers returns nothing for a caller who is nobody: there is no one to vouch for.
func (i identity) Headers(_ context.Context, o *judge.Outgoing) ([]authz.Header, error) {
	id := o.Input.Identity
	if !id.Authenticated {
		return nil, nil
	}
	audience := i.audience
	if audience == "" {
		audience = upstreamOf(o)
	}
	token, err := i.issuer.Token(id, audience)
	if err != nil {
		return nil, err
	}
	return []authz.Header{{Name: i.issuer.Header(), Value: token}}, nil
}

// upstreamOf returns the name of the upstream that the request goes to.
func upstreamOf(o *judge.Outgoing) string {
	if name := o.Decision.Upstream.Name; name != "" {
		return name
	}
	return o.Input.Route.Upstream
}
