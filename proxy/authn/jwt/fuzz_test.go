package jwt

import (
	"strings"
	"testing"
)

// FuzzToken: whatever follows the scheme, nothing panics, and only the texts
// that the issuer signed are accepted.
func FuzzToken(f *testing.F) {
	ec, ed, rs := newSigner(f, "k1", "ES256"), newSigner(f, "k2", "EdDSA"), newSigner(f, "k3", "RS256")
	a := newFromFile(f, nil, ec, ed, rs)
	signed := map[string]bool{}
	for _, s := range []*signer{ec, ed, rs} {
		token := s.sign(f, s.header(), claims(testIssuer, nil))
		signed[token] = true
		f.Add(token)
		head, rest, _ := strings.Cut(token, ".")
		f.Add(rest)
		f.Add(head + "." + head + "." + head)
		f.Add(token + "." + token)
	}
	f.Add("")
	f.Add("..")
	f.Add(b64([]byte(`{"alg":"none"}`)) + "." + b64([]byte(mustJSON(f, claims(testIssuer, nil)))) + ".")
	f.Add(b64([]byte(`{"alg":"ES256","kid":"k1","crit":["b64"],"b64":false}`)) + ".{}.AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		id, err := present(t, a, token)
		if (id == nil) == (err == nil) {
			t.Fatalf("got %v and %v", id, err)
		}
		if err == nil && !signed[strings.TrimLeft(token, " ")] {
			t.Fatalf("accepted %q, which was not signed", token)
		}
	})
}

// FuzzKeySet: no key set panics, and one that is taken holds sound keys only.
func FuzzKeySet(f *testing.F) {
	f.Add(jwks(f, newSigner(f, "k1", "ES256"), newSigner(f, "k2", "EdDSA"), newSigner(f, "k3", "RS256")))
	f.Add(jwks(f, newSigner(f, "k1", "HS256")))
	f.Add(`{"keys":[{"kty":"RSA","n":"AQ","e":"AQ"},{"kty":"EC","crv":"P-256","x":"","y":""}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, secrets := range []bool{false, true} {
			set, err := parseKeySet([]byte(text), secrets)
			if err != nil {
				continue
			}
			for _, k := range set.keys {
				if _, secret := k.material.([]byte); secret && !secrets {
					t.Error("took a shared secret")
				}
			}
		}
	})
}
