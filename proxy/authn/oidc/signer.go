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

// signer signs what the gateway says of itself: the assertions by which it proves who
// it is, and its authorization requests.
type signer struct {
	alg    string
	header string // encoded
	sum    func([]byte) ([]byte, error)
}

// loadSigners returns the ways in which the key in a file signs JWTs of a type, the
// usual one first. What is the key's name in errors.
func loadSigners(what, file, typ, kid string) ([]*signer, error) {
	key, err := loadPrivate(what, file)
	if err != nil {
		return nil, err
	}
	all, err := newSigners(key, typ, kid)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", what, file, err)
	}
	return all, nil
}

func loadPrivate(what, file string) (any, error) {
	data, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	key, err := parsePrivate(data)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", what, file, err)
	}
	return key, nil
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

func newSigners(key any, typ, kid string) ([]*signer, error) {
	head := map[string]string{"typ": typ}
	if kid != "" {
		head["kid"] = kid
	}
	return newSignersOf(key, head)
}

// newSignersOf is newSigners with a header, to which the algorithm is added.
func newSignersOf(key any, head map[string]string) ([]*signer, error) {
	all, err := waysToSign(key)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		head["alg"] = s.alg
		text, err := json.Marshal(head)
		if err != nil {
			return nil, err
		}
		s.header = base64.RawURLEncoding.EncodeToString(text)
	}
	return all, nil
}

func waysToSign(key any) ([]*signer, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < 2048 {
			return nil, errors.New("RSA key has less than 2048 bits")
		}
		// RFC 7518 section 3.5: the salt is as long as the hash.
		pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		return []*signer{
			{alg: "RS256", sum: func(in []byte) ([]byte, error) { return k.Sign(rand.Reader, digest(crypto.SHA256, in), crypto.SHA256) }},
			{alg: "PS256", sum: func(in []byte) ([]byte, error) { return k.Sign(rand.Reader, digest(crypto.SHA256, in), pss) }},
		}, nil
	case ed25519.PrivateKey:
		return []*signer{{alg: "EdDSA", sum: func(in []byte) ([]byte, error) { return k.Sign(nil, in, crypto.Hash(0)) }}}, nil
	case *ecdsa.PrivateKey:
		switch k.Curve {
		case elliptic.P256():
			return []*signer{{alg: "ES256", sum: func(in []byte) ([]byte, error) { return signECDSA(k, digest(crypto.SHA256, in)) }}}, nil
		case elliptic.P384():
			return []*signer{{alg: "ES384", sum: func(in []byte) ([]byte, error) { return signECDSA(k, digest(crypto.SHA384, in)) }}}, nil
		}
		return nil, errors.New("curve is neither P-256 nor P-384")
	}
	return nil, fmt.Errorf("cannot sign with a %T", key)
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
		return "", fmt.Errorf("sign: %w", err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sum), nil
}
