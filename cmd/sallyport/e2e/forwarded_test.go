//go:build e2e

package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// TestForwardedCertificates: only a listed proxy with a certificate of its own speaks
// for clients, whatever else is sent.
func TestForwardedCertificates(t *testing.T) {
	s := newSite(t, paths)
	clients := certstest.NewCA(t, "clients")
	const cart = "spiffe://example.org/ns/shop/sa/cart"
	whole := clients.Issue(t, "cart", func(c *x509.Certificate) { c.DNSNames, c.URIs = nil, []*url.URL{certstest.URI(t, cart)} })
	certstest.Write(t, s.file("clients.pem"), clients.PEM())
	certstest.Write(t, s.file("ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.cert.Raw}))
	text := strings.Replace(s.config(0, fromPaths), "key_file: server.key}", "key_file: server.key, client_ca_file: ca.pem, client_auth: optional}\n    trusted_proxies: [127.0.0.1/32]", 1)
	text = strings.Replace(text, "  dev:", `  xfcc: {mtls: {allowed_sans: ["spiffe://example.org/ns/shop/**"], forwarded: {header: xfcc, from: ["spiffe://example.org/edge"], client_ca_file: clients.pem}}}
  rfc9440: {mtls: {allowed_sans: ["spiffe://example.org/ns/shop/**"], forwarded: {header: rfc9440, from: ["spiffe://example.org/edge"], client_ca_file: clients.pem}}}
  dev:`, 1)
	text = strings.Replace(text, "authenticate: [dev]", "authenticate: [xfcc, rfc9440, dev]", 1)
	text = strings.Replace(text, "routes:", `routes:
  - {name: tokens, match: {path: "/v1/tokens/**"}, authenticate: [dev], upstream: api}`, 1)
	write(t, s.file("sallyport.yaml"), text)
	write(t, s.file("policies/gateway.rego"), `package gateway

decision := {"allow": true, "response": {"set_headers": {"x-who": input.identity.subject}}}
`)
	s.start(t)

	envoy := `Cert="` + strings.ReplaceAll(url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: whole.Certificate[0]}))), "+", "%20") + `"`
	rfc := ":" + base64.StdEncoding.EncodeToString(whole.Certificate[0]) + ":"
	proxy, peer := s.ca.client(t, "spiffe://example.org/edge", 7), s.ca.client(t, "spiffe://example.org/ns/shop/sa/web", 8)
	send := func(from string, cert *tls.Certificate, path string, header http.Header) (*http.Response, string) {
		c := oneConnection(s.ca.pool)()
		defer c.CloseIdleConnections()
		tr := c.Transport.(*http.Transport)
		tr.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}).DialContext
		if cert != nil {
			tr.TLSClientConfig.Certificates = []tls.Certificate{*cert}
		}
		req := s.request()
		req.URL.Path, req.Header = path, header
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, strings.ToLower(string(body))
	}
	ask := func(from string, cert *tls.Certificate, header http.Header) (int, string) {
		resp, _ := send(from, cert, "/v1/orders/42", header)
		return resp.StatusCode, resp.Header.Get("X-Who")
	}
	for name, tt := range map[string]struct {
		from   string
		cert   *tls.Certificate
		header http.Header
		status int
	}{
		"the proxy, Envoy's header":              {"127.0.0.1", &proxy, http.Header{"X-Forwarded-Client-Cert": {envoy}}, 200},
		"the proxy, RFC 9440":                    {"127.0.0.1", &proxy, http.Header{"Client-Cert": {rfc}}, 200},
		"the proxy, for a client without":        {"127.0.0.1", &proxy, http.Header{}, 401},
		"a client sends the header":              {"127.0.0.2", nil, http.Header{"X-Forwarded-Client-Cert": {envoy}}, 401},
		"a client sends the other header":        {"127.0.0.2", nil, http.Header{"Client-Cert": {rfc}}, 401},
		"a client with the proxy's certificate":  {"127.0.0.2", &proxy, http.Header{"Client-Cert": {rfc}}, 401},
		"a trusted proxy without a certificate":  {"127.0.0.1", nil, http.Header{"X-Forwarded-Client-Cert": {envoy}}, 401},
		"another holder of a certificate":        {"127.0.0.1", &peer, http.Header{"X-Forwarded-Client-Cert": {envoy}}, 401},
		"two headers":                            {"127.0.0.1", &proxy, http.Header{"X-Forwarded-Client-Cert": {envoy, envoy}}, 400},
		"two headers, RFC 9440":                  {"127.0.0.1", &proxy, http.Header{"Client-Cert": {rfc, rfc}}, 400},
		"two elements":                           {"127.0.0.1", &proxy, http.Header{"X-Forwarded-Client-Cert": {envoy + "," + envoy}}, 401},
		"dropped by Connection":                  {"127.0.0.1", &proxy, http.Header{"Client-Cert": {rfc}, "Connection": {"client-cert"}}, 401},
		"a name with an underscore":              {"127.0.0.1", &proxy, http.Header{"Client_cert": {rfc}}, 400},
		"the proxy's word without a certificate": {"127.0.0.1", &proxy, http.Header{"X-Forwarded-Client-Cert": {"URI=" + cart}}, 401},
	} {
		status, who := ask(tt.from, tt.cert, tt.header)
		if status != tt.status || status == 200 && who != cart {
			t.Errorf("%s: status %d as %q, want %d", name, status, who, tt.status)
		}
	}

	// On a route that looks at tokens only, the upstream hears of the client's certificate
	// from the proxy, and from nobody else.
	for name, tt := range map[string]struct {
		cert *tls.Certificate
		want bool
	}{"the proxy": {&proxy, true}, "another holder of a certificate": {&peer, false}} {
		resp, echo := send("127.0.0.1", tt.cert, "/v1/tokens/1", http.Header{"Authorization": {"Bearer " + s.token}, "X-Forwarded-Client-Cert": {envoy}})
		if got := strings.Contains(echo, "x-forwarded-client-cert"); resp.StatusCode != 200 || got != tt.want {
			t.Errorf("%s: status %d, the upstream got the header: %v, want %v", name, resp.StatusCode, got, tt.want)
		}
	}
}
