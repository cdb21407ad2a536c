package oidc

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// behind is a gateway that a proxy in front reaches by another name.
func behind(entries ...string) func(*Config) {
	return func(c *Config) {
		c.Origins = []string{"https://app.example"}
		c.InternalOrigins = map[string][]string{"https://app.example": entries}
	}
}

// rewritten is a request as it arrives by way of a proxy that rewrites Host.
func (b *browser) rewritten(scheme, host, method, target string, headers ...string) *authn.Request {
	r := b.request(method, target, headers...)
	r.Scheme, r.Host = scheme, host
	return r
}

// TestInternalOrigins goes the whole way of a login, a session and a logout as requests
// arrive behind a proxy that rewrites Host and ends TLS.
func TestInternalOrigins(t *testing.T) {
	for entry, at := range map[string][2]string{
		"http://ambassador.internal": {"http", "Ambassador.Internal:80"}, "http://10.0.0.7:8080": {"http", "10.0.0.7:8080"}, "https://gw.internal:443": {"https", "gw.internal"},
		"*://*": {"http", "whatever:81"}, "http://*": {"http", "x"}, "*://gw.internal": {"https", "gw.internal"}, "http://app.example": {"http", "app.example"},
		"*://app.example": {"http", "app.example"}, "http://[fd00::1]:81": {"http", "[fd00::1]:81"},
	} {
		s := newSetup(t, func(c *Config) { behind(entry)(c); c.PostLogoutRedirect = "/bye" })
		b := s.browser()
		ask := func(method, target string, headers ...string) *authn.Request {
			return b.rewritten(at[0], at[1], method, target, headers...)
		}
		r, _, answer := b.through(s.a, ask("GET", "/x?a=b"))
		q := sent(t, answer).Query()
		s.idp.set(func(f *fake) { f.nonces["code-"+q.Get("state")] = q.Get("nonce") })
		if got := q.Get("redirect_uri"); got != "https://app.example/oauth2/callback" {
			t.Errorf("%s: redirect_uri %q", entry, got)
		}
		for name, attributes := range cookiesSet(r) {
			if !strings.HasPrefix(name, "__Host-") || !strings.Contains(attributes, "; Secure") {
				t.Errorf("%s: cookie %s with%s", entry, name, attributes)
			}
		}
		if len(b.jar) != 1 || r.Scheme != at[0] || r.Host != at[1] {
			t.Errorf("%s: cookies %v; the request is now at %s://%s", entry, b.jar, r.Scheme, r.Host)
		}
		back := b.back(q)
		back.Scheme, back.Host = at[0], at[1]
		if got := sent(t, b.at(back)).String(); got != "https://app.example/x?a=b" {
			t.Errorf("%s: sent to %s", entry, got)
		}
		r, id, _ := b.through(s.a, ask("GET", "/x"))
		_, spent := r.Spent()
		if id == nil || r.Token == "" || len(spent) != 1 || r.Scheme != at[0] || r.Host != at[1] {
			t.Fatalf("%s: after the login: identity %v, token %q, spent %v, at %s://%s", entry, id, r.Token, spent, r.Scheme, r.Host)
		}
		s.pass(time.Minute) // renewed
		if r, id, _ = b.through(s.a, ask("GET", "/x")); id == nil || len(cookiesSet(r)) == 0 {
			t.Errorf("%s: renewal: identity %v, cookies %v", entry, id, cookiesSet(r))
		}
		stepped := ask("GET", "/pay")
		if got := sent(t, s.a.StepUp(t.Context(), stepped, id, &authz.Challenge{ACRValues: "mfa", MaxAge: -1})).Query().Get("redirect_uri"); got != "https://app.example/oauth2/callback" || len(cookiesSet(stepped)) == 0 {
			t.Errorf("%s: step-up: %q, cookies %v", entry, got, cookiesSet(stepped))
		}
		if got := sent(t, b.at(ask("GET", "/oauth2/login?return=/y"))).Query().Get("redirect_uri"); got != "https://app.example/oauth2/callback" {
			t.Errorf("%s: link to log in: %q", entry, got)
		}
		token := b.token() // at the public origin itself, beside the proxy
		logout := func(origin string) *authn.Answer {
			r := ask("POST", "/oauth2/logout", "content-type", "application/x-www-form-urlencoded", "origin", origin)
			r.Body = form{"token=" + url.QueryEscape(token)}
			return b.at(r)
		}
		for _, origin := range []string{at[0] + "://" + at[1], "https://evil.example", "null"} {
			if origin == "https://app.example" {
				continue
			}
			if answer := logout(origin); answer.Status != 403 {
				t.Errorf("%s: a form of %s: %d %s", entry, origin, answer.Status, answer.Why)
			}
		}
		if got := sent(t, logout("https://app.example")).Query().Get("post_logout_redirect_uri"); got != "https://app.example/bye" || b.in() {
			t.Errorf("%s: after the logout: %q, logged in %v", entry, got, b.in())
		}
	}
}

// TestOtherArrivals: what arrives as something else is not at the public origin.
func TestOtherArrivals(t *testing.T) {
	for _, tc := range []struct{ entry, scheme, host string }{
		{"http://gw.internal", "https", "gw.internal"},
		{"http://gw.internal", "http", "gw.internal:8080"},
		{"http://gw.internal", "http", "x.gw.internal"},
		{"http://gw.internal", "http", "gw.internal.evil.test"},
		{"http://gw.internal", "http", "gw.internal."},
		{"http://gw.internal", "http", "app.example"},
		{"http://gw.internal", "https", "evil.test"},
		{"http://gw.internal:8080", "http", "gw.internal"},
		{"https://gw.internal:8443", "https", "gw.internal"},
		{"*://gw.internal", "http", "evil.test"},
		{"*://gw.internal:81", "http", "gw.internal"},
		{"http://*", "https", "evil.test"},
		{"https://*", "http", "evil.test"},
		{"http://gw.internal", "http", ""},
		{"http://gw.internal", "http", "a@gw.internal"},
	} {
		s := newSetup(t, behind(tc.entry))
		b := s.browser()
		b.logIn("/")
		session := b.jar
		b.jar = map[string]string{}
		if _, _, answer := b.through(s.a, b.rewritten(tc.scheme, tc.host, "GET", "/x")); answer == nil || answer.Status != 403 || len(b.jar) != 0 {
			t.Errorf("%s: a login begins at %s://%s: %+v", tc.entry, tc.scheme, tc.host, answer)
		}
		b.jar = session
		if _, id, _ := b.through(s.a, b.rewritten(tc.scheme, tc.host, "GET", "/x")); id != nil && tc.scheme == "http" {
			t.Errorf("%s: a session of https counts at %s://%s", tc.entry, tc.scheme, tc.host)
		}
	}
}

// TestSeveralInternalOrigins: each public origin has its own, beside subdomains; what
// arrives at a public origin is at it.
func TestSeveralInternalOrigins(t *testing.T) {
	s := newSetup(t, func(c *Config) {
		c.Origins = []string{"https://a.example.com", "https://*.apps.example.com"}
		c.InternalOrigins = map[string][]string{"https://a.example.com": {"http://a.internal", "http://a2.internal"}, "https://b.apps.example.com": {"http://b.internal"}}
	})
	for at, want := range map[[2]string]string{
		{"http", "a.internal"}: "https://a.example.com", {"http", "a2.internal"}: "https://a.example.com", {"http", "b.internal"}: "https://b.apps.example.com",
		{"https", "a.example.com"}: "https://a.example.com", {"https", "c.apps.example.com"}: "https://c.apps.example.com",
		{"https", "b.apps.example.com"}: "https://b.apps.example.com", {"http", "a.example.com"}: "", {"https", "a.internal"}: "", {"https", "c.example.com"}: "",
	} {
		b := s.browser()
		_, _, answer := b.through(s.a, b.rewritten(at[0], at[1], "GET", "/x"))
		if want == "" && answer.Status == 403 {
			continue
		}
		if got := sent(t, answer).Query().Get("redirect_uri"); got != want+"/oauth2/callback" {
			t.Errorf("%s: redirect_uri %q, want that of %q", at, got, want)
		}
	}
}

// TestCallbackAcrossInternalOrigins: a login that began at one public origin does not
// end at what arrives for another.
func TestCallbackAcrossInternalOrigins(t *testing.T) {
	s := newSetup(t, func(c *Config) {
		c.Origins = []string{"https://a.example.com", "https://b.example.com"}
		c.InternalOrigins = map[string][]string{"https://a.example.com": {"http://a.internal"}, "https://b.example.com": {"http://b.internal"}}
	})
	for host, want := range map[string]int{"b.internal": 400, "c.internal": 400, "b.example.com": 400, "a.example.com": 400, "a.internal": 303} {
		b := s.browser()
		_, _, answer := b.through(s.a, b.rewritten("http", "a.internal", "GET", "/x"))
		q := sent(t, answer).Query()
		s.idp.set(func(f *fake) { f.nonces["code-"+q.Get("state")] = q.Get("nonce") })
		r := b.back(q)
		r.Scheme, r.Host = "http", host
		if answer := b.at(r); answer.Status != want {
			t.Errorf("%s: %d %s, want %d", host, answer.Status, answer.Why, want)
		}
	}
}

// TestRedirectOriginBehindProxy: both together.
func TestRedirectOriginBehindProxy(t *testing.T) {
	s := newSetup(t, func(c *Config) {
		oneRedirect(c)
		c.InternalOrigins = map[string][]string{"https://example.com": {"http://main.internal"}, "https://a.example.com": {"http://a.internal"}}
	})
	b := s.browser()
	_, _, answer := b.through(s.a, b.rewritten("http", "a.internal", "GET", "/x"))
	q := sent(t, answer).Query()
	s.idp.set(func(f *fake) { f.nonces["code-"+q.Get("state")] = q.Get("nonce") })
	r := b.back(q)
	r.Scheme, r.Host = "http", "main.internal"
	if got := sent(t, b.at(r)).String(); got != "https://a.example.com/x" || q.Get("redirect_uri") != "https://example.com/oauth2/callback" {
		t.Errorf("redirect_uri %s, sent to %s", q.Get("redirect_uri"), got)
	}
}

// TestInternalEndpointHosts: the gateway's own addresses are served where requests
// arrive, too.
func TestInternalEndpointHosts(t *testing.T) {
	for entry, want := range map[string][]string{
		"http://gw.internal:8080": {"app.example", "gw.internal"}, "*://gw.internal": {"app.example", "gw.internal"}, "http://app.example": {"app.example"}, "*://*": nil, "http://*": nil,
		"http://[fd00::1]:81": {"app.example", "[fd00::1]"},
	} {
		s := newSetup(t, behind(entry))
		if got := s.a.Endpoints()[0].Hosts; !slices.Equal(got, want) {
			t.Errorf("%s: served at %q, want %q", entry, got, want)
		}
	}
}

// TestWithoutInternalOrigins a request is what it is, and costs what it did.
func TestWithoutInternalOrigins(t *testing.T) {
	s := newSetup(t, func(c *Config) { c.Origins = []string{"https://app.example"} })
	r := s.browser().request("GET", "/x", "accept", "*/*")
	if s.a.seen(r) != r {
		t.Error("it is copied")
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := s.a.Authenticate(t.Context(), r); !errors.Is(err, authn.ErrNotMine) {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestInternalOriginsRefused(t *testing.T) {
	with := func(origins []string, internal map[string][]string) error {
		c := Default()
		c.Issuer, c.ClientID, c.Origins, c.InternalOrigins = "https://idp.example", "web", origins, internal
		return c.Validate()
	}
	one, two := []string{"https://app.example"}, []string{"https://app.example", "https://b.example"}
	const app = "https://app.example"
	for _, tc := range []struct {
		origins  []string
		internal map[string][]string
		want     string
	}{
		{one, map[string][]string{"https://b.example": {"http://x"}}, `"https://b.example" is not one of origins`},
		{nil, map[string][]string{app: {"http://x"}}, `"https://app.example" is not one of origins`},
		{one, map[string][]string{"https://app.example/": {"http://x"}}, `"https://app.example/" is not an origin`},
		{[]string{"https://*.example.com"}, map[string][]string{"https://*.example.com": {"http://x"}}, `"https://*.example.com" is not an origin`},
		{one, map[string][]string{app: nil}, `"https://app.example" has none`},
		{one, map[string][]string{app: {"x"}}, `"x" is neither an origin`},
		{one, map[string][]string{app: {""}}, `"" is neither`},
		{one, map[string][]string{app: {"ftp://x"}}, `"ftp://x" is neither`},
		{one, map[string][]string{app: {"http://x/"}}, `"http://x/" is neither`},
		{one, map[string][]string{app: {"http://X"}}, `"http://X" is neither`},
		{one, map[string][]string{app: {"http://a@x"}}, `"http://a@x" is neither`},
		{one, map[string][]string{app: {"http://*.x"}}, `"http://*.x" is neither`},
		{one, map[string][]string{app: {"http://*:80"}}, `"http://*:80" is neither`},
		{one, map[string][]string{app: {"http*://x"}}, `"http*://x" is neither`},
		{one, map[string][]string{app: {"http://x:99999"}}, `"http://x:99999" is neither`},
		{one, map[string][]string{app: {"http://"}}, `"http://" is neither`},
		{one, map[string][]string{app: {app}}, `"https://app.example" is one of origins itself`},
		{one, map[string][]string{app: {"https://app.example:443"}}, `"https://app.example:443" is one of origins itself`},
		{two, map[string][]string{app: {"https://b.example"}}, `"https://b.example" is one of origins itself`},
		{[]string{app, "https://*.example.com"}, map[string][]string{app: {"https://gw.example.com"}}, `"https://gw.example.com" is one of origins itself`},
		{two, map[string][]string{app: {"http://x"}, "https://b.example": {"http://x:80"}}, `"http://x:80" stands for https://app.example and for https://b.example`},
		{two, map[string][]string{app: {"*://*"}}, `"*://*" has a wildcard, which needs a single entry in origins`},
		{two, map[string][]string{app: {"http://*"}}, `"http://*" has a wildcard`},
		{two, map[string][]string{app: {"*://x"}}, `"*://x" has a wildcard`},
		{[]string{app, "https://*.app.example"}, map[string][]string{app: {"*://*"}}, `"*://*" has a wildcard`},
		{[]string{"https://*.example.com"}, map[string][]string{"https://a.example.com": {"*://*"}}, `"*://*" has a wildcard`},
	} {
		if err := with(tc.origins, tc.internal); err == nil || !strings.Contains(err.Error(), "internal_origins: "+tc.want) {
			t.Errorf("%v: want %s, got %v", tc.internal, tc.want, err)
		}
	}
	for _, entries := range [][]string{{"*://*"}, {"http://*", "https://x:8443"}, {"*://x", "http://x"}, {"http://a", "http://a:81", "https://app.example:8443"}} {
		if err := with(one, map[string][]string{app: entries}); err != nil {
			t.Errorf("%v: %v", entries, err)
		}
	}
}
