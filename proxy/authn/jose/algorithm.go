package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/sallyport/sallyport/proxy/authn"
)

type family int

const (
	familyPKCS1 family = iota
	familyPSS
	familyECDSA
	familyEdDSA
	familyHMAC
)

// Algorithm is one signature algorithm of RFC 7518 section 3 or RFC 8037.
type Algorithm struct {
	Name   string
	family family
	hash   crypto.Hash
	curve  elliptic.Curve // ECDSA only
}

// algorithms lists what can be verified. There is no "none", and no ES256K: Go
// has no maintained implementation of its curve.
func algorithms() []Algorithm {
	return []Algorithm{
		{"RS256", familyPKCS1, crypto.SHA256, nil},
		{"RS384", familyPKCS1, crypto.SHA384, nil},
		{"RS512", familyPKCS1, crypto.SHA512, nil},
		{"PS256", familyPSS, crypto.SHA256, nil},
		{"PS384", familyPSS, crypto.SHA384, nil},
		{"PS512", familyPSS, crypto.SHA512, nil},
		{"ES256", familyECDSA, crypto.SHA256, elliptic.P256()},
		{"ES384", familyECDSA, crypto.SHA384, elliptic.P384()},
		{"ES512", familyECDSA, crypto.SHA512, elliptic.P521()},
		{"EdDSA", familyEdDSA, 0, nil},
		{"HS256", familyHMAC, crypto.SHA256, nil},
		{"HS384", familyHMAC, crypto.SHA384, nil},
		{"HS512", familyHMAC, crypto.SHA512, nil},
	}
}

// AlgorithmNames returns the names of what can be verified.
func AlgorithmNames() []string {
	var names []string
	for _, a := range algorithms() {
		names = append(names, a.Name)
	}
	return names
}

// AlgorithmOf returns the algorithm of a name (RFC 7518 section 3.1), false if there is none.
func AlgorithmOf(name string) (Algorithm, bool) {
	for _, a := range algorithms() {
		if a.Name == name {
			return a, true
		}
	}
	return Algorithm{}, false
}

// Symmetric reports whether who can verify can sign, too.
func (a Algorithm) Symmetric() bool { return a.family == familyHMAC }

// fits reports whether material is a key for a: its type, its curve, its length
// (RFC 7518 section 3.2: an HMAC key is at least as long as the hash).
func (a Algorithm) fits(material any) bool {
	switch k := material.(type) {
	case *rsa.PublicKey:
		return a.family == familyPKCS1 || a.family == familyPSS
	case *ecdsa.PublicKey:
		return a.family == familyECDSA && k.Curve == a.curve
	case ed25519.PublicKey:
		return a.family == familyEdDSA
	case []byte:
		return a.family == familyHMAC && len(k) >= a.hash.Size()
	}
	return false
}

// verify checks the signature of input. The error is authn.ErrSignature if it does not
// hold; every other one is about the key.
func (a Algorithm) verify(material any, input, signature []byte) error {
	if !a.fits(material) {
		return fmt.Errorf("key is not one for %s", a.Name)
	}
	if len(signature) != a.signatureSize(material) {
		return authn.ErrSignature
	}
	if a.family == familyPSS {
		return a.verifyPSS(material, input, signature)
	}
	v, err := jws.NewVerifier(jwa.SignatureAlgorithm(a.Name))
	if err != nil {
		return fmt.Errorf("verify %s: %w", a.Name, err)
	}
	if err := v.Verify(input, signature, material); err != nil {
		return authn.ErrSignature
	}
	return nil
}

// signatureSize is the one length a signature has (RFC 7518 sections 3.2 to 3.5,
// RFC 8037 section 3.1).
func (a Algorithm) signatureSize(material any) int {
	switch k := material.(type) {
	case *rsa.PublicKey:
		return k.Size()
	case *ecdsa.PublicKey:
		return 2 * ((k.Curve.Params().BitSize + 7) / 8)
	case ed25519.PublicKey:
		return ed25519.SignatureSize
	}
	return a.hash.Size()
}

// Signs reports whether signatures can be n bytes long.
func (a Algorithm) Signs(n int) bool {
	switch a.family {
	case familyPKCS1, familyPSS:
		return n >= minRSABits/8 && n <= maxRSABits/8
	case familyECDSA:
		return n == 2*((a.curve.Params().BitSize+7)/8)
	case familyEdDSA:
		return n == 64
	case familyHMAC:
		return n == a.hash.Size()
	}
	return false
}

// verifyPSS does not go through jwx, which takes a salt of any length: the salt
// is as long as the hash (RFC 7518 section 3.5).
func (a Algorithm) verifyPSS(material any, input, signature []byte) error {
	pub, ok := material.(*rsa.PublicKey)
	if !ok {
		return authn.ErrSignature
	}
	h := a.hash.New()
	h.Write(input)
	opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.hash}
	if err := rsa.VerifyPSS(pub, a.hash, h.Sum(nil), signature, opts); err != nil {
		return authn.ErrSignature
	}
	return nil
}
