package oidc

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn"
)

// TestSubdomains: which hosts are below a domain. Each refused row was below one in some
// gateway, or looks as if it were.
func TestSubdomains(t *testing.T) {
	s := newSetup(t, func(c *Config) {
		c.Origins = []string{"https://example.com", "https://*.example.com", "https://*.shop.test:8443", "https://[2001:db8::1]:444", "https://port.test:443"}
	})
	for host, want := range map[string]bool{
		"example.com": true, "a.example.com": true, "a.b.example.com": true, "A.Example.COM": true, "a.example.com:443": true, "x-1.example.com": true,
		"a_b.example.com": true, "a.shop.test:8443": true, "port.test": true, "port.test:443": true, "[2001:db8::1]:444": true, "evil.com.example.com": true,
		"evilexample.com": false, "evil-example.com": false, "example.com.evil": false, "a.example.com.evil": false, "a.example.com.": false, "example.com.": false,
		".example.com": false, "..example.com": false, "a..example.com": false, ".a.example.com": false, "example.co": false, "xample.com": false,
		"a.example.com:8443": false, "a.example.com:80": false, "a.example.com:4430": false, "a.example.com:0443": false, "a.example.com:": false, "a.example.com:443:443": false,
		"shop.test:8443": false, "a.shop.test": false, "a.shop.test:443": false, "a.shop.test:18443": false, "a.shop.test:84430": false,
		"a@b.example.com": false, "evil.test@a.example.com": false, "a:b@c.example.com": false, "evil.test/a.example.com": false, "evil.test?a.example.com": false,
		"evil.test#a.example.com": false, "evil.test\\a.example.com": false, "evil.test%2fa.example.com": false, "%61.example.com": false, "a b.example.com": false,
		"a\t.example.com": false, "a\n.example.com": false, "é.example.com": false, "*.example.com": false, "[::1].example.com": false, "[::ffff:example.com]": false,
		"[2001:db8::1]": false, "[2001:db8::2]:444": false, "": false, "com": false, "1.2.3.4": false, "a.example.com,b.example.com": false,
	} {
		b := s.browser()
		b.host = host
		_, _, answer := b.get("/x")
		if got := answer != nil && answer.Status == 302; got != want {
			t.Errorf("%q: %+v, want %v", host, answer, want)
		}
	}
	r := s.browser().request("GET", "/x")
	r.Scheme, r.Host = "http", "a.example.com"
	if _, _, answer := s.browser().through(s.a, r); answer == nil || answer.Status != 403 {
		t.Errorf("over http: %+v", answer)
	}
}

// TestSubdomainLogin: each subdomain is where its logins come back to, and no other.
func TestSubdomainLogin(t *testing.T) {
	s := newSetup(t, func(c *Config) { c.Origins = []string{"https://*.example.com"} })
	b := s.browser()
	b.host = "a.example.com"
	q := b.begin("/x?y=z")
	if got := q.Get("redirect_uri"); got != "https://a.example.com/oauth2/callback" {
		t.Errorf("redirect_uri %q", got)
	}
	b.host = "b.example.com"
	if answer := b.at(b.back(q)); answer.Status != 400 || b.in() {
		t.Errorf("the login ends at a neighbour: %d %s", answer.Status, answer.Why)
	}
	b.host = "a.example.com"
	if got := sent(t, b.at(b.back(b.begin("/x?y=z")))).String(); got != "https://a.example.com/x?y=z" {
		t.Errorf("sent to %s", got)
	}
}

// TestEndpointHosts: the addresses of the gateway are served where people may log in.
func TestEndpointHosts(t *testing.T) {
	s := newSetup(t, func(c *Config) {
		c.Origins = []string{"https://*.example.com:8443", "https://example.com", "https://*.example.com", "https://[::1]:8443"}
	})
	for _, e := range s.a.Endpoints() {
		want := []string{"*.example.com", "example.com", "[::1]"}
		if e.Path == s.a.config.BackChannelLogoutPath {
			want = nil
		}
		if !slices.Equal(e.Hosts, want) {
			t.Errorf("%s is served at %q, want %q", e.Path, e.Hosts, want)
		}
	}
}

// TestOriginAllocates no more for subdomains than the text of the origin.
func TestOriginAllocates(t *testing.T) {
	r := &authn.Request{Scheme: "https", Host: "a.b.example.com"}
	of := func(list ...string) float64 {
		s := newSetup(t, func(c *Config) { c.Origins = list })
		return testing.AllocsPerRun(100, func() {
			if s.a.origin(r) == "" {
				t.Fatal("not admitted")
			}
		})
	}
	if exact, below := of("https://a.b.example.com"), of("https://x.test", "https://*.example.com"); below > exact {
		t.Errorf("%v allocations, %v for a name", below, exact)
	}
}

func FuzzSubdomains(f *testing.F) {
	o := newOrigins(Config{Origins: []string{"https://*.example.com"}})
	for _, s := range []string{"a.example.com", "evilexample.com", "a@b.example.com", "[::1]", "a.example.com:443"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !o.admit(canonical("https", host)) {
			return
		}
		u, err := url.Parse("https://" + host)
		if err != nil || u.User != nil || u.Path != "" || u.RawQuery != "" || !strings.HasSuffix(strings.ToLower(u.Hostname()), ".example.com") || u.Port() != "" && u.Port() != "443" {
			t.Errorf("%q is below example.com: %v %v", host, u, err)
		}
	})
}

func TestOriginsRefused(t *testing.T) {
	for o, want := range map[string]string{
		"https://*.com": "a domain with at least two labels", "https://*": "a domain with at least two labels", "https://*.": "a domain", "https://*..com": "a domain",
		"https://*.10.0.0.1": "a domain", "https://*.[::1]": "is not an origin", "https://*.*.example.com": "a domain", "https://a.*.example.com": "a domain",
		"https://*a.example.com": "a domain", "https://a*.example.com": "a domain", "https://example.*": "a domain", "https://*.example.com.": "a domain",
		"http://*.example.com": "is not https", "https://*.example.com/": "is not an origin", "https://*.Example.com": "is not an origin", "*.example.com": "is not an origin",
		"https://*.example.com:*": "is not an origin", "https://*.example.com:": "a port", "https://*.example.com:0": "a port", "https://*.example.com:70000": "a port",
		"https://a@*.example.com": "is not an origin", "https://*.exa_mple.com": "a domain", "https://*.exámple.com": "a domain",
	} {
		c := Default()
		c.Issuer, c.ClientID, c.Origins = "https://idp.example", "web", []string{"https://app.example", o}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "origins: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q, got %v", o, want, err)
		}
	}
	c := Default()
	c.Issuer, c.ClientID, c.Origins, c.Session.CookieDomain = "https://idp.example", "web", []string{"https://*.example.com"}, "a.example.com"
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "is not below session.cookie_domain") {
		t.Errorf("a cookie domain below: %v", err)
	}
	for _, domain := range []string{"", "example.com"} {
		c.Origins, c.Session.CookieDomain = []string{"https://example.com", "https://*.example.com:8443", "https://*.a.example.com", "https://*.example.com"}, domain
		if err := c.Validate(); err != nil {
			t.Errorf("cookie domain %q: %v", domain, err)
		}
	}
}
