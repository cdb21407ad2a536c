package jwt

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/proxy/authn/dpop"
)

// OpenProof is a dpop.Opener: it returns what a JWS says that is signed by the
// public key in its own header (RFC 9449 section 4.2). What such a signature
// means rests on where that key is known from.
func OpenProof(text string, algorithms []string) (*dpop.Proof, error) {
	refused := slices.DeleteFunc(refusedParameters(), func(name string) bool { return name == "jwk" })
	t, err := parseJWS(text, refused)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(algorithms, t.alg) {
		return nil, fmt.Errorf("algorithm %.64q is not accepted", t.alg)
	}
	alg, ok := algorithmOf(t.alg)
	if !ok || alg.family == familyHMAC {
		return nil, fmt.Errorf("algorithm %.64q is not accepted", t.alg)
	}
	k, err := ownKey(t)
	if err != nil {
		return nil, err
	}
	claims, err := decodeObject(t.payload)
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	if err := k.verify(t, alg); err != nil {
		return nil, err
	}
	return &dpop.Proof{Type: mediaType(t.typ), Thumbprint: base64.RawURLEncoding.EncodeToString(k.thumbprint), Claims: claims}, nil
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
