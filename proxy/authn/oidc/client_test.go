package oidc

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestClientAuthentication: how the token endpoint learns who asks, at the login and
// at a renewal.
func TestClientAuthentication(t *testing.T) {
	key, file := clientKey(t)
	for _, method := range []string{authBasic, authPost, authKey, authNone} {
		s := newSetup(t, func(c *Config) {
			c.ClientAuth = method
			if method == authKey || method == authNone {
				c.ClientSecretFile = ""
			}
			if method == authKey {
				c.ClientKeyFile, c.ClientKeyID = file, "web-1"
			}
		})
		b := s.browser()
		b.logIn("/")
		s.pass(time.Minute)
		if !b.in() {
			t.Fatalf("%s: not renewed", method)
		}
		seen := map[string]bool{}
		for _, q := range s.idp.questions() {
			assertion := q.Get("client_assertion")
			if basic := s.idp.basic != ""; basic != (method == authBasic) || q.Has("client_secret") != (method == authPost) || (assertion != "") != (method == authKey) {
				t.Errorf("%s: %v, %q", method, q, s.idp.basic)
			}
			if method != authBasic && q.Get("client_id") != "web" {
				t.Errorf("%s: client_id %q", method, q.Get("client_id"))
			}
			if method == authPost && q.Get("client_secret") != "s3cret/+" {
				t.Errorf("secret %q", q.Get("client_secret"))
			}
			if method == authKey {
				checkAssertion(t, &key.PublicKey, assertion, "web", s.idp.URL+"/token")
				if seen[assertion] {
					t.Error("an assertion is used twice")
				}
				seen[assertion] = true
			}
		}
	}
}

// clientKey makes the key of a gateway, and a file of it.
func clientKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key, keyFile(t, key)
}

// keyFile writes a private key as PEM.
func keyFile(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func checkAssertion(t *testing.T, key *ecdsa.PublicKey, assertion, client, audience string) {
	t.Helper()
	header, claims := opened(t, key, assertion)
	if header["alg"] != "ES256" || header["kid"] != "web-1" || claims["iss"] != client || claims["sub"] != client || claims["aud"] != audience ||
		claims["exp"].(float64)-claims["iat"].(float64) != 60 || len(claims["jti"].(string)) != 32 {
		t.Errorf("assertion %v %v", header, claims)
	}
}

// opened checks the signature of a JWT and returns what is in it.
func opened(t *testing.T, key *ecdsa.PublicKey, assertion string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		t.Fatalf("assertion %q", assertion)
	}
	for i, to := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(text, to) != nil {
			t.Fatalf("part %d of %q", i, assertion)
		}
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err != nil || len(sig) != 64 || !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		t.Error("the signature does not hold")
	}
	return header, claims
}

func TestSigners(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip("this Go does not make weak keys")
	}
	good, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		key any
		alg string
	}{"weak": {weak, ""}, "P-521": {p521, ""}, "text": {"x", ""}, "RSA": {good, "RS256 PS256"}, "P-384": {p384, "ES384"}, "Ed25519": {ed, "EdDSA"}} {
		all, err := newSigners(tc.key, "JWT", "")
		if (err == nil) != (tc.alg != "") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err != nil {
			continue
		}
		var algs []string
		for _, s := range all {
			algs = append(algs, s.alg)
			if head, _ := base64.RawURLEncoding.DecodeString(s.header); !strings.Contains(string(head), `"alg":"`+s.alg+`"`) {
				t.Errorf("%s: header %s", name, head)
			}
			if _, err := s.sign(map[string]any{"a": 1}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got := strings.Join(algs, " "); got != tc.alg {
			t.Errorf("%s signs with %s, want %s", name, got, tc.alg)
		}
	}
	for _, text := range []string{"", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if _, err := parsePrivate([]byte(text)); err == nil {
			t.Errorf("%q was taken for a key", text)
		}
	}
}
