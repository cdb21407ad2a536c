package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// Signer signs with the gateway's own key to say who it is (RFC 7523 section 2.2).
type Signer struct {
	key crypto.Signer
	alg jwa.SignatureAlgorithm
}

// NewSigner reads a PEM private key: PKCS #8, or the older forms of RSA and EC keys.
// The algorithm is the key's: RS256, ES256, ES384, ES512 or EdDSA.
func NewSigner(data []byte) (*Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("holds no PEM block")
	}
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("holds a PEM block %.40q and no private key that is not encrypted", block.Type)
	}
	if err != nil {
		return nil, err
	}
	return newSignerOf(key)
}

func newSignerOf(key any) (*Signer, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("RSA key has %d bits, fewer than %d", k.N.BitLen(), minRSABits)
		}
		return &Signer{key: k, alg: jwa.RS256}, nil
	case *ecdsa.PrivateKey:
		for _, a := range algorithms() {
			if a.fits(k.Public()) {
				return &Signer{key: k, alg: jwa.SignatureAlgorithm(a.Name)}, nil
			}
		}
	case ed25519.PrivateKey:
		return &Signer{key: k, alg: jwa.EdDSA}, nil
	}
	return nil, fmt.Errorf("holds a key that nothing is signed with here: %T", key)
}

// Assertion returns a JWT by which client says at audience who it is, good for a
// lifetime from now and once (RFC 7523 section 3).
func (s *Signer) Assertion(client, audience string, now time.Time, lifetime time.Duration) (string, error) {
	claims, err := json.Marshal(map[string]any{
		"iss": client, "sub": client, "aud": audience, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(lifetime).Unix(),
	})
	if err != nil {
		return "", err
	}
	signed, err := jws.Sign(claims, jws.WithKey(s.alg, s.key))
	if err != nil {
		return "", fmt.Errorf("sign assertion of client %s: %w", client, err)
	}
	return string(signed), nil
}
