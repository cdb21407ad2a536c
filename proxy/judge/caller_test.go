package judge

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/route"
)

// invitingChain finds no credential, and says what one would be.
type invitingChain struct{ err error }

func (c invitingChain) Authenticate(context.Context, *authn.Request) (*authz.Identity, error) {
	return nil, c.err
}
func (invitingChain) Challenges(error) []string { return []string{"Signature"} }
func (invitingChain) Invitations(r *authn.Request) []authz.Header {
	return []authz.Header{{Name: "accept-signature", Value: r.Method}}
}

// TestInvitation: only a 401 says how to authenticate.
func TestInvitation(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		want   int
	}{
		{authn.ErrNoCredential, 401, 1}, {authn.ErrInvalid, 401, 1}, {authn.ErrUnavailable, 503, 0}, {authz.ErrBodyTooLarge, 413, 0},
	} {
		j := newJudge(t, &authz.Decision{Allow: true})
		j.cfg.Chains[0] = invitingChain{tt.err}
		v := j.Judge(context.Background(), arrival("GET", "/v1/orders/1"))
		got := slices.DeleteFunc(slices.Clone(v.Answer.Headers), func(h authz.Header) bool { return h.Name != "accept-signature" || h.Value != "GET" })
		if v.Answer.Status != tt.status || len(got) != tt.want {
			t.Errorf("%v: got %d with %v", tt.err, v.Answer.Status, v.Answer.Headers)
		}
	}
}

// mechanism is an authenticator that does what a test says.
type mechanism func(r *authn.Request) (*authz.Identity, error)

func (m mechanism) Authenticate(_ context.Context, r *authn.Request) (*authz.Identity, error) {
	return m(r)
}

func (mechanism) Challenge(err error) string { return authn.BearerChallenge("test", err) }

// outbound is what a test shows an upstream.
type outbound func(o *Outgoing) ([]authz.Header, error)

func (o outbound) Headers(_ context.Context, out *Outgoing) ([]authz.Header, error) { return o(out) }

func judgeWith(t *testing.T, m mechanism, change func(*Config, *route.Config)) *Judge {
	t.Helper()
	chain, err := authn.New([]authn.Named{{Name: "m", Authenticator: m}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Chains: []Chain{chain}, Decider: fixedDecider{&authz.Decision{Allow: true}},
		Upstream: func(string) bool { return true },
	}
	r := route.Config{Name: "all", Authenticate: []string{"m"}, Upstream: "u"}
	if change != nil {
		change(&cfg, &r)
	}
	if cfg.Routes, err = route.New([]route.Config{r}); err != nil {
		t.Fatal(err)
	}
	return New(cfg)
}

func values(headers []authz.Header, name string) (out []string) {
	for _, h := range headers {
		if h.Name == name {
			out = append(out, h.Value)
		}
	}
	return out
}

func alice(scopes, audiences []string) mechanism {
	return func(*authn.Request) (*authz.Identity, error) {
		return &authz.Identity{Authenticated: true, Subject: "alice", Scopes: scopes, Audiences: audiences}, nil
	}
}

func TestRoutesRequireScopesAndAudiences(t *testing.T) {
	want := route.Require{Scopes: []string{"read", "write"}, Audiences: []string{"orders", "billing"}}
	for _, tc := range []struct {
		name      string
		m         mechanism
		status    int
		challenge string
	}{
		{"all there", alice([]string{"write", "x", "read"}, []string{"billing"}), 0, ""},
		{"a scope is missing", alice([]string{"read"}, []string{"orders"}), 403, `Bearer realm="test", error="insufficient_scope", scope="read write"`},
		{"no scope", alice(nil, []string{"orders"}), 403, `Bearer realm="test", error="insufficient_scope", scope="read write"`},
		{"one that contains it", alice([]string{"read write", "reader"}, []string{"orders"}), 403, `Bearer realm="test", error="insufficient_scope", scope="read write"`},
		{"another audience", alice([]string{"read", "write"}, []string{"other"}), 401, `Bearer realm="test", scope="read write"`},
		{"no audience", alice([]string{"read", "write"}, nil), 401, `Bearer realm="test", scope="read write"`},
		{"anonymous", func(*authn.Request) (*authz.Identity, error) {
			return &authz.Identity{Scopes: want.Scopes, Audiences: want.Audiences}, nil
		}, 401, `Bearer realm="test", scope="read write"`},
		{"none", func(*authn.Request) (*authz.Identity, error) { return nil, authn.ErrNotMine }, 401, `Bearer realm="test", scope="read write"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := judgeWith(t, tc.m, func(_ *Config, r *route.Config) { r.Require = want })
			v := j.Judge(t.Context(), arrival("GET", "/x"))
			if tc.status == 0 {
				if v.Forward == nil {
					t.Fatalf("refused: %v", v.Err)
				}
				return
			}
			if v.Answer == nil || v.Answer.Status != tc.status {
				t.Fatalf("answer %+v, want %d", v.Answer, tc.status)
			}
			if got := values(v.Answer.Headers, "www-authenticate"); !slices.Equal(got, []string{tc.challenge}) {
				t.Errorf("challenges %q, want %q", got, tc.challenge)
			}
			if v.Input.Identity != nil {
				t.Error("the identity counts although it was refused")
			}
		})
	}
}

func TestSpentCredentialsEndHere(t *testing.T) {
	m := mechanism(func(r *authn.Request) (*authz.Identity, error) {
		r.Spend("x-key")
		r.SpendCookie("__Host-session")
		r.Response = append(r.Response, authz.Header{Name: "set-cookie", Value: "a=b"})
		return &authz.Identity{Authenticated: true}, nil
	})
	for _, forward := range []bool{false, true} {
		j := judgeWith(t, m, func(c *Config, r *route.Config) {
			r.ForwardCredentials = forward
			c.CredentialHeaders = []string{"x-key"}
		})
		v := j.Judge(t.Context(), arrival("GET", "/x", authz.Header{Name: "x-key", Value: "k"},
			authz.Header{Name: "cookie", Value: "theme=dark; __Host-session=s; __Host-session2=t"}))
		if v.Forward == nil {
			t.Fatal(v.Err)
		}
		if got := len(values(v.Forward.Headers, "x-key")) == 1; got != forward {
			t.Errorf("key is forwarded: %v, want %v", got, forward)
		}
		if got := values(v.Forward.Headers, "cookie"); !slices.Equal(got, []string{"theme=dark; __Host-session2=t"}) {
			t.Errorf("forwarded cookies %q", got)
		}
		if len(values(v.Input.Request.Headers, "x-key"))+len(values(v.Input.Request.Headers, "cookie")) > 0 {
			t.Error("the policy sees credentials")
		}
		if got := values(v.Response, "set-cookie"); !slices.Equal(got, []string{"a=b"}) {
			t.Errorf("response fields %q", got)
		}
	}
}

// TestCredentialsOfOthersEndHere: a key of the gateway's that came beside another
// credential, or to a route that looks at none, is not handed to an upstream, which could
// use it here. No authenticator has taken it, nor said that it is good.
func TestCredentialsOfOthersEndHere(t *testing.T) {
	for _, forward := range []bool{false, true} {
		j := judgeWith(t, alice(nil, nil), func(c *Config, r *route.Config) {
			r.ForwardCredentials = forward
			c.CredentialHeaders = []string{"x-key", "signature"}
		})
		v := j.Judge(t.Context(), arrival("GET", "/x", authz.Header{Name: "x-key", Value: "k"}, authz.Header{Name: "x.key", Value: "k"},
			authz.Header{Name: "signature", Value: "s"}, authz.Header{Name: "x-api-key", Value: "the upstream's own"}))
		if v.Forward == nil {
			t.Fatal(v.Err)
		}
		for _, name := range []string{"x-key", "x.key", "signature"} {
			if got := len(values(v.Forward.Headers, name)) == 1; got != forward {
				t.Errorf("forward_credentials %v: %s is forwarded: %v", forward, name, got)
			}
		}
		if got := values(v.Forward.Headers, "x-api-key"); len(got) != 1 {
			t.Errorf("a header that no authenticator reads is forwarded %d times, want once", len(got))
		}
	}
}

func TestCookiesAreTakenOut(t *testing.T) {
	for in, want := range map[string]string{
		"s=1": "", "s=1; a=2": "a=2", "a=2;s=1 ; b": "a=2; b", " s = 1;s2=3": "s2=3", "S=1": "S=1", "a=s=1": "a=s=1", ";;": "",
	} {
		if got := authn.WithoutCookies(in, []string{"s"}); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestTooMany: which limit it was stands in the fields too.
func TestTooMany(t *testing.T) {
	for of, name := range map[authn.Limited]string{authn.BadCredentials: "credentials", authn.Proofs: "proofs"} {
		j := judgeWith(t, func(*authn.Request) (*authz.Identity, error) {
			return nil, &authn.TooManyError{Of: of, RetryAfter: 2500 * time.Millisecond, Quota: 7, Window: 10 * time.Second}
		}, nil)
		a := j.Judge(t.Context(), arrival("GET", "/x")).Answer
		want := map[string][]string{"retry-after": {"3"}, "ratelimit": {`"` + name + `";r=0;t=3`}, "ratelimit-policy": {`"` + name + `";q=7;w=10`}}
		for field, v := range want {
			if got := values(a.Headers, field); a.Status != 429 || !slices.Equal(got, v) {
				t.Errorf("%s: %d, %s: %q, want %q", name, a.Status, field, got, v)
			}
		}
		if !strings.Contains(string(a.Body), "in 3 seconds.") {
			t.Errorf("%s: %s", name, a.Body)
		}
	}
}

// TestClientsURL: what the client used, and not what a proxy made of it; of proxies,
// only those that are listed may say.
func TestClientsURL(t *testing.T) {
	proto := authz.Header{Name: "x-forwarded-proto", Value: "https"}
	host := func(v string) authz.Header { return authz.Header{Name: "x-forwarded-host", Value: v} }
	const own, outer = "http://api.example.com/v1/orders/42", "https://shop.example/v1/orders/42"
	for name, tc := range map[string]struct {
		headers          []authz.Header
		listed, unlisted string
	}{
		"nothing reported":              {nil, own, own},
		"scheme and host":               {[]authz.Header{proto, host("shop.example")}, outer, own},
		"scheme alone":                  {[]authz.Header{proto}, "https://api.example.com/v1/orders/42", own},
		"with a port":                   {[]authz.Header{proto, host("Shop.example:8443")}, "https://Shop.example:8443/v1/orders/42", own},
		"an IPv6 address":               {[]authz.Header{proto, host("[2001:db8::1]:443")}, "https://[2001:db8::1]:443/v1/orders/42", own},
		"the last proxy's word counts":  {[]authz.Header{proto, host("evil.example, shop.example")}, outer, own},
		"no host":                       {[]authz.Header{host("")}, own, own},
		"a user":                        {[]authz.Header{host("shop.example@evil.example")}, own, own},
		"a path":                        {[]authz.Header{host("shop.example/v1")}, own, own},
		"nominated to end with the hop": {[]authz.Header{host("shop.example"), {Name: "connection", Value: "x-forwarded-host"}}, own, own},
	} {
		for _, trusted := range []bool{true, false} {
			want, saw := tc.unlisted, ""
			j := judgeWith(t, func(r *authn.Request) (*authz.Identity, error) {
				saw = r.Scheme + "://" + r.Host + r.Path
				return &authz.Identity{}, nil
			}, func(_ *Config, r *route.Config) { r.Match.Path, r.Rewrite.StripPrefix = "/v1/**", "/v1" })
			a := arrival("GET", "/v1/orders/42?page=2", tc.headers...)
			if trusted {
				want, a.Listener.Trusted = tc.listed, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
			}
			v := j.Judge(t.Context(), a)
			if v.Err != nil || saw != want {
				t.Errorf("%s, trusted %v: saw %s, want %s; %v", name, trusted, saw, want, v.Err)
			}
			if v.Input.Request.Host != "api.example.com" || v.Forward == nil || v.Forward.Host != "api.example.com" || v.Forward.Target != "/orders/42?page=2" {
				t.Errorf("%s, trusted %v: judged for %s, forwarded %+v", name, trusted, v.Input.Request.Host, v.Forward)
			}
		}
	}
}

// TestEndpointsOfTheClientsHost: a login at the host in the browser's address bar, and
// the metadata of the resource that the client asked for.
func TestEndpointsOfTheClientsHost(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		j := judgeWith(t, func(*authn.Request) (*authz.Identity, error) { return nil, authn.ErrNotMine }, func(c *Config, _ *route.Config) {
			c.ResourceMetadata = func(host, path string) string { return "https://" + host + path }
			c.Endpoints = []authn.Endpoint{{Hosts: []string{"shop.example"}, Path: "/callback", Serve: func(context.Context, *authn.Request) *authn.Answer {
				return &authn.Answer{Status: 200}
			}}}
		})
		a := arrival("GET", "/callback", authz.Header{Name: "x-forwarded-host", Value: "SHOP.example:8443"})
		if trusted {
			a.Listener.Trusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
		if v := j.Judge(t.Context(), a); (v.Outcome == authz.OutcomeAnswered) != trusted {
			t.Errorf("trusted %v: %s, %v", trusted, v.Outcome, v.Err)
		}
		a.Target = "/x"
		got := values(j.Judge(t.Context(), a).Answer.Headers, "www-authenticate")
		want := map[bool]string{true: `Bearer realm="test", resource_metadata="https://shop.example/x"`, false: `Bearer realm="test", resource_metadata="https://api.example.com/x"`}
		if !slices.Equal(got, []string{want[trusted]}) {
			t.Errorf("trusted %v: challenges %q", trusted, got)
		}
	}
}

func TestMechanismsAnswerThemselves(t *testing.T) {
	served := 0
	j := judgeWith(t, func(r *authn.Request) (*authz.Identity, error) {
		r.Response = append(r.Response, authz.Header{Name: "set-cookie", Value: "state=1"})
		return nil, &authn.Answer{Status: 302, Headers: []authz.Header{{Name: "location", Value: "https://idp.example/"}}, Why: "log in"}
	}, func(c *Config, _ *route.Config) {
		c.Endpoints = []authn.Endpoint{{Hosts: []string{"api.example.com"}, Path: "/callback", Serve: func(_ context.Context, r *authn.Request) *authn.Answer {
			served++
			if r.RawQuery != "code=1" || r.Method != "GET" || r.Scheme != "http" || r.Host != "api.example.com" {
				t.Errorf("endpoint sees %+v", r)
			}
			return &authn.Answer{Status: 200, Body: []byte("in")}
		}}}
	})
	v := j.Judge(t.Context(), arrival("GET", "/x"))
	if v.Answer == nil || v.Answer.Status != 302 || v.Outcome != authz.OutcomeUnauthenticated || len(v.Response) != 1 {
		t.Errorf("verdict %+v, answer %+v", v, v.Answer)
	}
	if got := values(v.Answer.Headers, "cache-control"); !slices.Equal(got, []string{"no-store"}) {
		t.Errorf("redirect may be cached: %q", got)
	}
	v = j.Judge(t.Context(), arrival("GET", "/callback?code=1"))
	if served != 1 || v.Answer == nil || v.Answer.Status != 200 || v.Outcome != authz.OutcomeAnswered {
		t.Errorf("served %d times, answer %+v", served, v.Answer)
	}
	other := arrival("GET", "/callback?code=1")
	other.Headers[0].Value = "other.example.com"
	if v = j.Judge(t.Context(), other); served != 1 || v.Answer.Status != 302 {
		t.Errorf("another host's path was served: %+v", v.Answer)
	}
}

// TestEndpointsOfSubdomains: an endpoint for the hosts below a domain is for no other.
func TestEndpointsOfSubdomains(t *testing.T) {
	j := judgeWith(t, alice(nil, nil), func(c *Config, _ *route.Config) {
		c.Endpoints = []authn.Endpoint{{Hosts: []string{"app.test", "*.example.com"}, Path: "/callback", Serve: func(context.Context, *authn.Request) *authn.Answer {
			return &authn.Answer{Status: 200}
		}}}
	})
	for host, want := range map[string]bool{
		"app.test": true, "a.example.com": true, "A.B.Example.com": true, "a.example.com:8443": true,
		"example.com": false, "evilexample.com": false, "example.com.evil": false, "a.app.test": false, "a.example.com.evil": false,
	} {
		a := arrival("GET", "/callback")
		a.Headers[0].Value = host
		if v := j.Judge(t.Context(), a); (v.Outcome == authz.OutcomeAnswered) != want {
			t.Errorf("%s: %s %+v, want %v", host, v.Outcome, v.Answer, want)
		}
	}
}

func TestOutboundReplacesAndCloses(t *testing.T) {
	var fail error
	j := judgeWith(t, alice(nil, nil), func(c *Config, _ *route.Config) {
		c.Outbound = []Outbound{outbound(func(o *Outgoing) ([]authz.Header, error) {
			if o.Input.Identity.Subject != "alice" || !o.Decision.Allow {
				t.Errorf("outgoing %+v", o)
			}
			return []authz.Header{{Name: "x-token", Value: "ours"}}, fail
		})}
	})
	a := arrival("GET", "/x", authz.Header{Name: "x-token", Value: "theirs"})
	v := j.Judge(t.Context(), a)
	if v.Forward == nil || !slices.Equal(values(v.Forward.Headers, "x-token"), []string{"ours"}) {
		t.Fatalf("forward %+v, %v", v.Forward, v.Err)
	}
	for err, status := range map[error]int{authn.ErrUnavailable: 503, errors.New("anything"): 500} {
		fail = err
		if v = j.Judge(t.Context(), a); v.Forward != nil || v.Answer == nil || v.Answer.Status != status {
			t.Errorf("%v: forward %v, answer %+v", err, v.Forward, v.Answer)
		}
	}
}

// TestChallengesPointToMetadata: a client that is refused learns where tokens for
// what it asked come from (RFC 9728 section 5.1).
func TestChallengesPointToMetadata(t *testing.T) {
	nobody := func(*authn.Request) (*authz.Identity, error) { return nil, authn.ErrNotMine }
	const url = "https://api.example.com/.well-known/oauth-protected-resource"
	for _, tc := range []struct {
		name      string
		m         mechanism
		decision  *authz.Decision
		path      string
		challenge []string
	}{
		{"no credential", nobody, nil, "/x", []string{`Bearer realm="test", scope="read", resource_metadata="` + url + `"`}},
		{"a scope is missing", alice(nil, nil), nil, "/x", []string{`Bearer realm="test", error="insufficient_scope", scope="read", resource_metadata="` + url + `"`}},
		{
			"the policy asks for more", alice([]string{"read"}, nil), &authz.Decision{Challenge: &authz.Challenge{Error: "insufficient_user_authentication", MaxAge: -1}}, "/x",
			[]string{`Bearer error="insufficient_user_authentication", resource_metadata="` + url + `"`},
		},
		{"another resource", nobody, nil, "/other", []string{`Bearer realm="test", scope="read"`}},
		{"a plain deny", alice([]string{"read"}, nil), &authz.Decision{}, "/x", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := judgeWith(t, tc.m, func(c *Config, r *route.Config) {
				r.Require.Scopes = []string{"read"}
				c.ResourceMetadata = func(host, path string) string {
					if host == "api.example.com" && path == "/x" {
						return url
					}
					return ""
				}
				if tc.decision != nil {
					c.Decider = fixedDecider{tc.decision}
				}
			})
			v := j.Judge(t.Context(), arrival("GET", tc.path))
			if v.Answer == nil {
				t.Fatal("was forwarded")
			}
			if got := values(v.Answer.Headers, "www-authenticate"); !slices.Equal(got, tc.challenge) {
				t.Errorf("got %q, want %q", got, tc.challenge)
			}
		})
	}
	for in, want := range map[string]string{"Bearer": `Bearer a="b"`, "DPoP x=1": `DPoP x=1, a="b"`, `Basic realm="x"`: `Basic realm="x"`} {
		if got := withParameter(in, "a", "b"); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

// stepper is a chain that has alice log in again.
type stepper struct {
	Chain
	asked *authz.Challenge
}

func (s *stepper) StepUp(_ context.Context, r *authn.Request, id *authz.Identity, c *authz.Challenge) *authn.Answer {
	s.asked = c
	if id.Subject != "alice" || r.Header("accept") != "text/html" {
		return nil
	}
	return &authn.Answer{Status: 302, Headers: []authz.Header{{Name: "location", Value: "https://idp.example/"}}, Why: "again"}
}

func TestChallengesBecomeLogins(t *testing.T) {
	html, script := authz.Header{Name: "accept", Value: "text/html"}, authz.Header{Name: "accept", Value: "*/*"}
	for _, tc := range []struct {
		name     string
		decision authz.Decision
		accept   authz.Header
		status   int
		header   string
	}{
		{"somebody at a browser", authz.Decision{Challenge: &authz.Challenge{ACRValues: "mfa", MaxAge: -1}}, html, 302, ""},
		{"a script", authz.Decision{Challenge: &authz.Challenge{ACRValues: "mfa", MaxAge: -1}}, script, 401, `Bearer error="insufficient_user_authentication", acr_values="mfa"`},
		{"a script, of late", authz.Decision{Challenge: &authz.Challenge{MaxAge: 60}}, script, 401, `Bearer error="insufficient_user_authentication", max_age=60`},
		{"no challenge", authz.Decision{}, html, 403, ""},
		{"allowed", authz.Decision{Allow: true, Challenge: &authz.Challenge{ACRValues: "mfa", MaxAge: -1}}, html, 0, ""},
		{"a fault", authz.Decision{Fault: &authz.Fault{Kind: authz.FaultType}, Challenge: &authz.Challenge{ACRValues: "mfa"}}, html, 403, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &stepper{}
			j := judgeWith(t, alice(nil, nil), func(c *Config, _ *route.Config) {
				s.Chain = c.Chains[0]
				c.Chains[0], c.Decider = s, fixedDecider{&tc.decision}
			})
			v := j.Judge(t.Context(), arrival("GET", "/x", tc.accept))
			if (v.Forward != nil) != (tc.status == 0) {
				t.Fatalf("forward %v", v.Forward)
			}
			if v.Answer != nil && v.Answer.Status != tc.status {
				t.Errorf("answered %d, want %d", v.Answer.Status, tc.status)
			}
			if tc.status != 0 && !slices.Equal(values(v.Answer.Headers, "www-authenticate"), slices.DeleteFunc([]string{tc.header}, func(s string) bool { return s == "" })) {
				t.Errorf("challenges %q", values(v.Answer.Headers, "www-authenticate"))
			}
			if (tc.status == 302 || tc.status == 401) != (s.asked != nil) {
				t.Errorf("asked %v", s.asked)
			}
		})
	}
}

// A header by which something in front says who the caller is goes upstream only
// when it was verified for this request: another credential does not vouch for it.
func TestAssertedHeadersAreForwardedOnlyWhenTaken(t *testing.T) {
	for _, tc := range []struct {
		name           string
		taken, forward bool
		want           int
	}{
		{"not looked at", false, false, 0},
		{"not looked at, on a route that forwards credentials", false, true, 0},
		{"taken", true, false, 0},
		{"taken, on a route that forwards credentials", true, true, 1},
	} {
		m := mechanism(func(r *authn.Request) (*authz.Identity, error) {
			if tc.taken {
				r.Spend("x-goog-iap-jwt-assertion")
			}
			return &authz.Identity{Authenticated: true}, nil
		})
		j := judgeWith(t, m, func(c *Config, r *route.Config) {
			r.ForwardCredentials = tc.forward
			c.CredentialHeaders = []string{"x-goog-iap-jwt-assertion"}
			c.AssertedHeaders = c.CredentialHeaders
		})
		v := j.Judge(t.Context(), arrival("GET", "/x", authz.Header{Name: "x-goog-iap-jwt-assertion", Value: "t"}))
		if v.Forward == nil {
			t.Fatal(v.Err)
		}
		if got := len(values(v.Forward.Headers, "x-goog-iap-jwt-assertion")); got != tc.want {
			t.Errorf("%s: forwarded %d times, want %d", tc.name, got, tc.want)
		}
	}
}

// A policy that reads cookies could log a session, or set it as a header.
func TestPoliciesReadNoSessions(t *testing.T) {
	for cookie, want := range map[string][]string{
		"a=1; __Host-sallyport-login=s; __Host-sallyport-login.1=s; b=2": {"a=1; b=2"},
		"__Secure-sallyport-login=s; sallyport-insecure-login-x~1=s":     nil,
		"a=sallyport-insecure-login":                                     {"a=sallyport-insecure-login"}, "a=1;b=2": {"a=1;b=2"},
	} {
		j := judgeWith(t, alice(nil, nil), func(_ *Config, r *route.Config) { r.InputHeaders = []string{"Cookie"} })
		v := j.Judge(t.Context(), arrival("GET", "/x", authz.Header{Name: "cookie", Value: cookie}))
		if got := values(v.Input.Request.Headers, "cookie"); !slices.Equal(got, want) {
			t.Errorf("%q: the policy sees %q, want %q", cookie, got, want)
		}
	}
}

// Browsers send the gateway's session to every path of the host. A route that logs
// nobody in must not hand it to its upstream, which could use it here.
func TestSessionsNeverReachUpstreams(t *testing.T) {
	for _, forward := range []bool{false, true} {
		j := judgeWith(t, alice(nil, nil), func(_ *Config, r *route.Config) { r.ForwardCredentials = forward })
		v := j.Judge(t.Context(), arrival("GET", "/x", authz.Header{
			Name: "cookie", Value: "a=1; __Host-sallyport-login=s; __Host-sallyport-login.1=s; __Secure-sallyport-login=s; sallyport-insecure-login=s; b=2",
		}))
		if v.Forward == nil {
			t.Fatal(v.Err)
		}
		if got := values(v.Forward.Headers, "cookie"); !slices.Equal(got, []string{"a=1; b=2"}) {
			t.Errorf("forwarded %q", got)
		}
	}
}
