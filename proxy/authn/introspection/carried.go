package introspection

import (
	"context"
	"fmt"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// Use says how the tokens of an Authenticator differ from a client's bearer tokens: the
// gateway got them itself, for a client. The zero value is bearer tokens.
type Use struct {
	// Kind is the Kind of the identities.
	Kind string
	// Issuer is who gave the tokens: an answer that names another is refused, and one
	// that names none is of it.
	Issuer string
}

// NewCarried is New for tokens of another use.
func NewCarried(name string, c Config, u Use, deps Deps) (*Authenticator, error) {
	a, err := New(name, c, deps)
	if err == nil {
		a.use = u
	}
	return a, err
}

// AuthenticateToken is Authenticate for a token from elsewhere than the Authorization
// header. It came for this authenticator, so that the provider is asked about it
// whatever it looks like.
func (a *Authenticator) AuthenticateToken(ctx context.Context, token string, r *authn.Request) (*authz.Identity, error) {
	return a.accept(ctx, token, false, r)
}

// kind is the Kind of identities.
func (u *Use) kind() string {
	if u.Kind == "" {
		return Kind
	}
	return u.Kind
}

// issuer returns whose token it is, of which an answer names the issuer; empty if it
// names none.
func (u *Use) issuer(named string) (string, error) {
	switch {
	case u.Issuer == "" || named == u.Issuer:
		return named, nil
	case named == "":
		return u.Issuer, nil
	}
	return "", fmt.Errorf("%w %.64q, and %.64q gave the token", authn.ErrIssuer, named, u.Issuer)
}

// ofClient completes the identity of a token that a client got for itself: it is the
// subject where the answer names no other, as in JWTs (RFC 9068 section 2.2).
func (u *Use) ofClient(id *authz.Identity) {
	if *u != (Use{}) && id.Subject == "" {
		id.Subject, _ = id.Claims["client_id"].(string)
	}
}
