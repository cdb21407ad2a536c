//go:build e2e

package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// TestTrustBundle rotates the trust bundle of a SPIFFE trust domain under a connection
// that stays open, at a listener that trusts another domain as well.
func TestTrustBundle(t *testing.T) {
	s := newSite(t, paths)
	first, second, federated := certstest.NewCA(t, "first"), certstest.NewCA(t, "second"), certstest.NewCA(t, "federated")
	certstest.Write(t, s.file("clients.json"), certstest.TrustBundle(t, first, second, federated))
	certstest.Write(t, s.file("bundle.json"), certstest.TrustBundle(t, first))
	text := strings.Replace(s.config(0, fromPaths), "key_file: server.key", "key_file: server.key, client_ca_file: clients.json, client_auth: optional", 1)
	text = strings.Replace(text, "  dev:", "  mesh: {mtls: {trust_domain: example.org, trust_bundle_file: bundle.json}}\n  dev:", 1)
	text = strings.Replace(text, "authenticate: [dev]", "authenticate: [mesh, dev]", 1)
	write(t, s.file("sallyport.yaml"), text)
	write(t, s.file("policies/gateway.rego"), `package gateway

default decision := {"allow": false}

decision := {"allow": true} if input.identity.subject == "spiffe://example.org/cart"
`)
	s.start(t)
	client := func(ca *certstest.CA, ids ...string) *http.Client {
		c := ca.Issue(t, "x", func(c *x509.Certificate) {
			c.DNSNames, c.URIs = nil, nil
			for _, id := range ids {
				c.URIs = append(c.URIs, certstest.URI(t, id))
			}
		})
		out := oneConnection(s.ca.pool)()
		out.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{c}
		t.Cleanup(out.CloseIdleConnections)
		return out
	}
	get := func(c *http.Client) int {
		resp, err := c.Do(&http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "https", Host: s.addr, Path: "/v1/orders/1"}})
		if err != nil {
			t.Error(err)
			return 0
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body) // the connection is kept
		return resp.StatusCode
	}
	const cart = "spiffe://example.org/cart"
	old, fresh := client(first, cart), client(second, cart)
	for name, tt := range map[string]struct {
		client *http.Client
		status int
	}{
		"of the bundle":                         {old, 200},
		"of an authority that is not in it":     {fresh, 401},
		"by the authority of another domain":    {client(federated, cart), 401},
		"of another domain":                     {client(first, "spiffe://example.com/cart"), 401},
		"with two URIs":                         {client(first, cart, "https://example.org/"), 401},
		"of the bundle, that the policy denies": {client(first, "spiffe://example.org/web"), 403},
	} {
		if got := get(tt.client); got != tt.status {
			t.Errorf("%s: status %d, want %d", name, got, tt.status)
		}
	}
	certstest.Write(t, s.file("bundle.json"), certstest.TrustBundle(t, second))
	eventually(t, effect, "the removed authority does not count on the open connection", func() bool { return get(old) == 401 })
	if got := get(fresh); got != 200 {
		t.Errorf("the new authority: status %d", got)
	}
}
