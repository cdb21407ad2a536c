package jose

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwe"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

// JWE is an encrypted token (RFC 7516 section 3.1), taken apart as far as it
// must be understood before the library sees it.
type JWE struct {
	text     string
	alg, enc string
	KeyID    string
	hasKid   bool
	curve    string // of the ephemeral key; empty without one
}

// IsJWE reports whether text has the five parts of an encrypted token.
func IsJWE(text string) bool { return strings.Count(text, ".") == 4 }

// sealedParameters are the parameters that the header of an encrypted token may
// have: those that are understood, and claims that issuers repeat there (RFC 7519
// section 5.3), which mean nothing here. Above all, there is no zip, which makes
// much of little, and no p2c, which costs what its sender wants.
func sealedParameters() []string {
	return []string{"alg", "enc", "kid", "typ", "cty", "epk", "apu", "apv", "iss", "sub", "aud", "client_id"}
}

// contentCipher is a content encryption of RFC 7518 section 5.1 with its lengths in bytes.
type contentCipher struct {
	name          string
	key, iv, tag  int
	wholeOfBlocks bool // the ciphertext is
}

func contentCiphers() []contentCipher {
	return []contentCipher{
		{"A128GCM", 16, 12, 16, false},
		{"A256GCM", 32, 12, 16, false},
		{"A128CBC-HS256", 32, 16, 16, true},
		{"A256CBC-HS512", 64, 16, 32, true},
	}
}

// ParseJWE takes an encrypted token apart as strictly as a signed one.
func ParseJWE(text string) (*JWE, error) {
	if len(text) > MaxToken {
		return nil, fmt.Errorf("token is longer than %d bytes", MaxToken)
	}
	var parts [5][]byte
	for i, p := range strings.SplitN(text, ".", len(parts)) {
		var err error
		if parts[i], err = DecodeBase64(p); err != nil {
			return nil, fmt.Errorf("part %d of the encrypted token: %w", i+1, err)
		}
	}
	header, err := Object(parts[0])
	if err != nil {
		return nil, fmt.Errorf("header of the encrypted token: %w", err)
	}
	s := &JWE{text: text}
	if err := s.readHeader(header); err != nil {
		return nil, err
	}
	return s, s.checkLengths(parts[1], parts[2], parts[3], parts[4])
}

func (s *JWE) readHeader(header map[string]any) error {
	for name := range header {
		if !slices.Contains(sealedParameters(), name) {
			return fmt.Errorf("header of the encrypted token has %.64q", name)
		}
	}
	s.alg, _ = header["alg"].(string)
	s.enc, _ = header["enc"].(string)
	if s.alg != "RSA-OAEP-256" && s.alg != "ECDH-ES" && s.alg != "ECDH-ES+A256KW" {
		return fmt.Errorf("encryption with alg %.64q is not accepted", s.alg)
	}
	if s.KeyID, s.hasKid = header["kid"].(string); !s.hasKid && header["kid"] != nil {
		return errors.New(`"kid" of the encrypted token is not a string`)
	}
	// The token inside must say of itself that it is one (RFC 7519 section 5.2).
	if cty, _ := header["cty"].(string); MediaType(cty) != "jwt" {
		return fmt.Errorf("content type of the encrypted token is %.64q, not JWT", cty)
	}
	epk, there := header["epk"]
	if strings.HasPrefix(s.alg, "ECDH-ES") != there {
		return errors.New("an ephemeral key is there without need or missing")
	}
	if !there {
		return nil
	}
	return s.readEphemeral(epk)
}

// readEphemeral refuses points that are not on their curve: what is derived from
// them tells about the private key.
func (s *JWE) readEphemeral(epk any) error {
	members, ok := epk.(map[string]any)
	if !ok {
		return errors.New("epk is not an object")
	}
	if members["kty"] != "EC" || len(members) != 4 {
		return errors.New("epk has more or less than kty, crv, x and y of an EC key")
	}
	k, why, err := parseKey(members, false)
	if err != nil || k == nil {
		return fmt.Errorf("epk: %s%w", why, err)
	}
	s.curve, _ = members["crv"].(string)
	return nil
}

func (s *JWE) checkLengths(key, iv, ciphertext, tag []byte) error {
	all := contentCiphers()
	i := slices.IndexFunc(all, func(c contentCipher) bool { return c.name == s.enc })
	if i < 0 {
		return fmt.Errorf("encryption with enc %.64q is not accepted", s.enc)
	}
	c := all[i]
	if len(iv) != c.iv || len(tag) != c.tag || len(ciphertext) == 0 || c.wholeOfBlocks && len(ciphertext)%16 != 0 {
		return fmt.Errorf("a part of the encrypted token has a length that %s does not have", s.enc)
	}
	if s.alg == "ECDH-ES" && len(key) != 0 || s.alg == "ECDH-ES+A256KW" && len(key) != c.key+8 {
		return fmt.Errorf("the encrypted key has a length that %s does not have", s.alg)
	}
	return nil
}

// DecryptionKey is a private key that tokens are encrypted for.
type DecryptionKey struct {
	kid     string // empty: it may be any token's
	private any    // *rsa.PrivateKey or *ecdsa.PrivateKey
}

// fits reports whether s can be encrypted for k.
func (k *DecryptionKey) fits(s *JWE) bool {
	if k.kid != "" && s.hasKid && k.kid != s.KeyID {
		return false
	}
	switch private := k.private.(type) {
	case *rsa.PrivateKey:
		return s.curve == ""
	case *ecdsa.PrivateKey:
		return s.curve == private.Curve.Params().Name
	}
	return false
}

// maxDecryptions bounds the private keys that are tried for one token.
const maxDecryptions = 4

var errDecryption = errors.New("no private key opens the encrypted token")

// Open returns the text inside. It is nobody's word yet: everybody has the public
// key that it was encrypted with.
func (s *JWE) Open(keys []*DecryptionKey) (string, error) {
	tries := 0
	for _, k := range keys {
		if !k.fits(s) {
			continue
		}
		inside, err := jwe.Decrypt([]byte(s.text), jwe.WithKey(jwa.KeyEncryptionAlgorithm(s.alg), k.private))
		if err == nil {
			return string(inside), nil
		}
		if tries++; tries == maxDecryptions {
			break
		}
	}
	return "", errDecryption
}

// ReadDecryptionKeys reads the private keys that stand in the file called name: PEM, a JWK
// or a JWK set.
func ReadDecryptionKeys(name string, data []byte) ([]*DecryptionKey, error) {
	text := strings.TrimSpace(string(data))
	set, err := jwk.Parse([]byte(text), jwk.WithPEM(strings.HasPrefix(text, "-----BEGIN")))
	if err != nil {
		return nil, fmt.Errorf("%s holds neither PEM keys nor JWKs", name) // the library's word may quote the key
	}
	var out []*DecryptionKey
	for i := range set.Len() {
		k, _ := set.Key(i)
		opener := &DecryptionKey{kid: k.KeyID()}
		if err := k.Raw(&opener.private); err != nil {
			return nil, fmt.Errorf("%s: key %d cannot be read", name, i)
		}
		if err := opener.check(); err != nil {
			return nil, fmt.Errorf("%s: key %d %w", name, i, err)
		}
		out = append(out, opener)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no key", name)
	}
	return out, nil
}

func (k *DecryptionKey) check() error {
	switch private := k.private.(type) {
	case *rsa.PrivateKey:
		if err := private.Validate(); err != nil {
			return errors.New("is not a sound RSA key")
		}
		if bits := private.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("has %d bits, not %d to %d", bits, minRSABits, maxRSABits)
		}
		return nil
	case *ecdsa.PrivateKey:
		if _, err := private.ECDH(); err != nil {
			return errors.New("is not a sound key of P-256, P-384 or P-521")
		}
		return nil
	}
	return errors.New("is neither a private RSA nor a private EC key")
}
