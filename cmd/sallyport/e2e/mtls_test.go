//go:build e2e

package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/demo"
)

// client issues a client certificate for a SPIFFE ID.
func (a *authority) client(t *testing.T, id string, serial int64) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// revoke returns a revocation list of the serial numbers, PEM.
func (a *authority) revoke(t *testing.T, serials ...int64) string {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now().Add(-time.Minute)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

// TestClientCertificates takes identities from certificates, and revokes one
// while the gateway runs.
func TestClientCertificates(t *testing.T) {
	s := newSite(t, paths)
	write(t, s.file("ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.cert.Raw})))
	write(t, s.file("ca.crl"), s.ca.revoke(t))
	text := strings.Replace(s.config(0, fromPaths), "key_file: server.key", "key_file: server.key, client_ca_file: ca.pem, client_auth: optional, crl_files: [ca.crl]", 1)
	text = strings.Replace(text, "  dev:", `  mesh: {mtls: {allowed_sans: ["spiffe://example.org/ns/*/sa/**"]}}`+"\n  dev:", 1)
	text = strings.Replace(text, "authenticate: [dev]", "authenticate: [mesh, dev]", 1)
	write(t, s.file("sallyport.yaml"), text)
	write(t, s.file("policies/gateway.rego"), `package gateway

default decision := {"allow": false}

decision := {"allow": true, "response": {"set_headers": {"x-id": input.tls.client_certificate.spiffe_id}}} if {
	input.identity.kind == "mtls"
	input.identity.subject == "spiffe://example.org/ns/shop/sa/cart"
}
`)
	s.start(t)
	get := func(certs ...tls.Certificate) (int, string) {
		c := oneConnection(s.ca.pool)()
		defer c.CloseIdleConnections()
		c.Transport.(*http.Transport).TLSClientConfig.Certificates = certs
		req := s.request()
		req.Header.Del("Authorization")
		resp, err := c.Do(req)
		if err != nil {
			return 0, "" // the handshake was refused
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("X-Id")
	}
	const cart = "spiffe://example.org/ns/shop/sa/cart"
	mine := s.ca.client(t, cart, 7)
	for name, c := range map[string]struct {
		certs  []tls.Certificate
		status int
	}{
		"good":            {[]tls.Certificate{mine}, 200},
		"none":            {nil, 401},
		"not allowed":     {[]tls.Certificate{s.ca.client(t, "spiffe://example.org/other", 8)}, 401},
		"denied":          {[]tls.Certificate{s.ca.client(t, "spiffe://example.org/ns/shop/sa/web", 9)}, 403},
		"other authority": {[]tls.Certificate{newAuthority(t).client(t, cart, 7)}, 0},
	} {
		status, id := get(c.certs...)
		if status != c.status || (status == 200 && id != cart) {
			t.Errorf("%s: status %d id %q, want %d", name, status, id, c.status)
		}
	}
	write(t, s.file("ca.crl"), s.ca.revoke(t, 7))
	eventually(t, effect, "the certificate is revoked", func() bool { status, _ := get(mine); return status == 0 })
}

// TestUpstreamCertificates replaces the authority that an upstream is verified
// with: the upstream's certificate is not trusted any more, and then again.
func TestUpstreamCertificates(t *testing.T) {
	s := newSite(t, paths)
	upstream := httptest.NewTLSServer(http.HandlerFunc(demo.Echo))
	t.Cleanup(upstream.Close)
	trusted := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: upstream.Certificate().Raw}))
	other := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newAuthority(t).cert.Raw}))
	write(t, s.file("upstream-ca.pem"), trusted)
	write(t, s.file("sallyport.yaml"), strings.Replace(s.config(0, fromPaths), "endpoints: ["+s.upstream.URL+"]", "endpoints: ["+upstream.URL+"], tls: {ca_file: upstream-ca.pem}", 1))
	s.start(t)
	answer := func() int {
		c := oneConnection(s.ca.pool)()
		defer c.CloseIdleConnections()
		resp, err := c.Do(s.request())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := answer(); got != 200 {
		t.Fatalf("status %d, want 200", got)
	}
	write(t, s.file("upstream-ca.pem"), other)
	eventually(t, effect, "the upstream is not trusted", func() bool { return answer() == 502 })
	write(t, s.file("upstream-ca.pem"), trusted)
	eventually(t, effect, "the upstream is trusted again", func() bool { return answer() == 200 })
}
