package outbound_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/identitytoken"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/outbound"
	"github.com/sallyport/sallyport/proxy/route"
	"github.com/sallyport/sallyport/proxy/template"
)

// caller is an authenticator whose every request is of one identity.
type caller struct {
	id    *authz.Identity
	token string
}

func (c caller) Authenticate(_ context.Context, r *authn.Request) (*authz.Identity, error) {
	r.Token = c.token
	return c.id, nil
}

func (caller) Challenges(err error) []string { return []string{authn.BearerChallenge("test", err)} }

// decider answers with one decision.
type decider struct{ authz.Decision }

func (d *decider) Decide(context.Context, *authz.Input) (*authz.Decision, error) {
	return &d.Decision, nil
}

func alice() *authz.Identity {
	return &authz.Identity{
		Authenticated: true, Authenticator: "corp", Kind: "jwt", Subject: "alice", Issuer: "https://idp.example",
		Scopes: []string{"read", "write"}, Claims: map[string]any{"sub": "alice", "email": "alice@example.com", "evil": "a\r\nx-role: root"},
		ExpiresAt: time.Now().Add(time.Hour),
	}
}

// site is a judge with routes of the test.
type site struct {
	caller  caller
	decider decider
	deps    outbound.Deps
	routes  []route.Config
}

func newSite(routes ...route.Config) *site {
	s := &site{caller: caller{alice(), "h.p.s"}, decider: decider{authz.Decision{Allow: true}}, routes: routes}
	for i := range s.routes {
		s.routes[i].Authenticate, s.routes[i].Upstream = []string{"corp"}, "api"
		if s.routes[i].Name == "" {
			s.routes[i].Name = s.routes[i].Match.Path
		}
	}
	return s
}

func (s *site) get(t *testing.T, path string, headers ...authz.Header) *judge.Verdict {
	t.Helper()
	table, err := route.New(s.routes)
	if err != nil {
		t.Fatal(err)
	}
	cfg := judge.Config{Routes: table, Decider: &s.decider, Upstream: func(string) bool { return true }}
	for _, r := range s.routes {
		o, err := outbound.New(r, s.deps)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Chains, cfg.Outbound = append(cfg.Chains, s.caller), append(cfg.Outbound, o)
	}
	return judge.New(cfg).Judge(t.Context(), &judge.Arrival{
		Listener: &judge.Listener{Gateway: &authz.Gateway{}}, Method: "GET", Target: path, Protocol: "HTTP/1.1",
		Headers: append([]authz.Header{{Name: "host", Value: "api.example.com"}}, headers...),
		Peer:    netip.MustParseAddrPort("192.0.2.1:4711"), Time: time.Now(),
	})
}

func values(v *judge.Verdict, name string) (out []string) {
	if v.Forward == nil {
		return []string{"not forwarded"}
	}
	for _, h := range v.Forward.Headers {
		if strings.ReplaceAll(h.Name, "_", "-") == name {
			out = append(out, h.Value)
		}
	}
	return out
}

func TestHeadersAreNeverTheClients(t *testing.T) {
	s := newSite(
		route.Config{Match: route.Match{Path: "/a"}, ForwardCredentials: true, UpstreamHeaders: []template.Header{
			{Name: "X-Email", Value: "{{ .token.Claims.email }}"},
			{Name: "X-Level", Value: "{{ doNotSet }}"},
			{Name: "X-Empty", Value: "{{ .token.Claims.no }}"},
			{Name: "Authorization", Value: "{{ doNotSet }}"},
			{Name: "User-Agent", Value: `gateway for {{ .httpRequestHeader.Get "User-Agent" }}`},
			{Name: "X-Had", Value: `{{ .httpRequestHeader.Get "X-Level" }}.`},
		}},
		route.Config{Match: route.Match{Path: "/b"}, ForwardCredentials: true},
	)
	forged := []authz.Header{
		{Name: "x-email", Value: "root"},
		{Name: "x-level", Value: "9"},
		{Name: "x.level", Value: "9"},
		{Name: "x-empty", Value: "9"},
		{Name: "authorization", Value: "Bearer h.p.s"},
		{Name: "user-agent", Value: "curl"},
	}
	for _, c := range []struct{ path, name, want string }{
		{"/a", "x-email", "alice@example.com"},
		{"/a", "x-level", "-"},
		{"/a", "x.level", "-"},
		{"/a", "x-empty", ""},
		{"/a", "authorization", "-"},
		{"/a", "user-agent", "gateway for curl"},
		{"/a", "x-had", "."},
		// The upstream may be the same: its headers are nobody's here either, and what
		// requests carry anyway stays.
		{"/b", "x-email", "-"},
		{"/b", "x-level", "-"},
		{"/b", "x-empty", "-"},
		{"/b", "authorization", "Bearer h.p.s"},
		{"/b", "user-agent", "curl"},
	} {
		v := s.get(t, c.path, forged...)
		want := []string{c.want}
		if c.want == "-" {
			want = nil
		}
		if got := values(v, c.name); !slices.Equal(got, want) {
			t.Errorf("%s %s: %q, want %q", c.path, c.name, got, want)
		}
		for _, h := range v.Input.Request.Headers {
			if h.Name != "user-agent" {
				t.Errorf("the policy sees what the upstream does not: %+v", h)
			}
		}
	}
}

// TestTemplatesReadNoSessions: a header made of cookies does not take the gateway's along.
func TestTemplatesReadNoSessions(t *testing.T) {
	s := newSite(route.Config{Match: route.Match{Path: "/a"}, UpstreamHeaders: []template.Header{
		{Name: "X-Cookies", Value: `{{ .httpRequestHeader.Get "Cookie" }}{{ range .httpRequestHeader.Values "cookie" }}|{{ . }}{{ end }}`},
	}})
	for cookie, want := range map[string]string{
		"a=1; __Host-sallyport-login=s; __Secure-sallyport-login.1=s; b=2": "a=1; b=2|a=1; b=2", "sallyport-insecure-x=s": "|", "a=1;b=2": "a=1;b=2|a=1;b=2",
	} {
		v := s.get(t, "/a", authz.Header{Name: "cookie", Value: cookie})
		if got := values(v, "x-cookies"); !slices.Equal(got, []string{want}) {
			t.Errorf("%q: %q, want %q", cookie, got, want)
		}
	}
}

func TestTemplatesReplaceWhatThePolicySets(t *testing.T) {
	s := newSite(route.Config{Match: route.Match{Path: "/a"}, UpstreamHeaders: []template.Header{
		{Name: "X-Email", Value: "{{ .token.Claims.email }}"}, {Name: "X-Level", Value: "{{ doNotSet }}"},
	}})
	s.decider.Upstream.SetHeaders = map[string]string{"x-email": "policy", "x-level": "policy"}
	v := s.get(t, "/a")
	if e, l := values(v, "x-email"), values(v, "x-level"); !slices.Equal(e, []string{"alice@example.com"}) || !slices.Equal(l, []string{"policy"}) {
		t.Errorf("x-email %q, x-level %q", e, l)
	}
	if len(v.Forward.Outbound) != 1 || v.Forward.Outbound[0].Name != "x-email" {
		t.Errorf("set by the route: %+v", v.Forward.Outbound)
	}
}

func TestAClaimNeverSplitsHeaders(t *testing.T) {
	s := newSite(route.Config{Match: route.Match{Path: "/a"}, UpstreamHeaders: []template.Header{{Name: "X-Evil", Value: "{{ .token.Claims.evil }}"}}})
	v := s.get(t, "/a")
	if v.Forward != nil || v.Answer.Status != 500 || v.Err == nil || !strings.Contains(v.Err.Error(), "control character") {
		t.Errorf("forward %+v, answer %+v, %v", v.Forward, v.Answer, v.Err)
	}
	if strings.Contains(string(v.Answer.Body), "root") {
		t.Errorf("the answer shows the claim: %s", v.Answer.Body)
	}
	if s.caller.id.Claims["evil"] = "fine"; !slices.Equal(values(s.get(t, "/a"), "x-evil"), []string{"fine"}) {
		t.Error("a claim of one line is not set")
	}
}

func TestRoutesThatShowNothingCostNothing(t *testing.T) {
	o, err := outbound.New(route.Config{}, outbound.Deps{})
	if o != nil || err != nil {
		t.Errorf("%v, %v", o, err)
	}
	_, err = outbound.New(route.Config{UpstreamHeaders: []template.Header{{Name: "x", Value: "{{"}}}, outbound.Deps{})
	if err == nil || errors.Is(err, authn.ErrInvalid) {
		t.Errorf("a template that does not parse: %v", err)
	}
}

func TestIdentityTokens(t *testing.T) {
	issuer, err := identitytoken.New(identitytoken.Config{Issuer: "https://gateway.example"}, nil, identitytoken.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(
		route.Config{Match: route.Match{Path: "/a"}, IdentityToken: &route.IdentityToken{Audience: "orders"}},
		route.Config{Match: route.Match{Path: "/b"}, IdentityToken: &route.IdentityToken{}},
		route.Config{Match: route.Match{Path: "/c"}},
	)
	s.deps.Identity = issuer
	forged := authz.Header{Name: "x-identity-token", Value: "forged"}
	audience := func(path string) string {
		v := s.get(t, path, forged)
		got := values(v, "x-identity-token")
		if len(got) != 1 || len(v.Forward.Outbound) != 1 {
			t.Fatalf("%s: tokens %q", path, got)
		}
		raw, err := base64.RawURLEncoding.DecodeString(strings.Split(got[0]+"..", ".")[1])
		if err != nil {
			t.Fatalf("%s: %q: %v", path, got[0], err)
		}
		var claims struct{ Aud, Sub string }
		if err := json.Unmarshal(raw, &claims); err != nil || claims.Sub != "alice" {
			t.Fatalf("%s: claims %s, %v", path, raw, err)
		}
		return claims.Aud
	}
	if got := audience("/a"); got != "orders" {
		t.Errorf("audience %q", got)
	}
	if got := audience("/b"); got != "api" {
		t.Errorf("without an audience %q", got)
	}
	s.decider.Upstream.Name = "canary"
	if got := audience("/b"); got != "canary" {
		t.Errorf("with the policy's upstream %q", got)
	}
	if got := values(s.get(t, "/c", forged), "x-identity-token"); got != nil {
		t.Errorf("a route without: %q", got)
	}
	s.caller.id = &authz.Identity{}
	if got := values(s.get(t, "/a", forged), "x-identity-token"); got != nil {
		t.Errorf("nobody's: %q", got)
	}
	if _, err := outbound.New(s.routes[0], outbound.Deps{}); err == nil {
		t.Error("no keys, and no error")
	}
}
