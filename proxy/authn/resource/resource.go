// Package resource tells clients where they get a token for a resource (RFC
// 9728): it owns the metadata of protected resources, the well-known endpoints that
// serve it, and which request belongs to which resource, so that a challenge can
// point there.
//
// It establishes no identity. What the metadata promises is kept by the
// authenticators of the routes.
package resource

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// wellKnown is inserted between host and path of a resource (RFC 9728 section 3).
const wellKnown = "/.well-known/oauth-protected-resource"

// Set is the protected resources of a configuration. It is immutable.
type Set struct{ resources []protected }

type protected struct {
	host, path string // path without a slash at its end
	url        string // of the metadata
	endpoint   authn.Endpoint
}

// document is the metadata as it is served (RFC 9728 section 2). Tokens come in
// the Authorization header and nowhere else.
type document struct {
	Resource               string   `json:"resource"`
	AuthorizationServers   []string `json:"authorization_servers"`
	ScopesSupported        []string `json:"scopes_supported,omitempty"`
	BearerMethodsSupported []string `json:"bearer_methods_supported"`
	Name                   string   `json:"resource_name,omitempty"`
	Documentation          string   `json:"resource_documentation,omitempty"`
	DPoPAlgorithms         []string `json:"dpop_signing_alg_values_supported,omitempty"`
	DPoPRequired           bool     `json:"dpop_bound_access_tokens_required,omitempty"`
}

// New makes the set of all.
func New(all []Config) (*Set, error) {
	if err := Validate(all); err != nil {
		return nil, err
	}
	s := &Set{}
	for _, c := range all {
		p, err := c.protected()
		if err != nil {
			return nil, err
		}
		s.resources = append(s.resources, p)
	}
	slices.SortStableFunc(s.resources, func(a, b protected) int { return len(b.path) - len(a.path) })
	return s, nil
}

func (c Config) protected() (protected, error) {
	u, err := parse(c.Resource)
	if err != nil {
		return protected{}, err
	}
	body, err := json.Marshal(document{
		Resource: c.Resource, AuthorizationServers: c.AuthorizationServers, ScopesSupported: c.ScopesSupported,
		BearerMethodsSupported: []string{"header"}, Name: c.ResourceName, Documentation: c.ResourceDocumentation,
		DPoPAlgorithms: c.DPoPSigningAlgValuesSupported, DPoPRequired: c.DPoPBoundAccessTokensRequired,
	})
	if err != nil {
		return protected{}, err
	}
	at := wellKnown
	if path := u.EscapedPath(); path != "/" {
		at += path
	}
	host := hostOf(u)
	return protected{
		host: host, path: strings.TrimSuffix(u.EscapedPath(), "/"), url: u.Scheme + "://" + u.Host + at,
		endpoint: authn.Endpoint{Hosts: []string{host}, Path: at, Serve: func(_ context.Context, r *authn.Request) *authn.Answer {
			return serve(r, body)
		}},
	}, nil
}

// serve answers with the metadata, also to pages of other origins: clients that
// run in browsers need it, and it is public.
func serve(r *authn.Request, body []byte) *authn.Answer {
	a := &authn.Answer{Why: "metadata of a protected resource", Headers: []authz.Header{
		{Name: "access-control-allow-origin", Value: "*"},
	}}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		a.Status, a.Body = http.StatusOK, body
		a.Headers = append(a.Headers, authz.Header{Name: "content-type", Value: "application/json"},
			authz.Header{Name: "cache-control", Value: "public, max-age=300"})
	case http.MethodOptions:
		a.Status = http.StatusNoContent
		a.Headers = append(a.Headers, authz.Header{Name: "access-control-allow-methods", Value: "GET, HEAD"},
			authz.Header{Name: "access-control-allow-headers", Value: "*"}, authz.Header{Name: "access-control-max-age", Value: "300"})
	default:
		a.Status = http.StatusMethodNotAllowed
		a.Headers = append(a.Headers, authz.Header{Name: "allow", Value: "GET, HEAD, OPTIONS"})
	}
	return a
}

// Endpoints serve the metadata.
func (s *Set) Endpoints() (out []authn.Endpoint) {
	for i := range s.resources {
		out = append(out, s.resources[i].endpoint)
	}
	return out
}

// Metadata returns the URL of the metadata of the resource that a request to host,
// in lower case and without port, and path belongs to; empty if it is none. Of
// several, the one with the longest path counts.
func (s *Set) Metadata(host, path string) string {
	if s == nil {
		return ""
	}
	for i := range s.resources {
		r := &s.resources[i]
		if r.host == host && (path == r.path || strings.HasPrefix(path, r.path+"/")) {
			return r.url
		}
	}
	return ""
}
