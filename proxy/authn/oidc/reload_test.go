package oidc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sameKeys has every authenticator of a test seal with one key, as replicas and
// configurations that follow each other do.
func sameKeys(t *testing.T) func(*Config) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "session.key")
	if err := os.WriteFile(file, []byte(strings.Repeat("5e", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Session.KeysFiles = []string{file} }
}

// TestSessionsOfAnotherProvider: a session counts for the provider and the client that
// it is of, and not for what the authenticator of its name has become since. What it
// holds never goes to another provider.
func TestSessionsOfAnotherProvider(t *testing.T) {
	redis := startRedis(t)
	for where, change := range map[string]func(*Config){"in cookies": sameKeys(t), "in Redis": inRedis(t, redis)} {
		t.Run(where, func(t *testing.T) {
			s := offering(t, map[string]any{revocationEndpoint: "/revoke"}, change)
			other := offering(t, map[string]any{revocationEndpoint: "/revoke"}, nil)
			for name, next := range map[string]struct {
				change func(*Config)
				in     bool
			}{
				"the same":        {func(c *Config) { c.Userinfo = true }, true},
				"another issuer":  {func(c *Config) { c.Issuer = other.idp.URL }, false},
				"another client":  {func(c *Config) { c.ClientID = "web2" }, false},
				"another secret":  {func(c *Config) { c.ClientAuth = authPost }, true},
				"another listing": {func(c *Config) { c.Scopes = []string{"openid"} }, true},
			} {
				s.pass(time.Second) // what ended in the row before did so before
				b := s.browser()
				b.logIn("/")
				c := s.a.config
				next.change(&c)
				a := s.open("login", c)
				a.Inherit(s.a)
				if _, id, _ := b.through(a, b.request("GET", "/x")); (id != nil) != next.in {
					t.Errorf("%s: identity %+v", name, id)
				}
				if next.in {
					continue
				}
				// Nor do its tokens leave: by a renewal, a logout, or a word of the provider.
				s.pass(time.Minute)
				if _, id, _ := b.through(a, b.request("GET", "/x")); id != nil {
					t.Errorf("%s: renewed to %+v", name, id)
				}
				if answer := a.logout(t.Context(), b.request("GET", "/oauth2/logout")); answer.Status != 200 || strings.Contains(string(answer.Body), "<form") {
					t.Errorf("%s: logout answers %d: %s", name, answer.Status, answer.Why)
				}
				b = s.browser()
				b.logIn("/")
				if answer := a.frontChannel(t.Context(), b.request("GET", "/oauth2/frontchannel-logout?sid=s1")); answer.Status != 200 {
					t.Errorf("%s: front channel: %d", name, answer.Status)
				}
				for _, f := range []*fake{s.idp, other.idp} {
					for _, q := range f.questions() {
						if q.Get("grant_type") == "refresh_token" {
							t.Errorf("%s: the token endpoint was asked %v", name, q)
						}
					}
					if got := f.gone(); got != "" {
						t.Errorf("%s: revoked %s", name, got)
					}
				}
			}
		})
	}
}

// TestLoginsOfAnotherProvider: a login that began at one provider does not end at
// another, which would get its code and the verifier.
func TestLoginsOfAnotherProvider(t *testing.T) {
	s := newSetup(t, sameKeys(t))
	other := offering(t, map[string]any{"authorization_response_iss_parameter_supported": nil}, nil)
	for name, change := range map[string]func(*Config){
		"another issuer": func(c *Config) { c.Issuer = other.idp.URL },
		"another client": func(c *Config) { c.ClientID = "web2" },
	} {
		b := s.browser()
		q := b.begin("/x")
		c := s.a.config
		change(&c)
		a := s.open("login", c)
		a.Inherit(s.a)
		r := b.back(q, "iss", "")
		if name == "another client" {
			r = b.back(q)
		}
		if answer := a.callback(t.Context(), r); answer.Status != 400 {
			t.Errorf("%s: answered %d: %s", name, answer.Status, answer.Why)
		}
		if n := len(other.idp.questions()) + len(s.idp.questions()); n != 0 {
			t.Errorf("%s: a code was handed over", name)
		}
	}
}

// TestMetadataIsNotInheritedInTheOpen: addresses that were good enough while
// insecure_http was set are asked for again without it.
func TestMetadataIsNotInheritedInTheOpen(t *testing.T) {
	s := newSetup(t, func(c *Config) { c.InsecureHTTP = true })
	s.idp.set(func(f *fake) { f.metadata = map[string]any{"token_endpoint": "http://idp.example/token"} })
	before := s.open("login", s.a.config)
	c := s.a.config
	c.InsecureHTTP = false
	next, err := New("login", c, Deps{Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.provider.client.Close)
	if next.Inherit(before); next.provider.current.Load() != nil {
		t.Error("an address without TLS counts")
	}
	same, err := New("login", s.a.config, Deps{Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(same.provider.client.Close)
	if same.Inherit(before); same.provider.current.Load() == nil {
		t.Error("the same configuration does not inherit")
	}
}
