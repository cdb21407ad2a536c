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
	p.client.Transport = &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.ca.pool},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}
	t.Cleanup(p.client.CloseIdleConnections)
	return p
}

// upstreamSees is what the upstream was sent of a page.
func upstreamSees(t *testing.T, pg page) (path string, headers map[string]string) {
	t.Helper()
	var echo struct {
		Path    string
		Headers map[string]string
	}
	if err := json.Unmarshal([]byte(pg.text), &echo); err != nil || pg.status != 200 {
		t.Fatalf("%s answers %d: %s", pg.url, pg.status, pg.text)
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
	issuer, _ := identityProvider(t, at("shop.test"), options(t, map[string]any{"tells": "https://" + s.addr, "ttl": 600}))
	originsSite(t, s, ", tls: {cert_file: server.pem, key_file: server.key}", issuer, fmt.Sprintf(
		"origins: [%q, %q], redirect_origin: %q, post_logout_redirect: %q, session: {keys_files: [key], cookie_domain: shop.test}",
		at("shop.test"), at("*.shop.test"), at("shop.test"), at("shop.test")+"/public/bye"))
	p := s.named(t)
	pg := p.get(at("a.shop.test") + "/v1/orders?a=b")
	if got := pg.url.Scheme + "://" + pg.url.Host; got != issuer {
		t.Fatalf("nobody is asked to log in: %s answers %d %s", pg.url, pg.status, pg.text)
	}
	if pg = p.through(pg, "a.shop.test:"+port); pg.url.String() != at("a.shop.test")+"/v1/orders?a=b" {
		t.Errorf("after the login the browser is at %s", pg.url)
	}
	if path, headers := upstreamSees(t, pg); path != "/v1/orders?a=b" || headers["X-User"] != "alice" || headers["Cookie"] != "" {
		t.Errorf("the upstream sees %s %v", path, headers)
	}
	for _, host := range []string{"b.shop.test", "shop.test"} {
		if pg = p.get(at(host) + "/v1/x"); pg.status != 200 || pg.url.Host != host+":"+port {
			t.Errorf("%s: %d at %s", host, pg.status, pg.url)
		}
	}
	if pg = s.named(t).get(at("www.test") + "/v1/x"); pg.status != 403 || strings.Contains(pg.text, issuer) {
		t.Errorf("a login begins at www.test: %d at %s", pg.status, pg.url)
	}

	out := p.submit(p.get(at("a.shop.test")+"/oauth2/logout"), nil)
	if pg = p.submit(out, map[string]string{"logout": "yes"}); pg.url.String() != at("shop.test")+"/public/bye" || pg.status != 200 {
		t.Errorf("after the logout %s answers %d", pg.url, pg.status)
	}
	for _, host := range []string{"a.shop.test", "b.shop.test", "shop.test"} {
		if pg = p.get(at(host) + "/v1/x"); pg.url.Host == host+":"+port {
			t.Errorf("still logged in at %s: %d", host, pg.status)
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
			issuer, _ := identityProvider(t, "https://"+host, options(t, map[string]any{"tells": "http://" + s.addr, "ttl": 600}))
			originsSite(t, s, "", issuer, fmt.Sprintf("origins: [%[1]q], internal_origins: {%[1]q: [%[2]q]}, post_logout_redirect: /public/bye, session: {keys_files: [key]}",
				"https://"+host, entry))
			p := s.named(t)
			pg := p.through(p.get("https://"+host+"/v1/orders?a=b"), host)
			if pg.url.String() != "https://"+host+"/v1/orders?a=b" {
				t.Errorf("after the login the browser is at %s", pg.url)
			}
			if path, headers := upstreamSees(t, pg); path != "/v1/orders?a=b" || headers["X-User"] != "alice" || headers["X-Origin"] != "http://"+internal {
				t.Errorf("the upstream sees %s %v", path, headers)
			}
			u, err := url.Parse("https://" + host)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range p.client.Jar.Cookies(u) {
				if !strings.HasPrefix(c.Name, "__Host-sallyport-") {
					t.Errorf("cookie %s", c.Name)
				}
			}
			if pg = p.get("https://" + host + "/v1/again"); pg.status != 200 {
				t.Errorf("the session is not good: %d at %s", pg.status, pg.url)
			}
			out := p.submit(p.get("https://"+host+"/oauth2/logout"), nil)
			if pg = p.submit(out, map[string]string{"logout": "yes"}); pg.url.String() != "https://"+host+"/public/bye" || pg.status != 200 {
				t.Errorf("after the logout %s answers %d", pg.url, pg.status)
			}
			if pg = p.get("https://" + host + "/v1/orders"); pg.url.Host == host {
				t.Errorf("still logged in: %d", pg.status)
			}
		})
	}
}
