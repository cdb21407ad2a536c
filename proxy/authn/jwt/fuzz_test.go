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
	signed := ed.sign(f, ed.header(), claims(testIssuer, nil))
	for _, alg := range []string{"ECDH-ES", "ECDH-ES+A256KW"} {
		for _, enc := range contentCiphers() {
			f.Add(seal(f, &opener.PublicKey, alg, enc.name, signed, nil))
		}
		f.Add(seal(f, &opener.PublicKey, alg, "A128GCM", "{}", nil))
		f.Add(withHeader(f, seal(f, &opener.PublicKey, alg, "A128GCM", signed, nil), map[string]any{"zip": "DEF", "apu": "AA"}))
	}
	f.Add(b64([]byte(`{"alg":"ECDH-ES","enc":"A128GCM","cty":"JWT","epk":{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}}`)) + "..AAAA.AA.AA")
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
	holder.kid = ""
	proof := prove(f, holder, "token", nil, nil)
	f.Add(proof)
	f.Add(prove(f, newSigner(f, "", "RS256"), "token", nil, nil))
	f.Add(prove(f, newSigner(f, "", "ES384"), "token", map[string]any{"kid": "x", "crit": []string{"jwk"}}, nil))
	f.Add(b64([]byte(`{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}}`)) + ".e30.AA")
	f.Add(b64([]byte(`{"typ":"dpop+jwt","alg":"RS256","jwk":{"kty":"RSA","n":"AQ","e":"AQ"}}`)) + ".e30.AA")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := OpenProof(text, dpop.Default().Algorithms)
		if (p == nil) == (err == nil) {
			t.Fatalf("got %v and %v", p, err)
		}
		if err == nil && p.Thumbprint == thumbprintOf(t, holder) && text != proof && !signedByHolder(text, holder) {
			t.Fatalf("accepted %q, which was not signed", text)
		}
	})
}

// signedByHolder verifies with the standard library alone.
func signedByHolder(text string, holder *signer) bool {
	at := strings.LastIndexByte(text, '.')
	signature, err := base64.RawURLEncoding.DecodeString(text[at+1:])
	private, _ := holder.private.(ed25519.PrivateKey)
	public, _ := private.Public().(ed25519.PublicKey)
	return err == nil && ed25519.Verify(public, []byte(text[:at]), signature)
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
