package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// signer is one private key of an issuer. It signs with the standard library, so
// that what is tested and what tests have no code in common.
type signer struct {
	kid, alg string
	private  any // *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey, []byte
}

var rsaKeys = sync.OnceValue(func() []*rsa.PrivateKey { // generating one takes a while
	var keys []*rsa.PrivateKey
	for range 2 {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys = append(keys, k)
	}
	return keys
})

func newSigner(t testing.TB, kid, alg string) *signer {
	t.Helper()
	s := &signer{kid: kid, alg: alg}
	var err error
	switch alg {
	case "ES256":
		s.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		s.private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		s.private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, s.private, err = ed25519.GenerateKey(rand.Reader)
	case "HS256", "HS384", "HS512":
		s.private = []byte(kid + "-a shared secret that is at least as long as sixty-four bytes, for HS512")
	default:
		s.private = rsaKeys()[0]
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// jwk returns the public JWK.
func (s *signer) jwk() map[string]any {
	m := map[string]any{"kid": s.kid, "alg": s.alg, "use": "sig"}
	switch k := s.private.(type) {
	case *rsa.PrivateKey:
		m["kty"], m["n"], m["e"] = "RSA", b64(k.N.Bytes()), b64(big.NewInt(int64(k.E)).Bytes())
	case *ecdsa.PrivateKey:
		point, _ := k.PublicKey.Bytes()
		half := (len(point) - 1) / 2
		m["kty"], m["crv"], m["x"], m["y"] = "EC", k.Curve.Params().Name, b64(point[1:1+half]), b64(point[1+half:])
	case ed25519.PrivateKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", b64(k.Public().(ed25519.PublicKey))
	case []byte:
		m["kty"], m["k"] = "oct", b64(k)
	}
	return m
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// header returns the JOSE header of an access token.
func (s *signer) header() map[string]any {
	return map[string]any{"alg": s.alg, "kid": s.kid, "typ": "at+jwt"}
}

func (s *signer) sign(t testing.TB, header, claims any) string {
	t.Helper()
	return s.signText(t, mustJSON(t, header), mustJSON(t, claims))
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	if text, ok := v.(string); ok {
		return text
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (s *signer) signText(t testing.TB, header, claims string) string {
	t.Helper()
	input := b64([]byte(header)) + "." + b64([]byte(claims))
	return input + "." + b64(s.signature(t, input))
}

func (s *signer) signature(t testing.TB, input string) []byte {
	t.Helper()
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[s.alg[2:]]
	var digest []byte
	if hash != 0 {
		h := hash.New()
		h.Write([]byte(input))
		digest = h.Sum(nil)
	}
	var sig []byte
	var err error
	switch k := s.private.(type) {
	case *rsa.PrivateKey:
		var opts crypto.SignerOpts = hash
		if strings.HasPrefix(s.alg, "PS") {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		}
		sig, err = k.Sign(rand.Reader, digest, opts)
	case *ecdsa.PrivateKey:
		var r, v *big.Int
		if r, v, err = ecdsa.Sign(rand.Reader, k, digest); err == nil {
			size := (k.Curve.Params().BitSize + 7) / 8
			sig = append(r.FillBytes(make([]byte, size)), v.FillBytes(make([]byte, size))...)
		}
	case ed25519.PrivateKey:
		sig = ed25519.Sign(k, []byte(input))
	case []byte:
		mac := hmac.New(hash.New, k)
		mac.Write([]byte(input))
		sig = mac.Sum(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func jwks(t testing.TB, signers ...*signer) string {
	t.Helper()
	keys := []any{}
	for _, s := range signers {
		keys = append(keys, s.jwk())
	}
	return mustJSON(t, map[string]any{"keys": keys})
}

// issuer is a real HTTP server with metadata and a key set that tests replace.
type issuer struct {
	*httptest.Server
	fetches atomic.Int64 // of the key set
	keys    atomic.Value // http.HandlerFunc
}

func newIssuer(t testing.TB, signers ...*signer) *issuer {
	t.Helper()
	is := &issuer{}
	is.publish(t, signers...)
	mux := http.NewServeMux()
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		is.fetches.Add(1)
		is.keys.Load().(http.HandlerFunc)(w, r)
	})
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, is.URL, is.URL+"/keys")
	})
	is.Server = httptest.NewServer(mux)
	t.Cleanup(is.Close)
	return is
}

// publish replaces the key set.
func (is *issuer) publish(t testing.TB, signers ...*signer) {
	t.Helper()
	body := jwks(t, signers...)
	is.answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
}

func (is *issuer) answer(f http.HandlerFunc) { is.keys.Store(f) }

// config returns the configuration for the issuer's tokens.
func (is *issuer) config() Config {
	c := Default()
	c.Issuer, c.Audiences, c.JWKSURL = is.URL, []string{"orders-api"}, is.URL+"/keys"
	return c
}

const testIssuer = "https://idp.example"

// testNow is the time that tokens are judged at.
var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// claims returns good claims of issuer iss, changed by change; nil removes one.
func claims(iss string, change map[string]any) map[string]any {
	c := map[string]any{
		"iss": iss, "aud": "orders-api", "sub": "alice", "scope": "orders.read orders.write",
		"iat": testNow.Add(-time.Minute).Unix(), "exp": testNow.Add(5 * time.Minute).Unix(),
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// newFromFile makes an authenticator of testIssuer with the keys in a file.
func newFromFile(t testing.TB, change func(*Config), signers ...*signer) *Authenticator {
	t.Helper()
	return newWith(t, Deps{}, change, signers...)
}

func newWith(t testing.TB, deps Deps, change func(*Config), signers ...*signer) *Authenticator {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, []byte(jwks(t, signers...)), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Default()
	c.Issuer, c.Audiences, c.JWKSFile = testIssuer, []string{"orders-api"}, file
	if change != nil {
		change(&c)
	}
	a, err := New("corp", c, deps)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// present sends token as a request's only credential.
func present(t testing.TB, a authn.Authenticator, token string) (*authz.Identity, error) {
	t.Helper()
	return presentAt(t, a, token, testNow)
}

func presentAt(t testing.TB, a authn.Authenticator, token string, now time.Time) (*authz.Identity, error) {
	t.Helper()
	return a.Authenticate(t.Context(), &authn.Request{Authorization: "Bearer " + token, Now: now})
}
