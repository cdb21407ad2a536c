package jose

import (
	"errors"
	"fmt"
	"slices"
)

// ParseSelfSigned takes a JWS apart whose header brings the public key along, and verifies
// that this key signed it, by one of the algorithms. It shows that the sender has the
// key, and nothing about whose key it is.
func ParseSelfSigned(text string, algorithms []string) (*JWS, *Key, error) {
	refused := slices.DeleteFunc(refusedParameters(), func(name string) bool { return name == "jwk" })
	t, err := parseJWS(text, refused)
	if err != nil {
		return nil, nil, err
	}
	alg, ok := AlgorithmOf(t.Algorithm)
	if !ok || alg.Symmetric() || !slices.Contains(algorithms, t.Algorithm) {
		return nil, nil, fmt.Errorf("algorithm %.64q is not accepted", t.Algorithm)
	}
	k, err := ownKey(t)
	if err != nil {
		return nil, nil, err
	}
	return t, k, k.verify(t, alg)
}

// ownKey reads the key in the header.
func ownKey(t *JWS) (*Key, error) {
	members, ok := t.Header["jwk"].(map[string]any)
	if !ok {
		return nil, errors.New(`header has no "jwk" that is an object`)
	}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, there := members[name]; there {
			return nil, fmt.Errorf("jwk has the private member %q", name)
		}
	}
	k, why, err := parseKey(members, false)
	switch {
	case err != nil:
		return nil, fmt.Errorf("jwk: %w", err)
	case k == nil:
		return nil, fmt.Errorf("jwk is %s", why)
	}
	return k, nil
}
