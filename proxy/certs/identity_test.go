package certs_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

func TestTLSOf(t *testing.T) {
	s := newSite(t)
	alice := s.clients.Issue(t, "alice", func(c *x509.Certificate) {
		c.DNSNames, c.EmailAddresses = []string{"alice.mesh.example"}, []string{"alice@example.com"}
		c.URIs = []*url.URL{certstest.URI(t, "spiffe://example.org/ns/a/sa/alice")}
	})
	client := s.client(alice)
	client.MinVersion = tls.VersionTLS13
	state, err := handshake(t, s.open(t).TLS(), client)
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := sha256.Sum256(alice.Leaf.Raw)
	want := &authz.TLS{
		Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256", ServerName: "localhost",
		ClientCertificate: &authz.Certificate{
			Subject: "CN=alice", Issuer: "CN=client CA", Serial: alice.Leaf.SerialNumber.Text(16),
			SHA256: hex.EncodeToString(fingerprint[:]), DNSNames: []string{"alice.mesh.example"},
			URIs: []string{"spiffe://example.org/ns/a/sa/alice"}, Emails: []string{"alice@example.com"},
			SPIFFEID:  "spiffe://example.org/ns/a/sa/alice",
			NotBefore: alice.Leaf.NotBefore, NotAfter: alice.Leaf.NotAfter,
		},
	}
	if diff := cmp.Diff(want, certs.TLSOf(&state)); diff != "" {
		t.Errorf("TLS (-want +got):\n%s", diff)
	}
	if got := certs.TLSOf(nil); got != nil {
		t.Errorf("without TLS: %v", got)
	}
}

// TestCertificateNotVerified: a certificate that was only presented is no one's.
func TestCertificateNotVerified(t *testing.T) {
	leaf := certstest.NewCA(t, "any").Issue(t, "eve", nil).Leaf
	state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
	if got := certs.CertificateOf(state); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestSPIFFEID(t *testing.T) {
	ca := certstest.NewCA(t, "CA")
	for _, tt := range []struct {
		name string
		uris []string
		ok   bool
	}{
		{"service", []string{"spiffe://example.org/ns/prod/sa/api"}, true},
		{"trust domain alone", []string{"spiffe://example.org"}, true},
		{"scheme in capitals", []string{"SPIFFE://example.org/a"}, true},
		{"all characters", []string{"spiffe://a-b_c.9/A-Z_a.z/0"}, true},
		{"two URIs", []string{"spiffe://example.org/a", "https://example.org"}, false},
		{"two IDs", []string{"spiffe://example.org/a", "spiffe://example.org/b"}, false},
		{"trailing slash", []string{"spiffe://example.org/a/"}, false},
		{"slash alone", []string{"spiffe://example.org/"}, false},
		{"empty segment", []string{"spiffe://example.org/a//b"}, false},
		{"dot segment", []string{"spiffe://example.org/a/../b"}, false},
		{"percent encoding", []string{"spiffe://example.org/%61"}, false},
		{"other character", []string{"spiffe://example.org/a~b"}, false},
		{"port", []string{"spiffe://example.org:8443/a"}, false},
		{"user", []string{"spiffe://u@example.org/a"}, false},
		{"query", []string{"spiffe://example.org/a?b"}, false},
		{"empty query", []string{"spiffe://example.org/a?"}, false},
		{"fragment", []string{"spiffe://example.org/a#b"}, false},
		{"capital in trust domain", []string{"spiffe://Example.org/a"}, false},
		{"no trust domain", []string{"spiffe:///a"}, false},
		{"opaque", []string{"spiffe:example.org/a"}, false},
		{"long trust domain", []string{"spiffe://" + strings.Repeat("a", 256) + "/a"}, false},
		{"long", []string{"spiffe://example.org/" + strings.Repeat("a", 2048)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leaf := ca.Issue(t, "x", func(c *x509.Certificate) {
				for _, u := range tt.uris {
					c.URIs = append(c.URIs, certstest.URI(t, u))
				}
			}).Leaf
			id, err := certs.SPIFFEID(leaf)
			if (err == nil) != tt.ok || errors.Is(err, certs.ErrNoSPIFFEID) {
				t.Errorf("got %q, %v; want accepted: %v", id, err, tt.ok)
			}
		})
	}
	if _, err := certs.SPIFFEID(ca.Issue(t, "x", nil).Leaf); !errors.Is(err, certs.ErrNoSPIFFEID) {
		t.Errorf("without URIs: got %v, want ErrNoSPIFFEID", err)
	}
	signing := ca.Issue(t, "x", func(c *x509.Certificate) {
		c.URIs, c.IsCA, c.BasicConstraintsValid = []*url.URL{certstest.URI(t, "spiffe://example.org/a")}, true, true
	}).Leaf
	if id, err := certs.SPIFFEID(signing); err == nil {
		t.Errorf("an authority's certificate has the ID %q", id)
	}
}
