package jose

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/sallyport/sallyport/proxy/authn"
)

const (
	// MaxKeySet bounds a key set in bytes.
	MaxKeySet = 1 << 20
	maxKeys   = 100
	// maxTries bounds the signatures checked for a token that names no key.
	maxTries = 8
)

// ErrUnknownKey says that the set has no key that the token could be signed with. A newer
// set may.
var ErrUnknownKey = errors.New("key set has no key for this token")

// KeySet is the keys of one issuer. It is immutable; key sets are never merged.
type KeySet struct {
	keys    []*Key          // in the order of the document
	byID    map[string]*Key // those with a kid
	Ignored []string        // why keys were left out, for the log
}

// Key is one verification key.
type Key struct {
	ID        string
	Algorithm string // from the key set; empty: every algorithm that fits
	Material  any    // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey, or []byte of a shared secret
	print     [sha256.Size]byte

	Thumbprint []byte // RFC 7638 with SHA-256

	// retired is set when a newer key set no longer has the key. Cached tokens
	// hold their key, so they end with it, and those of other keys stay.
	retired atomic.Bool
}

// Retire says that a newer key set no longer has k.
func (k *Key) Retire() { k.retired.Store(true) }

// Good reports whether k is in the issuer's newest key set, for all that is known.
func (k *Key) Good() bool { return !k.retired.Load() }

// ParseKeySet reads a JWK set (RFC 7517 section 5). Keys of unknown type, for
// encryption, or for an unknown algorithm are ignored, as section 5 says; a
// weak, private, malformed or duplicate key refuses the whole set, because a set
// that has one is not the work of a sound issuer. Shared secrets are taken only
// when secrets is true, and then alone.
func ParseKeySet(data []byte, secrets bool) (*KeySet, error) {
	if len(data) > MaxKeySet {
		return nil, fmt.Errorf("key set is larger than %d bytes", MaxKeySet)
	}
	doc, err := Object(data)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	members, ok := doc["keys"].([]any)
	if !ok {
		return nil, errors.New(`key set has no array "keys"`)
	}
	if len(members) > maxKeys {
		return nil, fmt.Errorf("key set has more than %d keys", maxKeys)
	}
	return newKeySet(members, secrets)
}

func newKeySet(members []any, secrets bool) (*KeySet, error) {
	set := &KeySet{byID: make(map[string]*Key, len(members))}
	for i, m := range members {
		jwk, ok := m.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("key %d of the set is not an object", i)
		}
		k, why, err := parseKey(jwk, secrets)
		switch {
		case err != nil:
			return nil, fmt.Errorf("key %d of the set: %w", i, err)
		case k == nil:
			set.Ignored = append(set.Ignored, fmt.Sprintf("key %d: %s", i, why))
		default:
			if err := set.add(k); err != nil {
				return nil, err
			}
		}
	}
	if len(set.keys) == 0 {
		return nil, errors.New("key set has no key that could verify a signature")
	}
	return set, set.checkSymmetry()
}

// Len returns the number of keys.
func (s *KeySet) Len() int { return len(s.keys) }

// Find returns the key with that kid, or with that thumbprint in base64url; nil if the
// set has none.
func (s *KeySet) Find(id string) *Key {
	found := s.byID[id]
	for i := 0; found == nil && i < len(s.keys); i++ {
		if base64.RawURLEncoding.EncodeToString(s.keys[i].Thumbprint) == id {
			found = s.keys[i]
		}
	}
	return found
}

func (s *KeySet) add(k *Key) error {
	if _, dup := s.byID[k.ID]; dup {
		return fmt.Errorf("key set has two keys with kid %.64q", k.ID)
	}
	if k.ID != "" {
		s.byID[k.ID] = k
	}
	s.keys = append(s.keys, k)
	return nil
}

// checkSymmetry refuses a set of shared secrets and public keys together: such a
// set was published by mistake, or the public keys are somebody's secrets.
func (s *KeySet) checkSymmetry() error {
	secrets := 0
	for _, k := range s.keys {
		if _, ok := k.Material.([]byte); ok {
			secrets++
		}
	}
	if secrets != 0 && secrets != len(s.keys) {
		return errors.New("key set mixes shared secrets and public keys")
	}
	return nil
}

// Verify returns the key of the set that signed t, or ErrUnknownKey, or why the
// signature does not hold. The algorithm is the one the token names, if it is
// allowed and the key is one for it.
func (s *KeySet) Verify(t *JWS, allowed map[string]Algorithm) (*Key, error) {
	alg, ok := allowed[t.Algorithm]
	if !ok {
		return nil, fmt.Errorf("algorithm %.64q is not accepted", t.Algorithm)
	}
	if !t.HasKeyID {
		return s.verifyUnnamed(t, alg)
	}
	k := s.byID[t.KeyID]
	if k == nil {
		return nil, ErrUnknownKey
	}
	return k, k.verify(t, alg)
}

// verifyUnnamed tries the keys that fit, for a token without kid.
func (s *KeySet) verifyUnnamed(t *JWS, alg Algorithm) (*Key, error) {
	tries := 0
	for _, k := range s.keys {
		if !k.accepts(alg) {
			continue
		}
		if k.verify(t, alg) == nil {
			return k, nil
		}
		if tries++; tries == maxTries {
			break
		}
	}
	if tries == 0 {
		return nil, ErrUnknownKey
	}
	return nil, authn.ErrSignature
}

// accepts reports whether k is for alg by its own word and by its type.
func (k *Key) accepts(alg Algorithm) bool {
	return (k.Algorithm == "" || k.Algorithm == alg.Name) && alg.fits(k.Material)
}

func (k *Key) verify(t *JWS, alg Algorithm) error {
	if !k.accepts(alg) {
		return fmt.Errorf("key %.64q is not one for %s", k.ID, alg.Name)
	}
	return alg.verify(k.Material, t.Input, t.Signature)
}

// Succeed makes s the follower of prev: keys that both have become one object,
// and it returns the keys that only prev had.
func (s *KeySet) Succeed(prev *KeySet) (gone []*Key) {
	if prev == nil {
		return nil
	}
	old := make(map[[sha256.Size]byte]*Key, len(prev.keys))
	for _, k := range prev.keys {
		old[k.print] = k
	}
	for i, k := range s.keys {
		o := old[k.print]
		if o == nil {
			continue
		}
		delete(old, k.print)
		s.keys[i] = o
		if o.ID != "" {
			s.byID[o.ID] = o
		}
	}
	for _, k := range old {
		gone = append(gone, k)
	}
	return gone
}
