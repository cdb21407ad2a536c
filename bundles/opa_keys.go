package bundles

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/engine/setting"
)

// checkKeys looks at keys as OPA would when it has a bundle to verify: one that
// does not parse then would keep the policy from ever coming in.
func checkKeys(keys map[string]any) error {
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(keys)) {
		key := object(keys[id])
		text, _ := key["key"].(string)
		algorithm, _ := key["algorithm"].(string)
		if text == "" {
			continue // OPA reports it
		}
		if err := checkKey(text, algorithm); err != nil {
			errs = append(errs, setting.Problemf(id+".key", "%w", err))
		}
	}
	return errors.Join(errs...)
}

func checkKey(text, algorithm string) error {
	if strings.HasPrefix(algorithm, "HS") {
		return nil
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return errors.New("not a public key in PEM")
	}
	key, err := parsePublic(block)
	if err != nil {
		return err
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		if strings.HasPrefix(algorithm, "ES") {
			return fmt.Errorf("an RSA key cannot verify %s", algorithm)
		}
		if key.N.BitLen() < 2048 {
			return fmt.Errorf("an RSA key of %d bits; 2048 are the least", key.N.BitLen())
		}
	case *ecdsa.PublicKey:
		if !strings.HasPrefix(algorithm, "ES") {
			return errors.New("an elliptic curve key needs an algorithm ES256, ES384 or ES512")
		}
	default:
		return fmt.Errorf("a key of type %T cannot verify bundles", key)
	}
	return nil
}

func parsePublic(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	default:
		return nil, fmt.Errorf("%s is not a public key, and whoever verifies needs no other", strings.ToLower(block.Type))
	}
}
