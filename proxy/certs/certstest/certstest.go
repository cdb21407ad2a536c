// Package certstest makes certificate authorities, certificates and revocation
// lists for tests that perform real handshakes. Nothing but tests imports it.
package certstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// CA is an authority, a root or an intermediate.
type CA struct {
	Certificate *x509.Certificate
	key         crypto.Signer
	parent      *CA
}

// NewCA makes a root called name, good for a day around now.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	return newCA(t, name, nil)
}

// Intermediate makes an authority below ca.
func (ca *CA) Intermediate(t testing.TB, name string) *CA {
	t.Helper()
	return newCA(t, name, ca)
}

// Cross makes another certificate of other, with its name and key, below ca.
func (ca *CA) Cross(t testing.TB, other *CA) *CA {
	t.Helper()
	template := newTemplate(t, other.Certificate.Subject.CommonName)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, other.Certificate.KeyUsage
	return &CA{Certificate: ca.sign(t, template, other.key), key: other.key, parent: ca}
}

func newCA(t testing.TB, name string, parent *CA) *CA {
	t.Helper()
	ca := &CA{key: newKey(t), parent: parent}
	template := newTemplate(t, name)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	signer := parent
	if parent == nil {
		signer = &CA{Certificate: template, key: ca.key}
	}
	ca.Certificate = signer.sign(t, template, ca.key)
	return ca
}

// Issue makes a certificate for 127.0.0.1 and localhost, and for use by clients
// and servers, which change may change. The chain has the intermediates.
func (ca *CA) Issue(t testing.TB, name string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := newTemplate(t, name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	template.DNSNames, template.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	if change != nil {
		change(template)
	}
	key := newKey(t)
	leaf := ca.sign(t, template, key)
	chain := [][]byte{leaf.Raw}
	for c := ca; c.parent != nil; c = c.parent {
		chain = append(chain, c.Certificate.Raw)
	}
	return tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newTemplate(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}

func (ca *CA) sign(t testing.TB, template *x509.Certificate, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// Pool returns a pool of the authority alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate)
	return pool
}

// RevocationList returns a PEM list of the serial numbers of revoked, good until
// the given time and made 25 hours before.
func (ca *CA) RevocationList(t testing.TB, until time.Time, revoked ...tls.Certificate) []byte {
	t.Helper()
	return ca.SignRevocationList(t, func(l *x509.RevocationList) {
		l.ThisUpdate, l.NextUpdate = until.Add(-25*time.Hour), until
		for _, r := range revoked {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: r.Leaf.SerialNumber, RevocationTime: time.Now()})
		}
	})
}

// SignRevocationList returns a PEM list that change filled; by default it is
// empty and good for two hours around now.
func (ca *CA) SignRevocationList(t testing.TB, change func(*x509.RevocationList)) []byte {
	t.Helper()
	template := &x509.RevocationList{
		Number:     big.NewInt(time.Now().UnixNano()),
		ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
	}
	change(template)
	der, err := x509.CreateRevocationList(rand.Reader, template, ca.Certificate, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// SignOCSP returns what a responder answers about a certificate (RFC 6960): good for an
// hour around now, unless change says otherwise. It is signed by ca, or by another
// certificate, which is then sent along.
func (ca *CA) SignOCSP(t testing.TB, about *big.Int, by *tls.Certificate, change func(*ocsp.Response)) []byte {
	t.Helper()
	template := ocsp.Response{SerialNumber: about, Status: ocsp.Good, ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
	responder, key := ca.Certificate, ca.key
	if by != nil {
		template.Certificate, responder = by.Leaf, by.Leaf
		key, _ = by.PrivateKey.(crypto.Signer)
	}
	if change != nil {
		change(&template)
	}
	der, err := ocsp.CreateResponse(ca.Certificate, responder, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// PEM returns the authority's certificate.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate.Raw})
}

// TrustBundle returns the SPIFFE trust bundle of authorities: a JWK set whose keys are for
// x509-svid, and one for jwt-svid, which has no certificate.
func TrustBundle(t testing.TB, authorities ...*CA) []byte {
	t.Helper()
	public, _ := newKey(t).Public().(*ecdsa.PublicKey)
	point, err := public.Bytes() // 4, x and y (SEC 1 section 2.3.3)
	if err != nil {
		t.Fatal(err)
	}
	x, y := base64.RawURLEncoding.EncodeToString(point[1:33]), base64.RawURLEncoding.EncodeToString(point[33:])
	keys := []any{map[string]any{"kty": "EC", "crv": "P-256", "use": "jwt-svid", "kid": "token", "x": x, "y": y}}
	for _, ca := range authorities {
		keys = append(keys, map[string]any{"kty": "EC", "crv": "P-256", "use": "x509-svid", "x5c": [][]byte{ca.Certificate.Raw}})
	}
	data, err := json.Marshal(map[string]any{"keys": keys, "spiffe_sequence": 1})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// WritePair writes the certificate chain and the private key of c.
func WritePair(t testing.TB, c tls.Certificate, certFile, keyFile string) {
	t.Helper()
	var chain []byte
	for _, der := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	Write(t, certFile, chain)
	Write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}

// Write writes a file that only its owner can read.
func Write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// URI parses a URI for the URIs of a certificate.
func URI(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
