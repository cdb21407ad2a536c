package jwt

import (
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// fuzzSigner is the same in each of the fuzzer's processes, and so are its tokens.
func fuzzSigner() *josetest.Signer {
	return &josetest.Signer{KeyID: "k1", Algorithm: "EdDSA", Private: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
}

// FuzzToken: whatever follows the scheme, nothing panics, and only the texts
// that the issuer signed are accepted.
func FuzzToken(f *testing.F) {
	ed := fuzzSigner()
	a := newFromFile(f, nil, ed, josetest.New(f, "k2", "ES256"), josetest.New(f, "k3", "RS256"))
	token := ed.Sign(f, ed.Header(), claims(testIssuer, nil))
	head, rest, _ := strings.Cut(token, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	for _, seed := range []string{
		token, rest, head + "." + head + "." + head, token + "." + token, "", "..",
		josetest.Base64([]byte(`{"alg":"none"}`)) + "." + payload + ".",
		josetest.Base64([]byte(`{"alg":"ES256","kid":"k2"}`)) + "." + payload + "." + signature,
		josetest.Base64([]byte(`{"alg":"PS256","kid":"k3"}`)) + "." + payload + "." + strings.Repeat("A", 342),
		josetest.Base64([]byte(`{"alg":"EdDSA","kid":"k1","crit":["b64"],"b64":false}`)) + ".{}.AAAA",
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
	good := josetest.JSON(f, claims(testIssuer, map[string]any{"act": map[string]any{"sub": "x"}, "scp": []string{"a"}, "cnf": nil}))
	f.Add(josetest.JSON(f, ed.Header()), good)
	f.Add(`{"alg":"EdDSA"}`, strings.Replace(good, `"orders-api"`, `["orders-api"]`, 1))
	f.Add(`{"alg":"EdDSA","typ":"application/at+JWT","kid":"k1"}`, `{"iss":"`+testIssuer+`","aud":"orders-api","exp":1767323e3,"nbf":0,"cnf":{"jkt":""}}`)
	f.Fuzz(func(t *testing.T, header, payload string) {
		id, err := present(t, a, ed.SignText(t, header, payload))
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
