package jwt

import (
	"encoding/base64"
	"fmt"

	"github.com/sallyport/sallyport/proxy/authn/dpop"
)

// OpenProof is a dpop.Opener: it returns what a JWS says that is signed by the
// public key in its own header (RFC 9449 section 4.2). What such a signature
// means rests on where that key is known from.
func OpenProof(text string, algorithms []string) (*dpop.Proof, error) {
	t, k, err := parseSelfSigned(text, algorithms)
	if err != nil {
		return nil, err
	}
	claims, err := Object(t.payload)
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	return &dpop.Proof{Type: mediaType(t.typ), Thumbprint: base64.RawURLEncoding.EncodeToString(k.thumbprint), Claims: claims}, nil
}
