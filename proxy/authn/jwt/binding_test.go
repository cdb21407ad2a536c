package jwt

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// TestBinding: a bound token is good for its holder only (RFC 8705 section 3),
// on the first request as on later ones.
func TestBinding(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	ca := certstest.NewCA(t, "CA")
	leaf, other := ca.Issue(t, "alice", nil).Leaf, ca.Issue(t, "eve", nil).Leaf
	digest := sha256.Sum256(leaf.Raw)
	thumbprint := josetest.Base64(digest[:])
	verified := func(c *x509.Certificate) *tls.ConnectionState {
		return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}, VerifiedChains: [][]*x509.Certificate{{c}}}
	}
	for _, tt := range []struct {
		name string
		cnf  any
		tls  *tls.ConnectionState
		ok   bool
	}{
		{"holder", map[string]any{"x5t#S256": thumbprint}, verified(leaf), true},
		{"other certificate", map[string]any{"x5t#S256": thumbprint}, verified(other), false},
		{"no certificate", map[string]any{"x5t#S256": thumbprint}, &tls.ConnectionState{}, false},
		{"not verified", map[string]any{"x5t#S256": thumbprint}, &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}, false},
		{"no TLS", map[string]any{"x5t#S256": thumbprint}, nil, false},
		{"DPoP", map[string]any{"jkt": "x"}, verified(leaf), false},
		{"both", map[string]any{"x5t#S256": thumbprint, "jkt": "x"}, verified(leaf), false},
		{"empty", map[string]any{}, verified(leaf), false},
		{"empty thumbprint", map[string]any{"x5t#S256": ""}, verified(leaf), false},
		{"not an object", "x", verified(leaf), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newFromFile(t, nil, key)
			r := &authn.Request{
				Authorization: "Bearer " + key.Sign(t, key.Header(), claims(testIssuer, map[string]any{"cnf": tt.cnf})),
				TLS:           tt.tls, Now: testNow,
			}
			for range 2 {
				if _, err := a.Authenticate(t.Context(), r); (err == nil) != tt.ok || err != nil && !errors.Is(err, authn.ErrInvalid) {
					t.Errorf("got %v, want accepted: %v", err, tt.ok)
				}
			}
			r.TLS = verified(other)
			if _, err := a.Authenticate(t.Context(), r); err == nil {
				t.Error("another client got in with the token")
			}
		})
	}
}
