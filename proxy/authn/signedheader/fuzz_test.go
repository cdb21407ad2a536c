package signedheader

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
)

// FuzzALB: whatever the header says, nothing panics, and only what the load balancer signed
// is accepted, with and without the padding of its last part.
func FuzzALB(f *testing.F) {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{7}, 32)) // the same in each process
	if err != nil {
		f.Fatal(err)
	}
	c := Config{Preset: "aws_alb", Signers: []string{testSigner}, KeysURL: "http://127.0.0.1:1"}
	c.VerificationLimit.Failures = setting.Rate(math.Inf(1))
	a, err := New("front", c, Deps{Now: func() time.Time { return testNow }})
	if err != nil {
		f.Fatal(err)
	}
	keys := a.verifier.(*alb).keys
	keys.keys.Add(c.KeysURL+"/"+kid(1), pemKey{&key.PublicKey, testNow.Add(time.Hour)})
	keys.demand.SetLimit(0) // nothing is fetched
	keys.demand.SetBurst(0)
	good := sign(f, base64.URLEncoding, key, albHead, albClaims)
	head, rest, _ := strings.Cut(good, ".")
	claims, signature, _ := strings.Cut(rest, ".")
	for _, seed := range []string{
		good, strings.TrimRight(good, "="), head + "." + claims + ".", head + "=." + claims + "." + signature, strings.ReplaceAll(good, "=", ""),
		sign(f, base64.RawURLEncoding, key, albHead.with(members{"exp": -1}), albClaims),
		sign(f, base64.RawURLEncoding, key, albHead.with(members{"exp": 1e300, "kid": "../x"}), albClaims),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := a.Authenticate(t.Context(), carry("x-amzn-oidc-data", text))
		if (id == nil) == (err == nil) {
			t.Fatalf("got %v and %v", id, err)
		}
		if err == nil && !verifies(text, key) {
			t.Fatalf("accepted %q, which was not signed", text)
		}
	})
}

// verifies looks at the signature by itself.
func verifies(text string, key *ecdsa.PrivateKey) bool {
	at := strings.LastIndexByte(text, '.')
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text[at+1:], "="))
	return err == nil && len(raw) == 64 && verifyES256(&key.PublicKey, []byte(text[:at]), raw)
}
