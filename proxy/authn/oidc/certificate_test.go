package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// certified has openssl make a key with a certificate of it, as an operator does, and
// returns the certificate's thumbprint by openssl's count.
func certified(t *testing.T, kind ...string) (keyFile, certFile, print string) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	keyFile, certFile = filepath.Join(dir, "gateway.key"), filepath.Join(dir, "gateway.pem")
	args := append([]string{"req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=gateway", "-keyout", keyFile, "-out", certFile, "-newkey"}, kind...)
	if out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput(); err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, out)
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "x509", "-in", certFile, "-noout", "-fingerprint", "-sha256").Output()
	_, digits, found := strings.Cut(strings.TrimSpace(string(out)), "=")
	sum, failed := hex.DecodeString(strings.ReplaceAll(digits, ":", ""))
	if err := errors.Join(err, failed); err != nil || !found {
		t.Fatalf("openssl x509 -fingerprint: %q, %v", out, err)
	}
	return keyFile, certFile, base64.RawURLEncoding.EncodeToString(sum)
}

// holds verifies a JWT by the key in a certificate: RSA with PSS and a salt as long as
// the hash (RFC 7518 section 3.5), P-256 with both numbers (section 3.4).
func holds(t *testing.T, certFile, signed string) bool {
	t.Helper()
	certificate, err := loadCertificate(certFile)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndexByte(signed, '.')
	sig, err := base64.RawURLEncoding.DecodeString(signed[at+1:])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(signed[:at]))
	switch key := certificate.PublicKey.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPSS(key, crypto.SHA256, sum[:], sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case *ecdsa.PublicKey:
		return ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
	}
	return false
}

// TestClientCertificate: the provider learns by whose certificate an assertion is to be
// verified, and what else Entra ID wants of it.
func TestClientCertificate(t *testing.T) {
	for alg, kind := range map[string][]string{"PS256": {"rsa:2048"}, "ES256": {"ec", "-pkeyopt", "ec_paramgen_curve:P-256"}} {
		for _, kid := range []string{"", "web-1"} {
			keyFile, certFile, print := certified(t, kind...)
			s := newSetup(t, func(c *Config) {
				c.ClientAuth, c.ClientSecretFile = "", ""
				c.ClientKeyFile, c.ClientCertificateFile, c.ClientKeyID = keyFile, certFile, kid
			})
			b := s.browser()
			b.logIn("/")
			q := s.idp.questions()
			if len(q) != 1 {
				t.Fatalf("%s: asked %v", alg, q)
			}
			assertion := q[0].Get("client_assertion")
			if !holds(t, certFile, assertion) {
				t.Errorf("%s: %q does not hold by the certificate", alg, assertion)
			}
			var header map[string]string
			var claims struct{ Iat, Nbf, Exp int64 }
			for i, to := range []any{&header, &claims} {
				text, err := base64.RawURLEncoding.DecodeString(strings.Split(assertion, ".")[i])
				if err != nil || json.Unmarshal(text, to) != nil {
					t.Fatalf("%s: part %d of %q", alg, i, assertion)
				}
			}
			want := map[string]string{"alg": alg, "typ": "JWT", "x5t#S256": print}
			if kid != "" {
				want["kid"] = kid
			}
			if !maps.Equal(header, want) {
				t.Errorf("header %v, want %v", header, want)
			}
			if claims.Nbf == 0 || claims.Nbf > claims.Iat || claims.Exp-claims.Nbf > 300 {
				t.Errorf("times %+v: Entra ID takes assertions for a few minutes", claims)
			}
		}
	}
}

// TestClientCertificateFiles: the first certificate of the file counts, and one that is
// not the key's is an error, at the start and, where what was read before stays, at a
// reload.
func TestClientCertificateFiles(t *testing.T) {
	keyFile, certFile, print := certified(t, "rsa:2048")
	otherKey, otherCert, _ := certified(t, "rsa:2048")
	read := func(name string) []byte {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	c := Default()
	c.Issuer, c.ClientID, c.ClientAuth, c.ClientKeyFile, c.ClientCertificateFile = "https://idp.example", "web", authKey, keyFile, filepath.Join(t.TempDir(), "c.pem")
	for want, data := range map[string][]byte{
		"is not that of the certificate": read(otherCert),
		"holds no PEM certificate":       read(keyFile),
		"client certificate of ":         pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}),
		"read client certificate":        nil,
	} {
		if data != nil {
			certstest.Write(t, c.ClientCertificateFile, data)
		} else if err := os.RemoveAll(c.ClientCertificateFile); err != nil {
			t.Fatal(err)
		}
		if _, err := New("login", c, Deps{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	certstest.Write(t, c.ClientCertificateFile, slices.Concat(read(keyFile), read(certFile), read(otherCert)))
	a, err := New("login", c, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.provider.client.Close)
	named := func() bool {
		head, err := base64.RawURLEncoding.DecodeString(a.client.signer.Load().header)
		return err == nil && strings.Contains(string(head), `"x5t#S256":"`+print+`"`)
	}
	if !named() || !slices.Contains(a.Files(), c.ClientCertificateFile) {
		t.Errorf("the header is not of the first certificate, or %q are the files", a.Files())
	}
	certstest.Write(t, c.ClientCertificateFile, read(otherCert))
	if err := a.Reload(t.Context()); err == nil || !named() {
		t.Errorf("a certificate without its key: %v", err)
	}
	certstest.Write(t, keyFile, read(otherKey))
	if err := a.Reload(t.Context()); err != nil || named() {
		t.Errorf("both are new: %v", err)
	}
	c.ClientAuth, c.ClientKeyFile = authNone, ""
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "client_certificate_file: is not used") {
		t.Errorf("got %v", err)
	}
}

// TestClientCertificateWithProvider: a certified provider takes what is signed so.
func TestClientCertificateWithProvider(t *testing.T) {
	keyFile, certFile, _ := certified(t, "rsa:2048")
	certificate, err := loadCertificate(certFile)
	if err != nil {
		t.Fatal(err)
	}
	public, ok := certificate.PublicKey.(*rsa.PublicKey)
	if !ok {
		t.Fatalf("the key is a %T", certificate.PublicKey)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	s := newCertifiedSite(t)
	issuer := oidctest.StartLogin(t, s.URL, map[string]any{"clients": []any{map[string]any{
		"client_id": "web", "token_endpoint_auth_method": authKey, "token_endpoint_auth_signing_alg": "PS256",
		"jwks": map[string]any{"keys": []any{map[string]any{
			"kty": "RSA", "n": b64(public.N.Bytes()), "e": b64(big.NewInt(int64(public.E)).Bytes()), "x5c": []any{base64.StdEncoding.EncodeToString(certificate.Raw)},
		}}},
	}}}).Issuer
	s.use(issuer, func(c *Config) { c.ClientSecretFile, c.ClientKeyFile, c.ClientCertificateFile = "", keyFile, certFile })
	if at, _ := s.logIn(s.visitor()); at.Status != 200 || at.Text != "hello alice" {
		t.Errorf("%s answers %d: %s", at.URL, at.Status, at.Text)
	}
	s.use(issuer, func(c *Config) { c.ClientSecretFile, c.ClientKeyFile = "", keyFile })
	if at, _ := s.logIn(s.visitor()); at.Status == 200 {
		t.Error("RS256 is taken: the provider does not look at what the certificate changes")
	}
}
