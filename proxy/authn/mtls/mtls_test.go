package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// verified is the state after a handshake that verified leaf.
func verified(leaf *x509.Certificate) *tls.ConnectionState {
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}
}

func TestAuthenticate(t *testing.T) {
	ca := certstest.NewCA(t, "mesh CA")
	for _, tt := range []struct {
		name    string
		config  Config
		leaf    func(*x509.Certificate)
		subject string // empty: ErrInvalid
	}{
		{"SPIFFE ID", Config{AllowedSANs: []string{"spiffe://example.org/**"}}, uris(t, "spiffe://example.org/ns/a/sa/b"), "spiffe://example.org/ns/a/sa/b"},
		{"SPIFFE ID, one segment", Config{AllowedSANs: []string{"spiffe://example.org/ns/*/sa/b"}}, uris(t, "spiffe://example.org/ns/a/sa/b"), "spiffe://example.org/ns/a/sa/b"},
		{"SPIFFE ID of another domain", Config{AllowedSANs: []string{"spiffe://example.org/**"}}, uris(t, "spiffe://evil.example/ns/a"), ""},
		{"SPIFFE ID of a longer domain", Config{AllowedSANs: []string{"spiffe://example.org/**"}}, uris(t, "spiffe://example.org.evil.example/ns/a"), ""},
		{"SPIFFE ID with a second URI", Config{AllowedSANs: []string{"spiffe://example.org/**"}}, uris(t, "spiffe://example.org/a", "https://x.example/"), ""},
		{"malformed SPIFFE ID", Config{AllowedSANs: []string{"**"}}, uris(t, "spiffe://example.org/a/../b"), ""},
		{"URI", Config{AllowedSANs: []string{"https://svc.example/*"}}, uris(t, "https://svc.example/api"), "https://svc.example/api"},
		{"DNS name", Config{AllowedSANs: []string{"*.mesh.example"}}, dns("API.mesh.example"), "API.mesh.example"},
		{"DNS name too deep", Config{AllowedSANs: []string{"*.mesh.example"}}, dns("a.b.mesh.example"), ""},
		{"the allowed DNS name, not the first", Config{AllowedSANs: []string{"api.mesh.example"}}, dns("evil.example", "api.mesh.example"), "api.mesh.example"},
		{"wildcard certificate", Config{AllowedSANs: []string{"*.mesh.example"}}, dns("*.mesh.example"), ""},
		{"mail", Config{AllowedSANs: []string{"*@example.com"}}, mail("alice@EXAMPLE.com"), "alice@EXAMPLE.com"},
		{"mail of another domain", Config{AllowedSANs: []string{"*@example.com"}}, mail("alice@example.com.evil.example"), ""},
		{"mail pattern, other person", Config{AllowedSANs: []string{"bob@example.com"}}, mail("alice@example.com"), ""},
		{"mail with two domains", Config{AllowedSANs: []string{"*@example.com"}}, mail("alice@evil.example@example.com"), ""},
		{"URI with an empty segment", Config{AllowedSANs: []string{"https://svc.example/*"}}, uris(t, "https://svc.example/"), ""},
		{"URI with a dot segment", Config{AllowedSANs: []string{"https://svc.example/a/**"}}, uris(t, "https://svc.example/a/../b"), ""},
		{"URI with a query", Config{AllowedSANs: []string{"https://svc.example/**"}}, uris(t, "https://svc.example/a?b"), ""},
		{"common name does not stand for a DNS name", Config{AllowedSANs: []string{"peer"}}, dns(), ""},
		{"subject", Config{AllowedSubjects: []string{"CN=peer"}}, dns(), "peer"},
		{"common name", Config{AllowedSubjects: []string{"peer"}}, dns(), "peer"},
		{"other subject", Config{AllowedSubjects: []string{"CN=other"}}, dns(), ""},
		{"any, without names", Config{AllowedSANs: []string{"**"}}, dns(), "peer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := New("mesh", tt.config)
			if err != nil {
				t.Fatal(err)
			}
			leaf := ca.Issue(t, "peer", tt.leaf).Leaf
			id, err := a.Authenticate(t.Context(), &authn.Request{TLS: verified(leaf), Now: time.Now()})
			if tt.subject == "" {
				if !errors.Is(err, authn.ErrInvalid) {
					t.Errorf("got %v, %v; want ErrInvalid", id, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if id.Subject != tt.subject || id.Kind != "mtls" || id.Authenticator != "mesh" || !id.Authenticated ||
				id.Issuer != "CN=mesh CA" || !id.ExpiresAt.Equal(leaf.NotAfter) {
				t.Errorf("identity is %+v, want subject %q", id, tt.subject)
			}
		})
	}
}

func uris(t *testing.T, list ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.DNSNames = nil
		for _, u := range list {
			c.URIs = append(c.URIs, certstest.URI(t, u))
		}
	}
}

func dns(list ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = list }
}

func mail(address string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames, c.EmailAddresses = nil, []string{address} }
}

// TestConnectionOnly: only a certificate that this handshake verified counts.
func TestConnectionOnly(t *testing.T) {
	a, err := New("mesh", Config{AllowedSANs: []string{"**"}})
	if err != nil {
		t.Fatal(err)
	}
	leaf := certstest.NewCA(t, "CA").Issue(t, "peer", nil).Leaf
	forwarded := []authz.Header{{Name: "x-forwarded-client-cert", Value: `Hash=00;URI=spiffe://example.org/admin`}}
	for _, tt := range []struct {
		name string
		tls  *tls.ConnectionState
		want error
	}{
		{"no TLS, forwarded certificate", nil, authn.ErrNotMine},
		{"no certificate", &tls.ConnectionState{}, authn.ErrNotMine},
		{"not verified", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}, authn.ErrInvalid},
	} {
		_, err := a.Authenticate(t.Context(), &authn.Request{TLS: tt.tls, Headers: forwarded, Now: time.Now()})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestExpiresWhileOpen: a connection may outlive the certificate.
func TestExpiresWhileOpen(t *testing.T) {
	a, err := New("mesh", Config{AllowedSANs: []string{"**"}})
	if err != nil {
		t.Fatal(err)
	}
	leaf := certstest.NewCA(t, "CA").Issue(t, "peer", nil).Leaf
	at := func(now time.Time) error {
		_, err := a.Authenticate(t.Context(), &authn.Request{TLS: verified(leaf), Now: now})
		return err
	}
	if err := at(leaf.NotAfter); err != nil {
		t.Errorf("at the last moment: %v", err)
	}
	if err := at(leaf.NotAfter.Add(time.Second)); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("after it: got %v, want ErrInvalid", err)
	}
	if err := at(leaf.NotBefore.Add(-time.Second)); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("before the first: got %v, want ErrInvalid", err)
	}
}

// TestIdentityIsSharedWithoutAllocation pins that requests of a connection cost no memory.
func TestIdentityIsSharedWithoutAllocation(t *testing.T) {
	a, err := New("mesh", Config{AllowedSANs: []string{"**"}})
	if err != nil {
		t.Fatal(err)
	}
	r := &authn.Request{TLS: verified(certstest.NewCA(t, "CA").Issue(t, "peer", nil).Leaf), Now: time.Now()}
	first, err := a.Authenticate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	allocs := testing.AllocsPerRun(100, func() {
		if id, _ := a.Authenticate(t.Context(), r); id != first {
			t.Error("another identity")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

// TestRecentCompares: two certificates that share a slot stay two.
func TestRecentCompares(t *testing.T) {
	ca, r := certstest.NewCA(t, "CA"), newRecent()
	alice, bob := ca.Issue(t, "alice", nil).Leaf, ca.Issue(t, "bob", nil).Leaf
	r.slot(alice).Store(&known{leaf: bob, identity: &authz.Identity{Subject: "bob"}, until: bob.NotAfter})
	if id := r.get(alice, time.Now()); id != nil {
		t.Errorf("alice is taken for %s", id.Subject)
	}
}

func TestValidate(t *testing.T) {
	bad := Config{
		AllowedSANs: []string{
			"spiffe://*/a", "spiffe://example.org/**/a", "spiffe://example.org/a*", "a.*.example", "*", "x@y@z", "a*@example.com",
			"https://u@h.example/", "",
		},
		AllowedSubjects: []string{""},
	}
	if got := len(setting.Problems(bad.Validate())); got != len(bad.AllowedSANs)+1 {
		t.Errorf("%d problems, want one for each entry: %v", got, bad.Validate())
	}
	if err := (Config{}).Validate(); err == nil {
		t.Error("a Config without names was accepted")
	}
}
