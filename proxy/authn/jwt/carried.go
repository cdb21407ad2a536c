package jwt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// Use says how the tokens of an Authenticator differ from a client's bearer tokens:
// a proxy in front makes them and puts them into a header of its own. The zero value
// is bearer tokens.
type Use struct {
	// Kind is the Kind of the identities.
	Kind string
	// IDTokens also takes tokens that their claims show to be ID tokens.
	IDTokens bool
	// Check is a further rule for the claims of a token whose other claims are good. It
	// is asked once for a token.
	Check func(claims map[string]any, now time.Time) error
}

// NewCarried is New for tokens of another use.
func NewCarried(name string, c Config, u Use, deps Deps) (*Authenticator, error) {
	a, err := New(name, c, deps)
	if err == nil {
		a.rules.use = u
	}
	return a, err
}

// AuthenticateToken is Authenticate for a token from elsewhere than the Authorization
// header. It came for this authenticator, so that one of another issuer and one that
// is no JWT are authn.ErrInvalid too. It does not stand for the caller to upstreams.
func (a *Authenticator) AuthenticateToken(ctx context.Context, token string, r *authn.Request) (*authz.Identity, error) {
	e, err := a.accept(ctx, r, token)
	switch {
	case errors.Is(err, authn.ErrForeign):
		// The text alone: what is foreign is also "not mine", and would be passed over.
		return nil, fmt.Errorf("%w: %s", authn.ErrInvalid, strings.TrimPrefix(err.Error(), authn.ErrForeign.Error()+": "))
	case err != nil:
		return nil, err
	}
	if err := a.possession.Check(ctx, r, e.bound, token, false); err != nil {
		return nil, err
	}
	return e.identity, nil
}

// kind is the Kind of identities.
func (u *Use) kind() string {
	if u.Kind == "" {
		return Kind
	}
	return u.Kind
}

func (u *Use) check(claims map[string]any, now time.Time) error {
	if u.Check == nil {
		return nil
	}
	return u.Check(claims, now)
}
