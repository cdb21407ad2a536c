package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// TestAllocationsOfAVerification bounds what a token that was not seen before
// allocates. The bare check of the standard library has 9 and 21 of them.
func TestAllocationsOfAVerification(t *testing.T) {
	for alg, most := range map[string]float64{"RS256": 48, "ES256": 60} {
		k := josetest.New(t, "k1", alg)
		a := newFromFile(t, nil, k)
		token := k.Sign(t, k.Header(), claims(testIssuer, map[string]any{"roles": []string{"reader", "writer"}}))
		got := testing.AllocsPerRun(50, func() {
			if _, err := a.verify(t.Context(), presented{token: token, text: token}, "", testNow); err != nil {
				t.Error(err)
			}
		})
		if got > most {
			t.Errorf("%s: %v allocations, want at most %v", alg, got, most)
		}
	}
}

// BenchmarkVerify pairs the whole verification of a token that was not seen
// before with the bare operation of the standard library that it cannot do
// without: what is above a ratio of 1 is reading, checking and keeping.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range []string{"RS256", "ES256"} {
		k := josetest.New(b, "k1", alg)
		a := newFromFile(b, nil, k)
		token := k.Sign(b, k.Header(), claims(testIssuer, map[string]any{"roles": []string{"reader", "writer"}, "padding": strings.Repeat("x", 300)}))
		t, err := jose.ParseJWS(token)
		if err != nil {
			b.Fatal(err)
		}
		pub := k.Private.(crypto.Signer).Public()
		b.Run(alg+"/raw", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				digest := sha256.Sum256(t.Input)
				if !rawVerify(pub, digest[:], t.Signature) {
					b.Fatal("signature does not match")
				}
			}
		})
		b.Run(alg+"/signature", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.keys.Verify(b.Context(), t, a.allowed); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(alg+"/whole", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.verify(b.Context(), presented{token: token, text: token}, "", testNow); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func rawVerify(pub any, digest, signature []byte) bool {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest, signature) == nil
	case *ecdsa.PublicKey:
		half := len(signature) / 2
		return ecdsa.Verify(k, digest, new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
	}
	return false
}
