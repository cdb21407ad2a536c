package jwt

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/dpop"
	"github.com/sallyport/sallyport/proxy/certs"
)

// Members of the cnf claim that bind a token: to a client certificate (RFC 8705
// section 3.1), and to a key (RFC 9449 section 6.1).
const (
	certificateMember = "x5t#S256"
	keyMember         = "jkt"
)

// binding is what the client has to possess; empty parts bind to nothing.
type binding struct{ certificate, key string }

// bindingOf returns the thumbprints of the certificate and the key that a token is
// bound to. A token bound to anything else is refused: taking it from whoever
// presents it would undo what the issuer asked for (RFC 7800 section 3).
func bindingOf(claims map[string]any) (b binding, err error) {
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
			b.key = thumbprint
		default:
			b.certificate = thumbprint
		}
	}
	if b == (binding{}) {
		return b, errors.New("cnf is empty")
	}
	return b, nil
}

// checkPossession reports whether the sender holds what the token is bound to. It
// is asked on each request, also for cached tokens.
func (a *Authenticator) checkPossession(r *authn.Request, bound binding, token string, proven bool) error {
	if err := checkCertificate(bound.certificate, r.TLS); err != nil {
		return err
	}
	switch {
	case !proven && bound.key == "" && !a.dpop.Required():
		return nil
	case !proven && bound.key == "":
		return fmt.Errorf("%w: token is not bound to a key, and dpop.required is set", authn.ErrInvalid)
	case !proven:
		return fmt.Errorf("%w: %w", authn.ErrInvalid, errBoundBearer)
	case bound.key == "":
		return fmt.Errorf("%w: token came with the DPoP scheme and is not bound to a key", authn.ErrInvalid)
	}
	// A forged proof costs what a forged token does.
	if err := a.limiter.Allow(r.Client, r.Now); err != nil {
		return err
	}
	err := a.dpop.Check(r, token, bound.key)
	if errors.Is(err, errSignature) {
		a.limiter.Charge(r.Client, r.Now)
	}
	return err
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
	bound, err := decodePart(thumbprint)
	if err != nil || string(bound) != string(own[:]) {
		return fmt.Errorf("%w: token is bound to another client certificate", authn.ErrInvalid)
	}
	return nil
}

// provenError is what is wrong with a credential of the DPoP scheme.
type provenError struct{ error }

func (e provenError) Unwrap() error { return e.error }

// Challenges returns the challenge of each scheme in which tokens may come; only
// that of the scheme that the credential came in names an error.
func (a *Authenticator) Challenges(err error) []string {
	if a.dpop.Required() {
		return []string{a.dpop.Challenge(a.config.Realm, err)}
	}
	bearer := authn.BearerChallenge(a.config.Realm, nil)
	switch {
	case errors.As(err, new(provenError)):
		return []string{a.dpop.Challenge(a.config.Realm, err), bearer}
	case errors.Is(err, errBoundBearer):
		return []string{a.Challenge(err), a.dpop.Challenge(a.config.Realm, nil)}
	}
	return []string{a.Challenge(err)}
}

// errBoundBearer: the token would be good with a proof.
var errBoundBearer = errors.New("token is bound to a key and came with the Bearer scheme")

// credential returns the token of an Authorization value and whether it comes with
// a proof (RFC 6750 section 2.1, RFC 9449 section 7.1). The scheme is
// case-insensitive, and nothing is taken for a token without it.
func credential(authorization string) (token string, proven bool, err error) {
	scheme, token, _ := strings.Cut(authorization, " ")
	proven = strings.EqualFold(scheme, dpop.Scheme)
	if !proven && !strings.EqualFold(scheme, "Bearer") {
		return "", false, authn.ErrNotMine
	}
	token = strings.TrimLeft(token, " ")
	switch {
	case token != "":
		return token, proven, nil
	case proven:
		return "", true, provenError{errNoToken}
	}
	return "", false, errNoToken
}

var errNoToken = fmt.Errorf("%w: the Authorization header names a scheme and has no token", authn.ErrInvalid)
