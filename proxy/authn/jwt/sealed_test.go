package jwt

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwe"
	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// seal encrypts text for a public key with the header members given besides cty.
func seal(t testing.TB, public any, alg, enc, text string, header map[string]any, options ...jwe.EncryptOption) string {
	t.Helper()
	h := jwe.NewHeaders()
	for name, value := range changed(map[string]any{"cty": "JWT"}, header) {
		if err := h.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	out, err := jwe.Encrypt([]byte(text), append(options, jwe.WithKey(jwa.KeyEncryptionAlgorithm(alg), public),
		jwe.WithContentEncryption(jwa.ContentEncryptionAlgorithm(enc)), jwe.WithProtectedHeaders(h))...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// withHeader replaces the header of a token, which no key protects any more then.
func withHeader(t testing.TB, token string, change map[string]any) string {
	t.Helper()
	head, rest, _ := strings.Cut(token, ".")
	raw, err := jose.DecodeBase64(head)
	if err != nil {
		t.Fatal(err)
	}
	header := map[string]any{}
	if err := json.Unmarshal(raw, &header); err != nil {
		t.Fatal(err)
	}
	return josetest.Base64([]byte(josetest.JSON(t, changed(header, change)))) + "." + rest
}

func writePEM(t testing.TB, keys ...any) string {
	t.Helper()
	var out []byte
	for _, k := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	}
	return writeKeyFile(t, out)
}

func writeKeyFile(t testing.TB, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "private")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func newEC(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newRSA(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealedAccepted(t *testing.T) {
	issuer, rsaKey, ec256, ec384 := josetest.New(t, "k1", "ES256"), newRSA(t, 2048), newEC(t, elliptic.P256()), newEC(t, elliptic.P384())
	file := writePEM(t, rsaKey, ec256, ec384)
	a := newFromFile(t, func(c *Config) { c.DecryptionKeysFiles = []string{file} }, issuer)
	signed := issuer.Sign(t, issuer.Header(), claims(testIssuer, nil))
	for _, enc := range []string{"A128GCM", "A256GCM", "A128CBC-HS256", "A256CBC-HS512"} {
		for name, token := range map[string]string{
			"RSA-OAEP-256":   seal(t, &rsaKey.PublicKey, "RSA-OAEP-256", enc, signed, nil),
			"ECDH-ES":        seal(t, &ec256.PublicKey, "ECDH-ES", enc, signed, nil),
			"ECDH-ES+A256KW": seal(t, &ec384.PublicKey, "ECDH-ES+A256KW", enc, signed, map[string]any{"kid": "any", "typ": "at+jwt"}),
		} {
			for range 2 {
				if id, err := present(t, a, token); err != nil || id.Subject != "alice" || id.TokenHeader["kid"] != "k1" {
					t.Errorf("%s %s: %v, %v", name, enc, id, err)
				}
			}
		}
	}
	if _, err := present(t, a, signed); err != nil {
		t.Errorf("the token that is only signed: %v", err)
	}
}

// TestSealedRefused has a row for each way to make an encrypted token count for
// what it is not, or cost more than it should.
func TestSealedRefused(t *testing.T) {
	issuer, stranger := josetest.New(t, "k1", "ES256"), josetest.New(t, "k1", "ES256")
	rsaKey, ec, other := newRSA(t, 2048), newEC(t, elliptic.P256()), newEC(t, elliptic.P256())
	file := writePEM(t, rsaKey, ec)
	a := newFromFile(t, func(c *Config) { c.DecryptionKeysFiles = []string{file} }, issuer)
	signed := issuer.Sign(t, issuer.Header(), claims(testIssuer, nil))
	oaep := func(text string, header map[string]any, options ...jwe.EncryptOption) string {
		return seal(t, &rsaKey.PublicKey, "RSA-OAEP-256", "A256GCM", text, header, options...)
	}
	good := oaep(signed, nil)
	ecdh := seal(t, &ec.PublicKey, "ECDH-ES", "A256GCM", signed, nil)
	parts := func(token string, at int, text string) string {
		p := strings.Split(token, ".")
		p[at] = text
		return strings.Join(p, ".")
	}
	secret := make([]byte, 32)
	for _, tt := range []struct {
		name, token string
	}{
		{"RSA1_5", seal(t, &rsaKey.PublicKey, "RSA1_5", "A256GCM", signed, nil)},
		{"RSA-OAEP with SHA-1", seal(t, &rsaKey.PublicKey, "RSA-OAEP", "A256GCM", signed, nil)},
		{"dir", seal(t, secret, "dir", "A256GCM", signed, nil)},
		{"A256KW", seal(t, secret, "A256KW", "A256GCM", signed, nil)},
		{"PBES2", seal(t, secret, "PBES2-HS256+A128KW", "A256GCM", signed, nil)},
		{"PBES2 with many rounds", withHeader(t, good, map[string]any{"alg": "PBES2-HS256+A128KW", "p2c": 2147483647, "p2s": "AAAAAAAAAAA"})},
		{"p2c with another alg", withHeader(t, good, map[string]any{"p2c": 2147483647})},
		{"ECDH-ES+A128KW", seal(t, &ec.PublicKey, "ECDH-ES+A128KW", "A256GCM", signed, nil)},
		{"A192GCM", seal(t, &rsaKey.PublicKey, "RSA-OAEP-256", "A192GCM", signed, nil)},
		{"compressed", oaep(signed, nil, jwe.WithCompress(jwa.Deflate))},
		{"decompression bomb", oaep(strings.Repeat("A", 1<<20), nil, jwe.WithCompress(jwa.Deflate))},
		{"too long", oaep(strings.Repeat("A", 17<<10), nil)},
		{"crit", withHeader(t, good, map[string]any{"crit": []string{"exp"}})},
		{"jku", withHeader(t, good, map[string]any{"jku": "https://evil.example"})},
		{"jwk", withHeader(t, good, map[string]any{"jwk": map[string]any{}})},
		{"no cty", oaep(signed, map[string]any{"cty": nil})},
		{"another cty", oaep(signed, map[string]any{"cty": "text/plain"})},
		{"kid is a number", withHeader(t, good, map[string]any{"kid": 1})},
		{"alg is missing", withHeader(t, good, map[string]any{"alg": nil})},
		{"enc is missing", withHeader(t, good, map[string]any{"enc": nil})},
		{"changed header", withHeader(t, good, map[string]any{"kid": "x"})},
		{"header is no object", parts(good, 0, josetest.Base64([]byte("[]")))},
		{"no encrypted key", parts(good, 1, "")},
		{"short initialization vector", parts(good, 2, josetest.Base64(make([]byte, 8)))},
		{"no initialization vector", parts(good, 2, "")},
		{"no ciphertext", parts(good, 3, "")},
		{"other ciphertext", parts(good, 3, josetest.Base64([]byte(signed)))},
		{"short tag", parts(good, 4, josetest.Base64(make([]byte, 4)))},
		{"tag of zeros", parts(good, 4, josetest.Base64(make([]byte, 16)))},
		{"padding", good + "="},
		{"line break", good + "\n"},
		{"for another key", seal(t, &other.PublicKey, "ECDH-ES", "A256GCM", signed, nil)},
		{"ephemeral key off the curve", withHeader(t, ecdh, map[string]any{"epk": map[string]any{"kty": "EC", "crv": "P-256", "x": josetest.Base64(secret), "y": josetest.Base64(secret)}})},
		{"ephemeral key of another curve", withHeader(t, ecdh, map[string]any{"epk": josetest.New(t, "", "ES384").Public()})},
		{"ephemeral key with a private part", withHeader(t, ecdh, map[string]any{"epk": map[string]any{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d": "AA"}})},
		{"ephemeral key is text", withHeader(t, ecdh, map[string]any{"epk": "x"})},
		{"no ephemeral key", withHeader(t, ecdh, map[string]any{"epk": nil})},
		{"ephemeral key without need", withHeader(t, good, map[string]any{"epk": issuer.Public()})},
		{"ECDH-ES with an encrypted key", parts(ecdh, 1, josetest.Base64(make([]byte, 40)))},
		{"claims without a signature", oaep(josetest.JSON(t, claims(testIssuer, nil)), nil)},
		{"inside: alg none", oaep(josetest.Base64([]byte(`{"alg":"none"}`))+"."+josetest.Base64([]byte(josetest.JSON(t, claims(testIssuer, nil))))+".", nil)},
		{"inside: signed by somebody else", oaep(stranger.Sign(t, stranger.Header(), claims(testIssuer, nil)), nil)},
		{"inside: another issuer", oaep(issuer.Sign(t, issuer.Header(), claims("https://other.example", nil)), nil)},
		{"inside: another audience", oaep(issuer.Sign(t, issuer.Header(), claims(testIssuer, map[string]any{"aud": "x"})), nil)},
		{"inside: expired", oaep(issuer.Sign(t, issuer.Header(), claims(testIssuer, map[string]any{"exp": testNow.Unix() - 3600})), nil)},
		{"inside: encrypted again", oaep(good, nil)},
		{"JSON serialization", josetest.JSON(t, map[string]any{"protected": "e30", "ciphertext": "AA"})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, err := present(t, a, tt.token)
			if id != nil || !errors.Is(err, authn.ErrInvalid) && !errors.Is(err, authn.ErrForeign) {
				t.Errorf("got %v, %v, want ErrInvalid or ErrForeign", id, err)
			}
		})
	}
	if _, err := present(t, a, good); err != nil {
		t.Errorf("the good token after all these: %v", err)
	}
	without := newFromFile(t, nil, issuer)
	if _, err := present(t, without, good); !errors.Is(err, authn.ErrForeign) {
		t.Errorf("without a private key: %v, want ErrForeign", err)
	}
}

// TestSealedIsLimited: whoever sends what cannot be decrypted, or what nobody
// signed, is kept away like a forger.
func TestSealedIsLimited(t *testing.T) {
	issuer, ec, other := josetest.New(t, "k1", "ES256"), newEC(t, elliptic.P256()), newEC(t, elliptic.P256())
	file := writePEM(t, ec)
	for name, token := range map[string]string{
		"for another key": seal(t, &other.PublicKey, "ECDH-ES", "A256GCM", "x", nil),
		"garbage inside":  seal(t, &ec.PublicKey, "ECDH-ES", "A256GCM", "x", nil),
	} {
		a := newFromFile(t, func(c *Config) {
			c.DecryptionKeysFiles, c.VerificationLimit.Burst, c.VerificationLimit.Failures = []string{file}, 2, 1
		}, issuer)
		var err error
		for range 3 {
			_, err = present(t, a, token)
		}
		if !errors.Is(err, authn.ErrTooMany) {
			t.Errorf("%s: got %v, want ErrTooMany", name, err)
		}
	}
}

// TestOpenerKeys: JWKs with their kid, new keys in the file, and files that are no
// good.
func TestOpenerKeys(t *testing.T) {
	issuer, first, second := josetest.New(t, "k1", "ES256"), newEC(t, elliptic.P256()), newEC(t, elliptic.P256())
	asJWK := func(kid string, key any) jwk.Key {
		k, err := jwk.FromRaw(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Set("kid", kid); err != nil {
			t.Fatal(err)
		}
		return k
	}
	file := writeKeyFile(t, []byte(josetest.JSON(t, asJWK("one", first))))
	a := newFromFile(t, func(c *Config) { c.DecryptionKeysFiles = []string{file} }, issuer)
	signed := issuer.Sign(t, issuer.Header(), claims(testIssuer, nil))
	token := func(kid string, key *ecdsa.PrivateKey) string {
		return seal(t, &key.PublicKey, "ECDH-ES", "A128GCM", signed, map[string]any{"kid": kid})
	}
	if _, err := present(t, a, token("one", first)); err != nil {
		t.Error(err)
	}
	if _, err := present(t, a, token("two", first)); !errors.Is(err, authn.ErrForeign) {
		t.Errorf("with another kid: %v, want ErrForeign", err)
	}
	set := josetest.JSON(t, map[string]any{"keys": []any{asJWK("one", first), asJWK("two", second)}})
	if err := os.WriteFile(file, []byte(set), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := present(t, a, token("two", second)); err != nil {
		t.Errorf("after the reload: %v", err)
	}
	for name, data := range map[string]string{
		"empty": "", "text": "secret", "no keys": `{"keys":[]}`,
		"public key":    josetest.JSON(t, issuer.JWK()),
		"shared secret": `{"kty":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"}`,
		"short RSA":     josetest.JSON(t, asJWK("", newShortRSA(t))),
	} {
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := a.Reload(t.Context()); err == nil || strings.Contains(err.Error(), "c2Vjc") {
			t.Errorf("%s: got %v, want an error that does not tell the key", name, err)
		}
		if _, err := present(t, a, token("two", second)); err != nil {
			t.Errorf("%s: the keys that were read before are gone: %v", name, err)
		}
	}
}

// newShortRSA is a key that no issuer should encrypt for.
func newShortRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
