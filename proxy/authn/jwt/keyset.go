package jwt

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync/atomic"
)

const (
	maxKeySet = 1 << 20 // bytes
	maxKeys   = 100
	// maxTries bounds the signatures checked for a token that names no key.
	maxTries = 8
)

// errUnknownKey: the set has no key that the token could be signed with. A newer
// set may.
var errUnknownKey = errors.New("key set has no key for this token")

// keySet is the keys of one issuer. It is immutable; key sets are never merged.
type keySet struct {
	keys    []*key          // in the order of the document
	byID    map[string]*key // those with a kid
	ignored []string        // why keys were left out, for the log
}

// key is one verification key.
type key struct {
	id       string
	alg      string // from the key set; empty: every algorithm that fits
	material any    // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey, or []byte of a shared secret
	print    [sha256.Size]byte

	thumbprint []byte // RFC 7638 with SHA-256

	// retired is set when a newer key set no longer has the key. Cached tokens
	// hold their key, so they end with it, and those of other keys stay.
	retired atomic.Bool
}

// retire says that a newer key set no longer has k.
func (k *key) retire() { k.retired.Store(true) }

// good reports whether k is in the issuer's newest key set, for all that is known.
func (k *key) good() bool { return !k.retired.Load() }

// parseKeySet reads a JWK set (RFC 7517 section 5). Keys of unknown type, for
// encryption, or for an unknown algorithm are ignored, as section 5 says; a
// weak, private, malformed or duplicate key refuses the whole set, because a set
// that has one is not the work of a sound issuer. Shared secrets are taken only
// when secrets is true, and then alone.
func parseKeySet(data []byte, secrets bool) (*keySet, error) {
	if len(data) > maxKeySet {
		return nil, fmt.Errorf("key set is larger than %d bytes", maxKeySet)
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

func newKeySet(members []any, secrets bool) (*keySet, error) {
	set := &keySet{byID: make(map[string]*key, len(members))}
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
			set.ignored = append(set.ignored, fmt.Sprintf("key %d: %s", i, why))
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

// len returns the number of keys.
func (s *keySet) len() int { return len(s.keys) }

// find returns the key with that kid, or with that thumbprint in base64url; nil if the
// set has none.
func (s *keySet) find(id string) *key {
	found := s.byID[id]
	for i := 0; found == nil && i < len(s.keys); i++ {
		if base64.RawURLEncoding.EncodeToString(s.keys[i].thumbprint) == id {
			found = s.keys[i]
		}
	}
	return found
}

func (s *keySet) add(k *key) error {
	if _, dup := s.byID[k.id]; dup {
		return fmt.Errorf("key set has two keys with kid %.64q", k.id)
	}
	if k.id != "" {
		s.byID[k.id] = k
	}
	s.keys = append(s.keys, k)
	return nil
}

// checkSymmetry refuses a set of shared secrets and public keys together: such a
// set was published by mistake, or the public keys are somebody's secrets.
func (s *keySet) checkSymmetry() error {
	secrets := 0
	for _, k := range s.keys {
		if _, ok := k.material.([]byte); ok {
			secrets++
		}
	}
	if secrets != 0 && secrets != len(s.keys) {
		return errors.New("key set mixes shared secrets and public keys")
	}
	return nil
}

// verify returns the key of the set that signed t, or errUnknownKey, or why the
// signature does not hold. The algorithm is the one the token names, if it is
// allowed and the key is one for it.
func (s *keySet) verify(t *compact, allowed map[string]algorithm) (*key, error) {
	alg, ok := allowed[t.alg]
	if !ok {
		return nil, fmt.Errorf("algorithm %.64q is not accepted", t.alg)
	}
	if !t.hasKid {
		return s.verifyUnnamed(t, alg)
	}
	k := s.byID[t.kid]
	if k == nil {
		return nil, errUnknownKey
	}
	return k, k.verify(t, alg)
}

// verifyUnnamed tries the keys that fit, for a token without kid.
func (s *keySet) verifyUnnamed(t *compact, alg algorithm) (*key, error) {
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
		return nil, errUnknownKey
	}
	return nil, errSignature
}

// accepts reports whether k is for alg by its own word and by its type.
func (k *key) accepts(alg algorithm) bool {
	return (k.alg == "" || k.alg == alg.name) && alg.fits(k.material)
}

func (k *key) verify(t *compact, alg algorithm) error {
	if !k.accepts(alg) {
		return fmt.Errorf("key %.64q is not one for %s", k.id, alg.name)
	}
	return alg.verify(k.material, t.input, t.signature)
}

// succeed makes s the follower of prev: keys that both have become one object,
// and it returns the keys that only prev had.
func (s *keySet) succeed(prev *keySet) (gone []*key) {
	if prev == nil {
		return nil
	}
	old := make(map[[sha256.Size]byte]*key, len(prev.keys))
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
		if o.id != "" {
			s.byID[o.id] = o
		}
	}
	for _, k := range old {
		gone = append(gone, k)
	}
	return gone
}
