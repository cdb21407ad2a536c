package httpsignature

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/keyring"
)

const (
	maxKeyFile = 64 << 10 // bytes
	minRSABits = 2048
	maxRSABits = 8192 // bounds the work that one signature costs
	// demandWait bounds how long a request waits for newer key sets, of all consumers
	// together.
	demandWait     = 2 * time.Second
	defaultRefresh = 5 * time.Minute
)

// key is one key with the one algorithm that its signatures have.
type key struct {
	algorithm string
	material  any // ed25519.PublicKey, *ecdsa.PublicKey, *rsa.PublicKey or []byte of a secret
	owner     *consumer
}

// consumer is who signs with a key.
type consumer struct {
	subject string
	scopes  []string
	claims  map[string]any
}

// source is a set of keys of one consumer.
type source struct {
	*keyring.Ring
	owner     *consumer
	algorithm string // of its RSA keys; empty: the default
}

// newConsumer copies the claims as JSON values, whatever YAML has beside them.
func newConsumer(c *Consumer) (*consumer, error) {
	text, err := json.Marshal(c.Claims)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	out := &consumer{subject: c.Subject, scopes: slices.Clone(c.Scopes)}
	return out, dec.Decode(&out.claims)
}

// readKeys reads the files of single keys.
func (a *Authenticator) readKeys() (map[string]*key, error) {
	out := map[string]*key{}
	var errs []error
	for i := range a.config.Consumers {
		for j := range a.config.Consumers[i].Keys {
			k := &a.config.Consumers[i].Keys[j]
			if k.KeyID == "" {
				continue
			}
			made, err := readKey(k)
			if err != nil {
				errs = append(errs, fmt.Errorf("key %q: %w", k.KeyID, err))
				continue
			}
			made.owner = a.consumers[i]
			out[k.KeyID] = made
		}
	}
	return out, errors.Join(errs...)
}

func readKey(k *Key) (*key, error) {
	name := k.PublicKeyFile + k.SecretFile
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	var material any
	if k.SecretFile != "" {
		material, err = parseSecret(data, k.SecretEncoding)
	} else {
		material, err = parsePublicKey(data)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	alg := algorithmOf(k.Algorithm, material)
	if alg == "" {
		return nil, fmt.Errorf("%s: is of type %T, and no key for algorithm %q", name, material, k.Algorithm)
	}
	return &key{algorithm: alg, material: material}, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	defer f.Close() //nolint:errcheck // nothing is written
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxKeyFile)
	}
	return data, nil
}

// parseSecret refuses what is no secret, or a public key in the wrong place. Bytes that are
// no text could end like a line.
func parseSecret(data []byte, encoding string) ([]byte, error) {
	secret := bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
	if encoding == "base64" {
		var err error
		if secret, err = base64.StdEncoding.Strict().DecodeString(string(secret)); err != nil {
			return nil, fmt.Errorf("secret is not base64: %w", err)
		}
	} else if bytes.ContainsFunc(secret, func(r rune) bool { return notPrintable(r) && r != '\n' && r != '\r' }) {
		return nil, errors.New("secret is not text; write it in base64 and say secret_encoding: base64")
	}
	switch {
	case len(secret) < minSecret:
		return nil, fmt.Errorf("secret has %d bytes, not %d or more; openssl rand -hex 32 makes one", len(secret), minSecret)
	case bytes.Contains(secret, []byte("-----BEGIN ")):
		return nil, errors.New("is PEM and no shared secret; whoever has a public key could sign with it")
	}
	return secret, nil
}

func parsePublicKey(data []byte) (any, error) {
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, errors.New("is not PEM")
	case block.Type != "PUBLIC KEY":
		return nil, fmt.Errorf("holds a %q, not a PUBLIC KEY; openssl pkey -pubout makes one of a private key", block.Type)
	case len(bytes.TrimSpace(rest)) != 0:
		return nil, errors.New("holds more than one key")
	}
	material, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	if k, ok := material.(*rsa.PublicKey); ok {
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits || k.E < 3 || k.E%2 == 0 || k.N.Bit(0) == 0 {
			return nil, fmt.Errorf("RSA key has %d bits and exponent %d; give one of %d to %d bits and an odd exponent from 3", bits, k.E, minRSABits, maxRSABits)
		}
	}
	return material, nil
}

func (a *Authenticator) newSources(name string, deps Deps) error {
	for i := range a.config.Consumers {
		for j, k := range a.config.Consumers[i].Keys {
			if k.KeyID != "" {
				continue
			}
			refresh := k.RefreshInterval
			if refresh == 0 {
				refresh = defaultRefresh
			}
			keys, err := keyring.New(name, keyring.Source{Issuer: k.JWKSFile + k.JWKSURL, File: k.JWKSFile, URL: k.JWKSURL, CAFile: k.CAFile, RefreshInterval: refresh},
				keyring.Deps{Logger: deps.Logger, Meter: deps.Meter, Now: deps.Now})
			if err != nil {
				return fmt.Errorf("consumers[%d].keys[%d]: %w", i, j, err)
			}
			a.sources = append(a.sources, source{keys, a.consumers[i], k.Algorithm})
		}
	}
	return nil
}

// find returns the keys of that name: the one that the configuration has, else those
// that the consumers' sets have. It is authn.ErrForeign if there is none, and
// authn.ErrUnavailable if that cannot be known now.
func (a *Authenticator) find(ctx context.Context, id string) ([]*key, error) {
	if k := (*a.keys.Load())[id]; k != nil {
		return []*key{k}, nil
	}
	var found []*key
	for i := range a.sources {
		if k := a.sources[i].Get(id); k != nil {
			found = append(found, a.sources[i].key(k))
		}
	}
	if found != nil {
		return found, nil
	}
	ctx, cancel := context.WithTimeout(ctx, demandWait)
	defer cancel()
	why := fmt.Errorf("%w: keyid %.64q is nobody's", authn.ErrForeign, id)
	for i := range a.sources {
		k, err := a.sources[i].Find(ctx, id)
		if err == nil {
			return []*key{a.sources[i].key(k)}, nil
		}
		if errors.Is(err, authn.ErrUnavailable) {
			why = err
		}
	}
	return nil, why
}

func (s *source) key(k *jose.Key) *key {
	return &key{algorithm: algorithmOfJWK(s.algorithm, k.Algorithm, k.Material), material: k.Material, owner: s.owner}
}
