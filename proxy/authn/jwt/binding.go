package jwt

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/certs"
)

// Members of the cnf claim that bind a token: to a client certificate (RFC 8705
// section 3.1), and to a key (RFC 9449 section 6.1).
const (
	certificateMember = "x5t#S256"
	keyMember         = "jkt"
)

// Binding is what the client has to possess, each as a thumbprint; empty parts bind
// to nothing.
type Binding struct {
	Certificate string // SHA-256 of the client certificate (RFC 8705 section 3.1)
	Key         string // RFC 7638 thumbprint of the key that proofs are signed with (RFC 9449 section 6.1)
}

// BindingOf reads the cnf member: the certificate and the key that a token is bound
// to. A token bound to anything else is refused: taking it from whoever
// presents it would undo what the issuer asked for (RFC 7800 section 3).
func BindingOf(claims map[string]any) (b Binding, err error) {
	claim, there := claims["cnf"]
	if !there {
		return b, nil
	}
	cnf, ok := claim.(map[string]any)
	if !ok {
		return b, errors.New("cnf is not an object")
	}
	for name, value := range cnf {
		thumbprint, _ := value.(string)
		switch {
		case name != certificateMember && name != keyMember:
			return b, fmt.Errorf("token is bound by %.64q, whose possession is not checked here", name)
		case thumbprint == "":
			return b, fmt.Errorf("%q of cnf is not a string with a thumbprint", name)
		case name == keyMember:
			b.Key = thumbprint
		default:
			b.Certificate = thumbprint
		}
	}
	if b == (Binding{}) {
		return b, errors.New("cnf is empty")
	}
	return b, nil
}

// checkCertificate reports whether the client of this connection has the
// certificate with this thumbprint.
func checkCertificate(thumbprint string, cs *tls.ConnectionState) error {
	if thumbprint == "" {
		return nil
	}
	leaf := certs.VerifiedLeaf(cs)
	if leaf == nil {
		return fmt.Errorf("%w: token is bound to a client certificate, and the connection has none", authn.ErrInvalid)
	}
	own := sha256.Sum256(leaf.Raw)
	bound, err := jose.DecodeBase64(thumbprint)
	if err != nil || string(bound) != string(own[:]) {
		return fmt.Errorf("%w: token is bound to another client certificate", authn.ErrInvalid)
	}
	return nil
}
