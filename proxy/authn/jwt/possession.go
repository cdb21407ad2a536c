package jwt

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/dpop"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

// Possession is the rule that a token is good only for who holds what it is bound
// to. It is the same for every mechanism whose tokens come in an Authorization
// header, wherever they learn from what a token is bound to.
type Possession struct {
	Realm   string
	Proofs  *dpop.Verifier
	Limiter *limit.Limiter // of forged proofs
}

// Check reports whether the sender holds what its token is bound to; proven says that
// the token came with the DPoP scheme. It is to be asked on each request, also for
// cached tokens. The error is authn.ErrInvalid, authn.ErrTooMany or
// authn.ErrUnavailable.
func (p *Possession) Check(ctx context.Context, r *authn.Request, bound Binding, token string, proven bool) error {
	if err := checkCertificate(bound.Certificate, r.TLS); err != nil {
		return err
	}
	switch {
	case !proven && bound.Key == "" && !p.Proofs.Required():
		return nil
	case !proven && bound.Key == "":
		return fmt.Errorf("%w: token is not bound to a key, and dpop.required is set", authn.ErrInvalid)
	case !proven:
		return fmt.Errorf("%w: %w", authn.ErrInvalid, errBoundBearer)
	case bound.Key == "":
		return fmt.Errorf("%w: token came with the DPoP scheme and is not bound to a key", authn.ErrInvalid)
	}
	// A forged proof costs what a forged token does.
	if err := p.Limiter.Allow(r.Client, r.Now); err != nil {
		return err
	}
	err := p.Proofs.Check(ctx, r, token, bound.Key)
	if errors.Is(err, authn.ErrSignature) {
		p.Limiter.Charge(r.Client, r.Now)
	}
	return err
}

// Challenges returns the challenge of each scheme in which tokens may come; only
// that of the scheme that the credential came in names an error.
func (p *Possession) Challenges(err error) []string {
	if p.Proofs.Required() {
		return []string{p.Proofs.Challenge(p.Realm, err)}
	}
	switch {
	case errors.As(err, new(provenError)):
		return []string{p.Proofs.Challenge(p.Realm, err), authn.BearerChallenge(p.Realm, nil)}
	case errors.Is(err, errBoundBearer):
		return []string{authn.BearerChallenge(p.Realm, err), p.Proofs.Challenge(p.Realm, nil)}
	}
	return []string{authn.BearerChallenge(p.Realm, err)}
}

// provenError is what is wrong with a credential of the DPoP scheme.
type provenError struct{ error }

func (e provenError) Unwrap() error { return e.error }

// Proven returns err as one about a token that came with the DPoP scheme, if it did:
// the challenge of that scheme is the one that has to name the error.
func Proven(err error, proven bool) error {
	if err == nil || !proven {
		return err
	}
	return provenError{err}
}

// errBoundBearer: the token would be good with a proof.
var errBoundBearer = errors.New("token is bound to a key and came with the Bearer scheme")

// Credential returns the token of an Authorization value and whether it comes with
// a proof (RFC 6750 section 2.1, RFC 9449 section 7.1). The scheme is
// case-insensitive, and nothing is taken for a token without it. The error is
// authn.ErrNotMine, or authn.ErrInvalid for a scheme without a token.
func Credential(authorization string) (token string, proven bool, err error) {
	scheme, token, _ := strings.Cut(authorization, " ")
	proven = strings.EqualFold(scheme, dpop.Scheme)
	if !proven && !strings.EqualFold(scheme, "Bearer") {
		return "", false, authn.ErrNotMine
	}
	token = strings.TrimLeft(token, " ")
	if token == "" {
		return "", proven, Proven(errNoToken, proven)
	}
	return token, proven, nil
}

var errNoToken = fmt.Errorf("%w: the Authorization header names a scheme and has no token", authn.ErrInvalid)
