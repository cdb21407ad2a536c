package jwt

import (
	"errors"
	"fmt"
	"slices"
)

// parseSelfSigned takes a JWS apart whose header brings the public key along, and verifies
// that this key signed it, by one of the algorithms. It shows that the sender has the
// key, and nothing about whose key it is.
func parseSelfSigned(text string, algorithms []string) (*compact, *key, error) {
	refused := slices.DeleteFunc(refusedParameters(), func(name string) bool { return name == "jwk" })
	t, err := parseJWS(text, refused)
	if err != nil {
		return nil, nil, err
	}
	alg, ok := algorithmOf(t.alg)
	if !ok || alg.symmetric() || !slices.Contains(algorithms, t.alg) {
		return nil, nil, fmt.Errorf("algorithm %.64q is not accepted", t.alg)
	}
	k, err := ownKey(t)
	if err != nil {
		return nil, nil, err
	}
	return t, k, k.verify(t, alg)
}

// ownKey reads the key in the header.
func ownKey(t *compact) (*key, error) {
	members, ok := t.header["jwk"].(map[string]any)
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
