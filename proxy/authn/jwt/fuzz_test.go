package jwt

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/dpop"
	"github.com/sallyport/sallyport/proxy/authn/jose"
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

// FuzzSealed: whatever has five parts, nothing panics, and only what encrypts a token of
// the issuer is accepted. Everybody can encrypt.
func FuzzSealed(f *testing.F) {
	ed := fuzzSigner()
	opener, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{7}, 32)) // the same in each process
	if err != nil {
		f.Fatal(err)
	}
	file := writePEM(f, opener)
	a := newFromFile(f, func(c *Config) {
		c.DecryptionKeysFiles, c.VerificationLimit.Failures = []string{file}, setting.Rate(math.Inf(1))
	}, ed)
	signed := ed.Sign(f, ed.Header(), claims(testIssuer, nil))
	for _, alg := range []string{"ECDH-ES", "ECDH-ES+A256KW"} {
		for _, enc := range []string{"A128GCM", "A256GCM", "A128CBC-HS256", "A256CBC-HS512"} {
			f.Add(seal(f, &opener.PublicKey, alg, enc, signed, nil))
		}
		f.Add(seal(f, &opener.PublicKey, alg, "A128GCM", "{}", nil))
		f.Add(withHeader(f, seal(f, &opener.PublicKey, alg, "A128GCM", signed, nil), map[string]any{"zip": "DEF", "apu": "AA"}))
	}
	f.Add(josetest.Base64([]byte(`{"alg":"ECDH-ES","enc":"A128GCM","cty":"JWT","epk":{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}}`)) + "..AAAA.AA.AA")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := present(t, a, text)
		if (id == nil) == (err == nil) {
			t.Fatalf("got %v and %v", id, err)
		}
		if err == nil && (id.Subject != "alice" || id.Issuer != testIssuer) {
			t.Fatalf("accepted %q as %+v", text, id)
		}
	})
}

// FuzzProof: whatever the DPoP header says, nothing panics, and a proof is good only as it
// was signed.
func FuzzProof(f *testing.F) {
	holder := fuzzSigner()
	holder.KeyID = ""
	proof := prove(f, holder, "token", nil, nil)
	f.Add(proof)
	f.Add(prove(f, josetest.New(f, "", "RS256"), "token", nil, nil))
	f.Add(prove(f, josetest.New(f, "", "ES384"), "token", map[string]any{"kid": "x", "crit": []string{"jwk"}}, nil))
	f.Add(josetest.Base64([]byte(`{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}}`)) + ".e30.AA")
	f.Add(josetest.Base64([]byte(`{"typ":"dpop+jwt","alg":"RS256","jwk":{"kty":"RSA","n":"AQ","e":"AQ"}}`)) + ".e30.AA")
	f.Fuzz(func(t *testing.T, text string) {
		_, k, err := jose.ParseSelfSigned(text, dpop.Default().Algorithms)
		if err == nil && josetest.Base64(k.Thumbprint) == holder.Thumbprint(t) && text != proof && !signedByHolder(text, holder) {
			t.Fatalf("accepted %q, which was not signed", text)
		}
	})
}

// signedByHolder verifies with the standard library alone.
func signedByHolder(text string, holder *josetest.Signer) bool {
	at := strings.LastIndexByte(text, '.')
	signature, err := base64.RawURLEncoding.DecodeString(text[at+1:])
	private, _ := holder.Private.(ed25519.PrivateKey)
	public, _ := private.Public().(ed25519.PublicKey)
	return err == nil && ed25519.Verify(public, []byte(text[:at]), signature)
}
