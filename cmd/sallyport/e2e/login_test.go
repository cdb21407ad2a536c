//go:build e2e

package e2e_test

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
)

const loginPolicy = `package gateway

default decision := {"allow": false}

decision := {"allow": true} if startswith(input.request.path, "/public/")

decision := answer if input.identity.authenticated

answer := {"allow": false, "challenge": {"max_age": 4}} if {
	input.request.path == "/admin"
	time.now_ns() / 1000000000 - input.identity.claims.auth_time > 4
} else := {"allow": true, "upstream": {"set_headers": {"x-user": input.identity.subject, "x-mail": object.get(input.identity.claims, "email", "")}}}
`

// nodeFor returns the Node.js that the identity providers run on. Nothing here goes without.
func nodeFor(t *testing.T) string {
	t.Helper()
	_, node, err := oidctest.Find()
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// identityProvider is the certified OpenID provider at which people log in to gateways.
func identityProvider(t *testing.T, origins string, options map[string]any) *oidctest.Provider {
	t.Helper()
	nodeFor(t)
	return oidctest.StartLogin(t, origins, options)
}

// newLoginSite is a gateway at which people log in.
func newLoginSite(t *testing.T) (s *site, stopProvider func()) {
	t.Helper()
	s = newSite(t, paths)
	provider := identityProvider(t, "https://"+s.addr, nil)
	write(t, s.file("secret"), "a-secret-for-the-test-only\n")
	write(t, s.file("key"), strings.Repeat("5e", 32)+"\n")
	s.login(t, provider.Issuer, "keys_files: [key]")
	s.start(t)
	return s, provider.Stop
}

// login has people log in at an issuer. keep is the text below "session:". What is
// below /api/ is for bearer tokens alone.
func (s *site) login(t *testing.T, issuer, keep string) {
	t.Helper()
	text := s.config(0, fromPaths)
	text = strings.Replace(text, "  dev:", `  anyone: {anonymous: {}}
  login: {oidc: {issuer: "`+issuer+`", client_id: web, client_secret_file: secret, userinfo: true, post_logout_redirect: /public/bye, session: {`+keep+`}}}
  dev:`, 1)
	text = strings.Replace(text, "routes:\n", `routes:
  - name: public
    match: {path: "/public/**"}
    authenticate: [anyone]
    upstream: api
  - name: api
    match: {path: "/api/**"}
    authenticate: [dev]
    upstream: api
`, 1)
	text = strings.Replace(text, "authenticate: [dev]\n    upstream: api\n    labels", "authenticate: [login, dev]\n    upstream: api\n    labels", 1)
	write(t, s.file("sallyport.yaml"), text)
	write(t, s.file("policies/gateway.rego"), loginPolicy)
}

// person is somebody at a browser.
type person struct {
	*oidctest.Browser
	t *testing.T
}

func (s *site) person(t *testing.T) *person {
	t.Helper()
	return &person{oidctest.NewBrowser(t, &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.ca.pool}}), t}
}

// in reports whether a request of the person gets to the upstream as alice.
func (p *person) in(s *site) bool {
	p.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "https://"+s.addr+"/v1/orders", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("X-Requested-With", "XMLHttpRequest")
	pg := p.Do(req)
	if pg.Status != 200 && pg.Status != 401 {
		p.t.Fatalf("answered %d: %s", pg.Status, pg.Text)
	}
	return pg.Status == 200
}

// TestLogin goes the whole way with a certified provider: login, identity, renewal, step-up, and logout, after which a copy of the
// cookies is good for nothing.
func TestLogin(t *testing.T) {
	s, _ := newLoginSite(t)
	p := s.person(t)
	base := "https://" + s.addr
	if p.in(s) {
		t.Fatal("a script without a session is let in")
	}
	pg := p.Get(base + "/v1/orders?a=b")
	if pg.URL.Host == s.addr {
		t.Fatalf("nobody is asked to log in: %d %s", pg.Status, pg.Text)
	}
	pg = p.LogIn(pg, s.addr)
	var echo struct {
		Path    string
		Headers map[string]string
	}
	if err := json.Unmarshal([]byte(pg.Text), &echo); err != nil || pg.Status != 200 || pg.URL.RequestURI() != "/v1/orders?a=b" {
		t.Fatalf("after the login %s answers %d: %s", pg.URL, pg.Status, pg.Text)
	}
	if got := echo.Headers["X-User"] + " " + echo.Headers["X-Mail"]; got != "alice alice@example.com" {
		t.Errorf("the upstream sees %q", got)
	}
	if strings.Contains(pg.Text, "__Host-sallyport") {
		t.Errorf("the upstream sees the session: %s", pg.Text)
	}

	pg = p.LogIn(p.Get(base+"/admin"), s.addr)
	if pg.Status != 200 || pg.URL.Path != "/admin" {
		t.Errorf("/admin answers %d at %s: %s", pg.Status, pg.URL, pg.Text)
	}
	before := p.Logins
	eventually(t, 15*time.Second, "the login is too old for /admin", func() bool { return p.Get(base+"/admin").URL.Host != s.addr })
	if pg = p.LogIn(p.Get(base+"/admin"), s.addr); pg.Status != 200 || pg.URL.Path != "/admin" || p.Logins == before {
		t.Errorf("stepped up %d times; /admin answers %d at %s", p.Logins-before, pg.Status, pg.URL)
	}

	// The access token lasts 12 seconds, and is renewed from 10 seconds before.
	cookie := func() string {
		u, err := url.Parse(base)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, c := range p.Client.Jar.Cookies(u) {
			text += c.Name + "=" + c.Value + "; "
		}
		return text
	}
	first := cookie()
	eventually(t, 20*time.Second, "the session is renewed", func() bool { return p.in(s) && cookie() != first })

	copied := cookie()
	out := p.Submit(p.Get(base+"/oauth2/logout"), nil)
	if out.URL.Host == s.addr {
		t.Fatalf("logout answers %d: %s", out.Status, out.Text)
	}
	if pg = p.Submit(out, map[string]string{"logout": "yes"}); pg.URL.Path != "/public/bye" || pg.Status != 200 {
		t.Errorf("after the logout %s answers %d", pg.URL, pg.Status)
	}
	if p.in(s) {
		t.Error("still logged in")
	}
	req, err := http.NewRequest(http.MethodGet, base+"/v1/orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", copied)
	thief := oneConnection(s.ca.pool)()
	defer thief.CloseIdleConnections()
	resp, err := thief.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 401 {
		t.Errorf("a copy of the cookies gets %d", resp.StatusCode)
	}
}

// TestProviderEndsSessions: somebody logs out at the provider, from another browser
// window; the provider tells the gateway.
func TestProviderEndsSessions(t *testing.T) {
	s, stop := newLoginSite(t)
	p := s.person(t)
	base := "https://" + s.addr
	pg := p.Get(base + "/v1/orders")
	provider := pg.URL.Scheme + "://" + pg.URL.Host
	if pg = p.LogIn(pg, s.addr); pg.Status != 200 {
		t.Fatalf("login: %d %s", pg.Status, pg.Text)
	}
	form := p.Get(provider + "/session/end")
	p.Submit(form, map[string]string{"logout": "yes"})
	eventually(t, 10*time.Second, "the session ended", func() bool { return !p.in(s) })

	q := s.person(t)
	if pg = q.LogIn(q.Get(base+"/v1/orders"), s.addr); pg.Status != 200 {
		t.Fatalf("login: %d %s", pg.Status, pg.Text)
	}
	stop()
	for range 3 {
		if !q.in(s) {
			t.Error("the provider is down, and the session ended")
		}
	}
}
