package jose

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
)

const (
	minRSABits = 2048
	// maxRSABits bounds the work that one signature costs us.
	maxRSABits = 8192
	// MaxSignature bounds what a signature takes as a part of a token, in bytes.
	MaxSignature = maxRSABits/8*4/3 + 2
)

// checkRSA refuses keys that can be factored or that make any text a signature.
// exponent is the exponent as the JWK spells it: the library keeps the low bits.
func checkRSA(k *rsa.PublicKey, exponent any) error {
	if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return fmt.Errorf("RSA key has %d bits, not %d to %d", bits, minRSABits, maxRSABits)
	}
	text, _ := exponent.(string)
	e, err := DecodeBase64(text)
	if err != nil || new(big.Int).SetBytes(e).Cmp(big.NewInt(int64(k.E))) != 0 {
		return errors.New("RSA exponent is malformed or too large")
	}
	if k.E < 3 || k.E%2 == 0 {
		return fmt.Errorf("RSA exponent %d is not an odd number from 3", k.E)
	}
	if k.N.Bit(0) == 0 {
		return errors.New("RSA modulus is even")
	}
	if isROCA(k.N) {
		return errors.New("RSA key was made by a generator with the ROCA weakness (CVE-2017-15361)")
	}
	return nil
}

// isROCA reports whether n has the fingerprint of Infineon's generator: its
// primes are powers of 65537 modulo the product of the small primes, hence n is
// one modulo each of them (Nemec et al., The Return of Coppersmith's Attack,
// section 2.1). A sound key has it with a probability below 2^-27.
func isROCA(n *big.Int) bool {
	for p := int64(3); p <= 167; p += 2 {
		if big.NewInt(p).ProbablyPrime(0) && !isPowerOf65537(new(big.Int).Mod(n, big.NewInt(p)).Int64(), p) {
			return false
		}
	}
	return true
}

func isPowerOf65537(x, modulus int64) bool {
	power := int64(1)
	for range modulus {
		if power == x {
			return true
		}
		power = power * 65537 % modulus
	}
	return false
}
