package work

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
)

// keyBits is the length of the signing key: what issuers commonly use.
const keyBits = 2048

// Key signs tokens with RS256.
type Key struct {
	private *rsa.PrivateKey
	id      string
}

// NewKey makes a key.
func NewKey() (*Key, error) {
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	return &Key{private: private, id: "bench-1"}, nil
}

// Sign returns claims as a signed token (RFC 7515 section 7.1).
func (k *Key) Sign(claims map[string]any) (string, error) {
	head, err := segment(map[string]string{"alg": "RS256", "typ": "JWT", "kid": k.id})
	if err != nil {
		return "", err
	}
	body, err := segment(claims)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(head + "." + body))
	sig, err := rsa.SignPKCS1v15(rand.Reader, k.private, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return head + "." + body + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

func segment(v any) (string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode a token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

// Set returns the public half as a JWK set.
func (k *Key) Set() map[string]any {
	enc := base64.RawURLEncoding
	return map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": k.id,
		"n": enc.EncodeToString(k.private.N.Bytes()),
		"e": enc.EncodeToString(big.NewInt(int64(k.private.E)).Bytes()),
	}}}
}
