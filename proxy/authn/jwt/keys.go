package jwt

import (
	"cmp"
	"context"
	"crypto"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
)

// KeySource is where a key set (RFC 7517) is: File or URL.
type KeySource struct {
	File            string // a set, or a single key
	URL             string
	CAFile          string        // PEM; verifies the server of URL instead of the system's authorities
	RefreshInterval time.Duration // between two fetches of URL
}

// PublicKey is a key of a key set.
type PublicKey struct {
	ID        string           // kid; empty: none
	Algorithm string           // alg, by its name in JOSE; empty: every one that fits
	Material  crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// Keys are the public keys of a key set, for mechanisms that verify other signatures
// than those of JWTs. They are fetched, checked and kept as an issuer's are; a set with
// a shared secret is refused, also from a file. It is safe for concurrent use.
type Keys struct {
	source  KeySource
	ring    *keyring
	fetcher *fetcher // nil for a file
}

// NewKeys makes the keys of the authenticator called name. It reads a file, and fetches
// nothing: that is for Prime and Run.
func NewKeys(name string, s KeySource, deps Deps) (*Keys, error) {
	c := Config{Issuer: s.File + s.URL, JWKSFile: s.File, JWKSURL: s.URL, CAFile: s.CAFile, RefreshInterval: s.RefreshInterval}
	ring, err := newKeyring(name, c.filled(), deps)
	if err != nil {
		return nil, err
	}
	k := &Keys{source: s, ring: ring}
	ring.secrets = false
	if s.File != "" {
		ring.load = func(context.Context) ([]byte, error) { return loadKeys(s.File) }
		return k, ring.refresh(context.Background())
	}
	if k.fetcher, err = newFetcher(c); err != nil {
		return nil, err
	}
	ring.load = k.fetcher.load
	return k, nil
}

// loadKeys reads a file and makes a set of a single key.
func loadKeys(name string) ([]byte, error) {
	data, err := loadFile(name)
	if err != nil {
		return nil, err
	}
	doc, err := jose.Object(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if _, set := doc["keys"]; doc["kty"] == nil || set {
		return data, nil
	}
	return slices.Concat([]byte(`{"keys":[`), data, []byte(`]}`)), nil
}

// Get returns the key with that kid, or with that thumbprint (RFC 7638 with SHA-256, in
// base64url); nil if the set has none.
func (k *Keys) Get(id string) *PublicKey {
	set := k.ring.current.Load()
	if set == nil || id == "" {
		return nil
	}
	found := set.Find(id)
	if found == nil {
		return nil
	}
	return &PublicKey{ID: found.ID, Algorithm: found.Algorithm, Material: found.Material}
}

// Find is Get that waits for a newer set if this one lacks the key and another may be
// had. The error is authn.ErrForeign if there is no such key, and authn.ErrUnavailable
// if that cannot be known now.
func (k *Keys) Find(ctx context.Context, id string) (*PublicKey, error) {
	if found := k.Get(id); found != nil {
		return found, nil
	}
	asked, waiting := k.ring.await(ctx, id)
	found := k.Get(id)
	if found != nil {
		return found, nil
	}
	if err := cmp.Or(waiting, k.ring.lastError()); err != nil {
		return nil, fmt.Errorf("%w: keyid %.64q: %w", authn.ErrUnavailable, id, err)
	}
	if asked {
		k.ring.remember(id)
	}
	return nil, fmt.Errorf("%w: key set has no key %.64q", authn.ErrForeign, id)
}

// Run keeps the set fresh until ctx ends, and returns nil then.
func (k *Keys) Run(ctx context.Context) error {
	if k.fetcher != nil {
		defer k.fetcher.client.Close()
	}
	return k.ring.run(ctx)
}

// Prime fetches the set once, if there is none.
func (k *Keys) Prime(ctx context.Context) error { return k.ring.prime(ctx) }

// Inherit takes over the set of prev if it comes from the same place. Call it before
// Prime and the first Find.
func (k *Keys) Inherit(prev *Keys) {
	if k.fetcher != nil && k.source == prev.source {
		k.ring.current.CompareAndSwap(nil, prev.ring.current.Load())
	}
}

// Files returns the files that Reload reads.
func (k *Keys) Files() []string {
	switch {
	case k.source.File != "":
		return []string{k.source.File}
	case k.source.CAFile != "":
		return []string{k.source.CAFile}
	}
	return nil
}

// Reload reads the files again. On error what was read before stays.
func (k *Keys) Reload(ctx context.Context) error {
	switch {
	case k.source.File != "":
		return k.ring.refresh(ctx)
	case k.source.CAFile != "":
		return k.fetcher.client.Reload()
	}
	return nil
}
