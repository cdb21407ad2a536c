package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// TestAssertion: what is signed holds for the public key and the algorithm of its kind.
func TestAssertion(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256", "ES384", "ES512", "EdDSA"} {
		private := josetest.New(t, "k1", alg).Private
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewSigner(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		text, err := s.Assertion("gw", "https://idp.example", time.Unix(1767323045, 0), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		token, err := ParseJWS(text)
		if err != nil || token.Algorithm != alg {
			t.Fatalf("%s: %+v, %v", alg, token, err)
		}
		a, _ := AlgorithmOf(alg)
		if err := a.verify(private.(crypto.Signer).Public(), token.Input, token.Signature); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		claims, err := Object(token.Payload)
		if err != nil {
			t.Fatal(err)
		}
		made := json.Number("1767323045")
		if claims["iss"] != "gw" || claims["sub"] != "gw" || claims["aud"] != "https://idp.example" || claims["iat"] != made || claims["exp"] != json.Number("1767323105") || claims["jti"] == "" {
			t.Errorf("%s: claims %v", alg, claims)
		}
	}
}

func TestKeysThatNothingIsSignedWith(t *testing.T) {
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "text": []byte("secret"), "short RSA": pkcs8(short), "P-224": pkcs8(small),
		"public key": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY"}), "broken": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"}),
	} {
		if _, err := NewSigner(data); err == nil {
			t.Errorf("%s: a signer was made", name)
		}
	}
}
