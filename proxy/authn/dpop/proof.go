package dpop

import (
	"encoding/base64"
	"fmt"

	"github.com/sallyport/sallyport/proxy/authn/jose"
)

// proof is a proof whose signature the key in its own header made.
type proof struct {
	typ        string // lower case
	thumbprint string // of the key: RFC 7638 with SHA-256, in base64url
	claims     map[string]any
}

// open takes a proof apart (RFC 9449 section 4.2). Whose key it is has to be known from
// elsewhere: from the token that is bound to it.
func open(text string, algorithms []string) (*proof, error) {
	t, k, err := jose.ParseSelfSigned(text, algorithms)
	if err != nil {
		return nil, err
	}
	claims, err := jose.Object(t.Payload)
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	return &proof{typ: jose.MediaType(t.Type), thumbprint: base64.RawURLEncoding.EncodeToString(k.Thumbprint), claims: claims}, nil
}
