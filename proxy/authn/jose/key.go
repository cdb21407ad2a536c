package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// jwkHead is what decides whether a key is for us, before its material is read.
type jwkHead struct{ kty, crv, use, alg, kid string }

// parseKey reads one JWK. It returns no key and the reason when the key is to be
// ignored, and an error when the set is to be refused.
func parseKey(members map[string]any, secrets bool) (k *Key, why string, err error) {
	var head jwkHead
	for name, to := range map[string]*string{
		"kty": &head.kty, "crv": &head.crv, "use": &head.use, "alg": &head.alg, "kid": &head.kid,
	} {
		var ok bool
		if *to, ok = members[name].(string); !ok && members[name] != nil {
			return nil, "", fmt.Errorf("%s is not a string", name)
		}
	}
	_, private := members["d"]
	switch {
	case head.kty == "oct" && !secrets:
		return nil, "", errors.New("is a shared secret: whoever can fetch it can sign")
	case private:
		return nil, "", errors.New("is a private key")
	}
	if why := head.irrelevant(members["key_ops"]); why != "" {
		return nil, why, nil
	}
	k, err = head.read(members)
	if err != nil {
		return nil, "", fmt.Errorf("kid %.64q: %w", head.kid, err)
	}
	return k, "", nil
}

// irrelevant says why the key is of no use here; empty if it may be.
func (h *jwkHead) irrelevant(ops any) string {
	_, known := AlgorithmOf(h.alg)
	switch {
	case h.kty != "RSA" && h.kty != "EC" && h.kty != "OKP" && h.kty != "oct":
		return fmt.Sprintf("unknown type %.64q", h.kty)
	case h.kty == "EC" && !slices.Contains([]string{"P-256", "P-384", "P-521"}, h.crv):
		return fmt.Sprintf("unknown curve %.64q", h.crv)
	case h.kty == "OKP" && h.crv != "Ed25519":
		return fmt.Sprintf("unknown curve %.64q", h.crv)
	case h.use != "" && h.use != "sig":
		return fmt.Sprintf("for use %.64q", h.use)
	case ops != nil && !canVerify(ops):
		return "not for the operation verify"
	case h.alg != "" && !known:
		return fmt.Sprintf("for algorithm %.64q", h.alg)
	}
	return ""
}

func canVerify(ops any) bool {
	list, ok := ops.([]any)
	return ok && slices.Contains(list, any("verify"))
}

// read has jwx parse the members that make the key, and only those: it matches
// names without regard to case, and reads more than is asked for here.
func (h *jwkHead) read(members map[string]any) (*Key, error) {
	bare := make(map[string]any)
	for _, name := range []string{"kty", "crv", "n", "e", "x", "y", "k"} {
		if v, there := members[name]; there {
			bare[name] = v
		}
	}
	raw, err := json.Marshal(bare)
	if err != nil {
		return nil, err
	}
	parsed, err := jwk.ParseKey(raw)
	if err != nil {
		return nil, err
	}
	var material any
	if err := parsed.Raw(&material); err != nil {
		return nil, err
	}
	if err := h.check(material, members["e"]); err != nil {
		return nil, err
	}
	thumb, err := parsed.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, err
	}
	fingerprint := sha256.Sum256(fmt.Appendf(nil, "%x %q %q", thumb, h.alg, h.kid))
	return &Key{ID: h.kid, Algorithm: h.alg, Material: material, print: fingerprint, Thumbprint: thumb}, nil
}

// check refuses keys that a signature must not be trusted with.
func (h *jwkHead) check(material, exponent any) error {
	switch k := material.(type) {
	case *rsa.PublicKey:
		if err := checkRSA(k, exponent); err != nil {
			return err
		}
	case *ecdsa.PublicKey:
		if _, err := k.ECDH(); err != nil {
			return errors.New("point is not on the curve")
		}
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return errors.New("Ed25519 key is not 32 bytes long")
		}
	case []byte:
		if len(k) < sha256.Size {
			return errors.New("shared secret is shorter than 256 bits")
		}
	default:
		return fmt.Errorf("is a %T", material)
	}
	if alg, ok := AlgorithmOf(h.alg); ok && !alg.fits(material) {
		return fmt.Errorf("says algorithm %s and is no key for it", h.alg)
	}
	return nil
}
