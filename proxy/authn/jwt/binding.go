package jwt

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/certs"
)

// thumbprintMember of the cnf claim binds a token to a client certificate (RFC
// 8705 section 3.1).
const thumbprintMember = "x5t#S256"

// bindingOf returns the thumbprint of the certificate that a token is bound to;
// empty if it is not bound. A token bound to anything else is refused: taking it
// from whoever presents it would undo what the issuer asked for (RFC 7800
// section 3, RFC 9449 section 7.2).
func bindingOf(claims map[string]any) (string, error) {
	claim, there := claims["cnf"]
	if !there {
		return "", nil
	}
	cnf, ok := claim.(map[string]any)
	if !ok {
		return "", errors.New("cnf is not an object")
	}
	for name := range cnf {
		if name != thumbprintMember {
			return "", fmt.Errorf("token is bound by %.64q, whose possession is not checked here", name)
		}
	}
	thumbprint, ok := cnf[thumbprintMember].(string)
	if !ok || thumbprint == "" {
		return "", fmt.Errorf("cnf has no %q that is a string", thumbprintMember)
	}
	return thumbprint, nil
}

// checkBinding reports whether the client of this connection holds what the
// token is bound to. It is asked on each request, also for cached tokens.
func checkBinding(thumbprint string, cs *tls.ConnectionState) error {
	if thumbprint == "" {
		return nil
	}
	leaf := certs.VerifiedLeaf(cs)
	if leaf == nil {
		return fmt.Errorf("%w: token is bound to a client certificate, and the connection has none", authn.ErrInvalid)
	}
	own := sha256.Sum256(leaf.Raw)
	bound, err := decodePart(thumbprint)
	if err != nil || string(bound) != string(own[:]) {
		return fmt.Errorf("%w: token is bound to another client certificate", authn.ErrInvalid)
	}
	return nil
}
