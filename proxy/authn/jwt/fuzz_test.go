package jwt

import (
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// fuzzSigner is the same in each of the fuzzer's processes, and so are its tokens.
func fuzzSigner() *signer {
	return &signer{kid: "k1", alg: "EdDSA", private: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
}

// FuzzToken: whatever follows the scheme, nothing panics, and only the texts
// that the issuer signed are accepted.
func FuzzToken(f *testing.F) {
	ed := fuzzSigner()
	a := newFromFile(f, nil, ed, newSigner(f, "k2", "ES256"), newSigner(f, "k3", "RS256"))
	token := ed.sign(f, ed.header(), claims(testIssuer, nil))
	head, rest, _ := strings.Cut(token, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	for _, seed := range []string{
		token, rest, head + "." + head + "." + head, token + "." + token, "", "..",
		b64([]byte(`{"alg":"none"}`)) + "." + payload + ".",
		b64([]byte(`{"alg":"ES256","kid":"k2"}`)) + "." + payload + "." + signature,
		b64([]byte(`{"alg":"PS256","kid":"k3"}`)) + "." + payload + "." + strings.Repeat("A", 342),
		b64([]byte(`{"alg":"EdDSA","kid":"k1","crit":["b64"],"b64":false}`)) + ".{}.AAAA",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := present(t, a, text)
		if (id == nil) == (err == nil) {
			t.Fatalf("got %v and %v", id, err)
		}
		if err == nil && strings.TrimLeft(text, " ") != token {
			t.Fatalf("accepted %q, which was not signed", text)
		}
	})
}

// FuzzSigned: whatever an issuer signs, nothing panics, and what is accepted is
// for us and in time, as a lenient reader sees it too.
func FuzzSigned(f *testing.F) {
	ed := fuzzSigner()
	a := newFromFile(f, nil, ed)
	good := mustJSON(f, claims(testIssuer, map[string]any{"act": map[string]any{"sub": "x"}, "scp": []string{"a"}, "cnf": nil}))
	f.Add(mustJSON(f, ed.header()), good)
	f.Add(`{"alg":"EdDSA"}`, strings.Replace(good, `"orders-api"`, `["orders-api"]`, 1))
	f.Add(`{"alg":"EdDSA","typ":"application/at+JWT","kid":"k1"}`, `{"iss":"`+testIssuer+`","aud":"orders-api","exp":1767323e3,"nbf":0,"cnf":{"jkt":""}}`)
	f.Fuzz(func(t *testing.T, header, payload string) {
		id, err := present(t, a, ed.signText(t, header, payload))
		if err != nil {
			return
		}
		var seen map[string]any
		err = json.Unmarshal([]byte(payload), &seen)
		exp, _ := seen["exp"].(float64)
		if err != nil || seen["iss"] != testIssuer || exp <= float64(testNow.Unix()-60) {
			t.Fatalf("accepted %s as %+v: %v", payload, id, err)
		}
		if !slices.Contains(id.Audiences, "orders-api") || id.ExpiresAt.Before(testNow.Add(-time.Minute)) {
			t.Fatalf("accepted as %+v", id)
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
