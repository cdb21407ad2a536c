package identitytoken

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

const (
	es256 = "ES256"
	edDSA = "EdDSA" // RFC 8037
)

// key is a private key with what is published of it. It is immutable.
type key struct {
	id      string // RFC 7638 thumbprint of the public key
	alg     string
	private any             // *ecdsa.PrivateKey of P-256 or ed25519.PrivateKey
	jwk     json.RawMessage // the public key (RFC 7517)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// generate makes a key. The algorithm is one of ours.
func generate(alg string) (*key, error) {
	if alg == edDSA {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make a signing key: %w", err)
		}
		return newKey(private)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	return newKey(private)
}

func newKey(private any) (*key, error) {
	k := &key{private: private}
	var members string // the required ones in lexical order, as RFC 7638 section 3.2 hashes them
	switch p := private.(type) {
	case *ecdsa.PrivateKey:
		if p.Curve != elliptic.P256() {
			return nil, errors.New("an EC key must be of P-256")
		}
		point, err := p.PublicKey.Bytes() // 4, x, y
		if err != nil {
			return nil, err
		}
		k.alg = es256
		members = `"crv":"P-256","kty":"EC","x":"` + encode(point[1:33]) + `","y":"` + encode(point[33:]) + `"`
	case ed25519.PrivateKey:
		public, ok := p.Public().(ed25519.PublicKey)
		if !ok {
			return nil, errors.New("an Ed25519 key has no public half")
		}
		k.alg = edDSA
		members = `"crv":"Ed25519","kty":"OKP","x":"` + encode(public) + `"`
	default:
		return nil, fmt.Errorf("a signing key must be of P-256 or Ed25519, not %T", private)
	}
	sum := sha256.Sum256([]byte("{" + members + "}"))
	k.id = encode(sum[:])
	k.jwk = json.RawMessage("{" + members + `,"kid":"` + k.id + `","alg":"` + k.alg + `","use":"sig"}`)
	return k, nil
}

// sign returns the signature of input in the form of RFC 7518 section 3.4 or RFC
// 8037 section 3.1.
func (k *key) sign(input string) ([]byte, error) {
	switch p := k.private.(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(p, []byte(input)), nil
	case *ecdsa.PrivateKey:
		sum := sha256.Sum256([]byte(input))
		r, s, err := ecdsa.Sign(rand.Reader, p, sum[:])
		if err != nil {
			return nil, err
		}
		out := make([]byte, 64)
		r.FillBytes(out[:32])
		s.FillBytes(out[32:])
		return out, nil
	}
	return nil, errors.New("no private key")
}

// readKeys reads all private keys of a PEM file, in order.
func readKeys(file string) ([]*key, error) {
	data, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	var out []*key
	for n := 1; ; n++ {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue // EC PARAMETERS, which openssl writes too
		}
		k, err := parseKey(block)
		if err != nil {
			return nil, fmt.Errorf("read signing keys of %s: block %d: %w", file, n, err)
		}
		out = append(out, k)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("read signing keys: %s holds no PEM private key", file)
	}
	if len(out) > maxKeys {
		return nil, fmt.Errorf("read signing keys: %s holds more than %d", file, maxKeys)
	}
	return out, nil
}

const maxKeys = 16

func parseKey(block *pem.Block) (*key, error) {
	if block.Type == "EC PRIVATE KEY" {
		private, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("not an EC private key (SEC 1)")
		}
		return newKey(private)
	}
	if block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s is not read; give PKCS #8 without a password", block.Type)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a private key in PKCS #8")
	}
	return newKey(private)
}
