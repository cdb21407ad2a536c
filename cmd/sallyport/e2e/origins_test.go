//go:build e2e

package e2e_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
)

const originsPolicy = `package gateway

default decision := {"allow": false}

decision := {"allow": true} if startswith(input.request.path, "/public/")

decision := {"allow": true, "upstream": {"set_headers": {"x-user": input.identity.subject, "x-origin": sprintf("%s://%s", [input.request.scheme, input.request.host])}}} if {
	input.identity.authenticated
	not startswith(input.request.path, "/public/")
}
`

// originsSite is a gateway at which people log in as oidc, the text of its settings,
// says.
func originsSite(t *testing.T, s *site, tlsFiles, issuer, oidc string) {
	t.Helper()
	write(t, s.file("secret"), "a-secret-for-the-test-only\n")
	write(t, s.file("key"), strings.Repeat("5e", 32)+"\n")
	write(t, s.file("policies/gateway.rego"), originsPolicy)
	write(t, s.file("sallyport.yaml"), fmt.Sprintf(`version: v1
listeners: [{name: public, address: %s%s}]
admin: {address: %s}
authenticators:
  anyone: {anonymous: {}}
  login: {oidc: {issuer: %q, client_id: web, client_secret_file: secret, %s}}
upstreams:
  api: {endpoints: [%s]}
routes:
  - {name: public, match: {path: "/public/**"}, authenticate: [anyone], upstream: api}
  - {name: all, match: {path: "/**"}, authenticate: [login], upstream: api}
policy:
  entrypoint: gateway/decision
  paths: [policies]
`, s.addr, tlsFiles, s.admin, issuer, oidc, s.upstream.URL))
	if out, err := exec.Command(binary(t), "check", "-c", s.file("sallyport.yaml")).CombinedOutput(); err != nil {
		t.Fatalf("check: %v\n%s", err, out)
	}
	s.start(t)
}

// named is a person whose browser finds every name on this machine.
func (s *site) named(t *testing.T) *person {
	t.Helper()
	p := s.person(t)
	p.Client.Transport = &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.ca.pool},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}
	t.Cleanup(p.Client.CloseIdleConnections)
	return p
}

// upstreamSees is what the upstream was sent of a page.
func upstreamSees(t *testing.T, pg oidctest.Page) (path string, headers map[string]string) {
	t.Helper()
	var echo struct {
		Path    string
		Headers map[string]string
	}
	if err := json.Unmarshal([]byte(pg.Text), &echo); err != nil || pg.Status != 200 {
		t.Fatalf("%s answers %d: %s", pg.URL, pg.Status, pg.Text)
	}
	return echo.Path, echo.Headers
}

// TestLoginAtSubdomains: the provider knows one redirect URI. Somebody logs in at a
// subdomain, comes back by it to the page, and is logged in at the others.
func TestLoginAtSubdomains(t *testing.T) {
	s := newSite(t, paths)
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	at := func(host string) string { return "https://" + host + ":" + port }
	issuer := identityProvider(t, at("shop.test"), map[string]any{"tells": "https://" + s.addr, "ttl": 600}).Issuer
	originsSite(t, s, ", tls: {cert_file: server.pem, key_file: server.key}", issuer, fmt.Sprintf(
		"origins: [%q, %q], redirect_origin: %q, post_logout_redirect: %q, session: {keys_files: [key], cookie_domain: shop.test}",
		at("shop.test"), at("*.shop.test"), at("shop.test"), at("shop.test")+"/public/bye"))
	p := s.named(t)
	pg := p.Get(at("a.shop.test") + "/v1/orders?a=b")
	if got := pg.URL.Scheme + "://" + pg.URL.Host; got != issuer {
		t.Fatalf("nobody is asked to log in: %s answers %d %s", pg.URL, pg.Status, pg.Text)
	}
	if pg = p.LogIn(pg, "a.shop.test:"+port); pg.URL.String() != at("a.shop.test")+"/v1/orders?a=b" {
		t.Errorf("after the login the browser is at %s", pg.URL)
	}
	if path, headers := upstreamSees(t, pg); path != "/v1/orders?a=b" || headers["X-User"] != "alice" || headers["Cookie"] != "" {
		t.Errorf("the upstream sees %s %v", path, headers)
	}
	for _, host := range []string{"b.shop.test", "shop.test"} {
		if pg = p.Get(at(host) + "/v1/x"); pg.Status != 200 || pg.URL.Host != host+":"+port {
			t.Errorf("%s: %d at %s", host, pg.Status, pg.URL)
		}
	}
	if pg = s.named(t).Get(at("www.test") + "/v1/x"); pg.Status != 403 || strings.Contains(pg.Text, issuer) {
		t.Errorf("a login begins at www.test: %d at %s", pg.Status, pg.URL)
	}

	out := p.Submit(p.Get(at("a.shop.test")+"/oauth2/logout"), nil)
	if pg = p.Submit(out, map[string]string{"logout": "yes"}); pg.URL.String() != at("shop.test")+"/public/bye" || pg.Status != 200 {
		t.Errorf("after the logout %s answers %d", pg.URL, pg.Status)
	}
	for _, host := range []string{"a.shop.test", "b.shop.test", "shop.test"} {
		if pg = p.Get(at(host) + "/v1/x"); pg.URL.Host == host+":"+port {
			t.Errorf("still logged in at %s: %d", host, pg.Status)
		}
	}
}

// TestLoginBehindProxy: a proxy in front ends TLS, rewrites Host and says nothing of
// either. People log in at the proxy's origin; policies see what arrived.
func TestLoginBehindProxy(t *testing.T) {
	for entry, internal := range map[string]string{"http://ambassador.internal": "ambassador.internal", "*://*": "whatever.internal"} {
		t.Run(internal, func(t *testing.T) {
			s := newSite(t, paths)
			target, err := url.Parse("http://" + s.addr)
			if err != nil {
				t.Fatal(err)
			}
			pair, err := tls.LoadX509KeyPair(s.file("server.pem"), s.file("server.key"))
			if err != nil {
				t.Fatal(err)
			}
			front := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				r.Out.Host = internal
			}})
			front.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
			front.StartTLS()
			t.Cleanup(front.Close)
			_, port, err := net.SplitHostPort(front.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			host := "app.test:" + port
			issuer := identityProvider(t, "https://"+host, map[string]any{"tells": "http://" + s.addr, "ttl": 600}).Issuer
			originsSite(t, s, "", issuer, fmt.Sprintf("origins: [%[1]q], internal_origins: {%[1]q: [%[2]q]}, post_logout_redirect: /public/bye, session: {keys_files: [key]}",
				"https://"+host, entry))
			p := s.named(t)
			pg := p.LogIn(p.Get("https://"+host+"/v1/orders?a=b"), host)
			if pg.URL.String() != "https://"+host+"/v1/orders?a=b" {
				t.Errorf("after the login the browser is at %s", pg.URL)
			}
			if path, headers := upstreamSees(t, pg); path != "/v1/orders?a=b" || headers["X-User"] != "alice" || headers["X-Origin"] != "http://"+internal {
				t.Errorf("the upstream sees %s %v", path, headers)
			}
			u, err := url.Parse("https://" + host)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range p.Client.Jar.Cookies(u) {
				if !strings.HasPrefix(c.Name, "__Host-sallyport-") {
					t.Errorf("cookie %s", c.Name)
				}
			}
			if pg = p.Get("https://" + host + "/v1/again"); pg.Status != 200 {
				t.Errorf("the session is not good: %d at %s", pg.Status, pg.URL)
			}
			out := p.Submit(p.Get("https://"+host+"/oauth2/logout"), nil)
			if pg = p.Submit(out, map[string]string{"logout": "yes"}); pg.URL.String() != "https://"+host+"/public/bye" || pg.Status != 200 {
				t.Errorf("after the logout %s answers %d", pg.URL, pg.Status)
			}
			if pg = p.Get("https://" + host + "/v1/orders"); pg.URL.Host == host {
				t.Errorf("still logged in: %d", pg.Status)
			}
		})
	}
}
