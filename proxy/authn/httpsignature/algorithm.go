package httpsignature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"math/big"
)

// The algorithms of RFC 9421 section 3.3, by their registered names.
const (
	edwards    = "ed25519"
	ecdsaP256  = "ecdsa-p256-sha256"
	ecdsaP384  = "ecdsa-p384-sha384"
	rsaPSS     = "rsa-pss-sha512"
	rsaPKCS1   = "rsa-v1_5-sha256"
	hmacSHA256 = "hmac-sha256"
)

func algorithms() []string {
	return []string{edwards, ecdsaP256, ecdsaP384, rsaPSS, rsaPKCS1, hmacSHA256}
}

// algorithmOf returns the algorithm of a key: the one that was chosen, else the one of its
// type; empty if the key is of another type, or none for what was chosen. It is never
// what a message says.
func algorithmOf(chosen string, material any) string {
	switch k := material.(type) {
	case ed25519.PublicKey:
		return either(chosen, edwards)
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return either(chosen, ecdsaP256)
		case elliptic.P384():
			return either(chosen, ecdsaP384)
		}
	case *rsa.PublicKey:
		if chosen == rsaPKCS1 {
			return chosen
		}
		return either(chosen, rsaPSS)
	case []byte:
		return either(chosen, hmacSHA256)
	}
	return ""
}

func either(chosen, own string) string {
	if chosen == "" || chosen == own {
		return own
	}
	return ""
}

// algorithmOfJWK is algorithmOf for a key of a set, which may say its algorithm by its
// name in JOSE.
func algorithmOfJWK(rsaChoice, jose string, material any) string {
	if _, ok := material.(*rsa.PublicKey); !ok {
		rsaChoice = ""
	}
	alg := algorithmOf(rsaChoice, material)
	if jose != "" && jose != map[string]string{edwards: "EdDSA", ecdsaP256: "ES256", ecdsaP384: "ES384", rsaPSS: "PS512", rsaPKCS1: "RS256"}[alg] {
		return ""
	}
	return alg
}

// verifySignature reports whether signature is the one of base by the key.
func verifySignature(algorithm string, material any, base, signature []byte) bool {
	switch k := material.(type) {
	case ed25519.PublicKey:
		return algorithm == edwards && len(signature) == ed25519.SignatureSize && ed25519.Verify(k, base, signature)
	case *ecdsa.PublicKey:
		return verifyECDSA(algorithm, k, base, signature)
	case *rsa.PublicKey:
		return verifyRSA(algorithm, k, base, signature)
	case []byte:
		mac := hmac.New(sha256.New, k)
		mac.Write(base)
		return algorithm == hmacSHA256 && hmac.Equal(mac.Sum(nil), signature)
	}
	return false
}

// verifyECDSA takes r and s as two numbers of the curve's size (RFC 9421 sections 3.3.4
// and 3.3.5), not in ASN.1.
func verifyECDSA(algorithm string, k *ecdsa.PublicKey, base, signature []byte) bool {
	var digest []byte
	switch {
	case algorithm == ecdsaP256 && k.Curve == elliptic.P256():
		sum := sha256.Sum256(base)
		digest = sum[:]
	case algorithm == ecdsaP384 && k.Curve == elliptic.P384():
		sum := sha512.Sum384(base)
		digest = sum[:]
	default:
		return false
	}
	size := len(digest) // also the size of a number of the curve
	if len(signature) != 2*size {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	return ecdsa.Verify(k, digest, r, s)
}

// verifyRSA takes a salt as long as the hash only (RFC 9421 section 3.3.1).
func verifyRSA(algorithm string, k *rsa.PublicKey, base, signature []byte) bool {
	switch algorithm {
	case rsaPSS:
		sum := sha512.Sum512(base)
		return rsa.VerifyPSS(k, crypto.SHA512, sum[:], signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case rsaPKCS1:
		sum := sha256.Sum256(base)
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], signature) == nil
	}
	return false
}
