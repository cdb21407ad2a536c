package jwt

import (
	"context"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
)

// unsignedAlgorithm is the alg of tokens without a signature (RFC 7518 section
// 3.6). It is no algorithm that could be listed: nothing is verified by it.
const unsignedAlgorithm = "none"

// vouch returns what answers for a token whose claims hold: the key that signed
// it or, for an unsigned token where the operator takes them, a key that nobody
// has. Anything in the place of the signature is refused there: whoever put it
// there believed that it would be checked.
func (a *Authenticator) vouch(ctx context.Context, t *jose.JWS, client string, now time.Time) (*jose.Key, error) {
	if t.Algorithm != unsignedAlgorithm || !a.config.InsecureAllowUnsigned {
		return a.verifySignature(ctx, t, client, now)
	}
	if len(t.Signature) > 0 {
		return nil, fmt.Errorf("%w: %w: algorithm %q with a signature", authn.ErrInvalid, authn.ErrMalformed, unsignedAlgorithm)
	}
	return &jose.Key{}, nil
}
