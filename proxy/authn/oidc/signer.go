package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// signer signs the assertions by which the gateway proves who it is.
type signer struct {
	header string // encoded
	sum    func([]byte) ([]byte, error)
}

func loadSigner(file, kid string) (*signer, error) {
	data, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("read client key: %w", err)
	}
	key, err := parsePrivate(data)
	if err != nil {
		return nil, fmt.Errorf("client key of %s: %w", file, err)
	}
	s, err := newSigner(key, kid)
	if err != nil {
		return nil, fmt.Errorf("client key of %s: %w", file, err)
	}
	return s, nil
}

func parsePrivate(data []byte) (any, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("holds no PEM block")
	}
	switch block.Type {
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(block.Bytes)
	}
	return x509.ParsePKCS8PrivateKey(block.Bytes)
}

func newSigner(key any, kid string) (*signer, error) {
	s := &signer{}
	alg := ""
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < 2048 {
			return nil, errors.New("RSA key has less than 2048 bits")
		}
		alg = "RS256"
		s.sum = func(in []byte) ([]byte, error) { return k.Sign(rand.Reader, digest(crypto.SHA256, in), crypto.SHA256) }
	case ed25519.PrivateKey:
		alg = "EdDSA"
		s.sum = func(in []byte) ([]byte, error) { return k.Sign(nil, in, crypto.Hash(0)) }
	case *ecdsa.PrivateKey:
		hash := crypto.SHA256
		switch k.Curve {
		case elliptic.P256():
			alg = "ES256"
		case elliptic.P384():
			alg, hash = "ES384", crypto.SHA384
		default:
			return nil, errors.New("curve is neither P-256 nor P-384")
		}
		s.sum = func(in []byte) ([]byte, error) { return signECDSA(k, digest(hash, in)) }
	default:
		return nil, fmt.Errorf("cannot sign with a %T", key)
	}
	head := map[string]string{"alg": alg, "typ": "JWT"}
	if kid != "" {
		head["kid"] = kid
	}
	text, err := json.Marshal(head)
	s.header = base64.RawURLEncoding.EncodeToString(text)
	return s, err
}

// signECDSA writes both numbers with the length of the curve (RFC 7518 section 3.4).
func signECDSA(k *ecdsa.PrivateKey, sum []byte) ([]byte, error) {
	r, s, err := ecdsa.Sign(rand.Reader, k, sum)
	if err != nil {
		return nil, err
	}
	size := (k.Params().BitSize + 7) / 8
	out := make([]byte, 2*size)
	r.FillBytes(out[:size])
	s.FillBytes(out[size:])
	return out, nil
}

func digest(hash crypto.Hash, in []byte) []byte {
	h := hash.New()
	h.Write(in)
	return h.Sum(nil)
}

func (s *signer) sign(claims map[string]any) (string, error) {
	text, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	input := s.header + "." + base64.RawURLEncoding.EncodeToString(text)
	sum, err := s.sum([]byte(input))
	if err != nil {
		return "", fmt.Errorf("sign client assertion: %w", err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sum), nil
}
