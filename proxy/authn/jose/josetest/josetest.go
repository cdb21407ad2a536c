// Package josetest makes keys, key sets, signed tokens and issuers for tests. It signs with the
// standard library, so that what is tested and what tests have no code in common.
package josetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"sync"
	"testing"
)

// Signer is one private key of an issuer.
type Signer struct {
	KeyID, Algorithm string
	Private          any // *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey, []byte
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

// RSAKeys returns two keys of 2048 bits, the same at each call.
func RSAKeys() []*rsa.PrivateKey { return rsaKeys() }

// New makes a key for an algorithm by its name in JOSE. All RSA keys are the first of
// RSAKeys, all shared secrets the same for a kid.
func New(t testing.TB, kid, alg string) *Signer {
	t.Helper()
	s := &Signer{KeyID: kid, Algorithm: alg}
	var err error
	switch alg {
	case "ES256":
		s.Private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		s.Private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		s.Private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, s.Private, err = ed25519.GenerateKey(rand.Reader)
	case "HS256", "HS384", "HS512":
		s.Private = []byte(kid + "-a shared secret that is at least as long as sixty-four bytes, for HS512")
	default:
		s.Private = rsaKeys()[0]
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// JWK returns the public JWK.
func (s *Signer) JWK() map[string]any {
	m := map[string]any{"kid": s.KeyID, "alg": s.Algorithm, "use": "sig"}
	switch k := s.Private.(type) {
	case *rsa.PrivateKey:
		m["kty"], m["n"], m["e"] = "RSA", Base64(k.N.Bytes()), Base64(big.NewInt(int64(k.E)).Bytes())
	case *ecdsa.PrivateKey:
		point, _ := k.PublicKey.Bytes()
		half := (len(point) - 1) / 2
		m["kty"], m["crv"], m["x"], m["y"] = "EC", k.Curve.Params().Name, Base64(point[1:1+half]), Base64(point[1+half:])
	case ed25519.PrivateKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", Base64(k.Public().(ed25519.PublicKey))
	case []byte:
		m["kty"], m["k"] = "oct", Base64(k)
	}
	return m
}

// Public returns the members of JWK that are the key itself, as a proof has it (RFC 9449
// section 4.2).
func (s *Signer) Public() map[string]any {
	jwk := s.JWK()
	for _, name := range []string{"kid", "alg", "use"} {
		delete(jwk, name)
	}
	return jwk
}

// Thumbprint returns the thumbprint of the public key (RFC 7638) with SHA-256, in base64url.
func (s *Signer) Thumbprint(t testing.TB) string {
	t.Helper()
	sum := sha256.Sum256([]byte(JSON(t, s.Public()))) // in the order of the names, without white space
	return Base64(sum[:])
}

// Base64 encodes as the parts of a token are: base64url without padding.
func Base64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Header returns the JOSE header of an access token.
func (s *Signer) Header() map[string]any {
	return map[string]any{"alg": s.Algorithm, "kid": s.KeyID, "typ": "at+jwt"}
}

// Sign returns a token of a header and claims that JSON encodes.
func (s *Signer) Sign(t testing.TB, header, claims any) string {
	t.Helper()
	return s.SignText(t, JSON(t, header), JSON(t, claims))
}

// JSON encodes v; a string is taken for JSON already.
func JSON(t testing.TB, v any) string {
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

// SignText is Sign of texts, which need not be JSON.
func (s *Signer) SignText(t testing.TB, header, claims string) string {
	t.Helper()
	input := Base64([]byte(header)) + "." + Base64([]byte(claims))
	return input + "." + Base64(s.Signature(t, input))
}

// Signature returns the signature of input as RFC 7515 spells it, not encoded.
func (s *Signer) Signature(t testing.TB, input string) []byte {
	t.Helper()
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[s.Algorithm[2:]]
	var digest []byte
	if hash != 0 {
		h := hash.New()
		h.Write([]byte(input))
		digest = h.Sum(nil)
	}
	var sig []byte
	var err error
	switch k := s.Private.(type) {
	case *rsa.PrivateKey:
		var opts crypto.SignerOpts = hash
		if strings.HasPrefix(s.Algorithm, "PS") {
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

// JWKS returns the key set of signers.
func JWKS(t testing.TB, signers ...*Signer) string {
	t.Helper()
	keys := []any{}
	for _, s := range signers {
		keys = append(keys, s.JWK())
	}
	return JSON(t, map[string]any{"keys": keys})
}
