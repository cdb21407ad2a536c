package jwt

import (
	"errors"
	"fmt"
)

// parseBundle reads the keys for jwt-svid of a SPIFFE trust bundle (SPIFFE Trust Domain
// and Bundle section 4). Others are ignored, as section 4.2.2 says. A bundle without keys
// says that the trust domain has taken all of them back.
func parseBundle(data []byte) (*keySet, error) {
	if len(data) > maxKeySet {
		return nil, fmt.Errorf("trust bundle is larger than %d bytes", maxKeySet)
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
		return &keySet{byID: map[string]*key{}, ignored: ignored}, nil
	}
	set, err := newKeySet(ours, false)
	if err == nil {
		set.ignored = append(ignored, set.ignored...)
	}
	return set, err
}
