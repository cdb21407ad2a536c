package jose

import (
	"errors"
	"fmt"
)

// ParseTrustBundle reads the keys for jwt-svid of a SPIFFE trust bundle (SPIFFE Trust Domain
// and Bundle section 4). Others are ignored, as section 4.2.2 says. A bundle without keys
// says that the trust domain has taken all of them back.
func ParseTrustBundle(data []byte) (*KeySet, error) {
	if len(data) > MaxKeySet {
		return nil, fmt.Errorf("trust bundle is larger than %d bytes", MaxKeySet)
	}
	doc, err := Object(data)
	if err != nil {
		return nil, fmt.Errorf("trust bundle: %w", err)
	}
	members, ok := doc["keys"].([]any)
	if !ok {
		return nil, errors.New(`trust bundle has no array "keys"`)
	}
	if len(members) > maxKeys {
		return nil, fmt.Errorf("trust bundle has more than %d keys", maxKeys)
	}
	var ours []any
	var ignored []string
	for i, m := range members {
		entry, _ := m.(map[string]any)
		if kid, _ := entry["kid"].(string); entry["use"] != "jwt-svid" || kid == "" {
			ignored = append(ignored, fmt.Sprintf("key %d: not one with a kid for jwt-svid", i))
			continue
		}
		entry["use"] = "sig" // the same purpose in the words of RFC 7517
		ours = append(ours, entry)
	}
	if len(ours) == 0 {
		return &KeySet{byID: map[string]*Key{}, Ignored: ignored}, nil
	}
	set, err := newKeySet(ours, false)
	if err == nil {
		set.Ignored = append(ignored, set.Ignored...)
	}
	return set, err
}
