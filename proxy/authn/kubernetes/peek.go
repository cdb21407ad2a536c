package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
)

// peeked is what a token says of itself, before anybody has confirmed a word of it. It
// is believed only where it speaks against the token.
type peeked struct {
	expires time.Time // zero: it does not say
}

var (
	errOpaque  = fmt.Errorf("%w: not a JWT", authn.ErrForeign)
	errNotOurs = fmt.Errorf("%w: not a service account token of this cluster", authn.ErrForeign)
)

// peek looks whether a token is one to ask about: authn.ErrForeign if it is somebody
// else's, authn.ErrInvalid if its own words are enough to refuse it.
func (a *Authenticator) peek(token string, now time.Time) (*peeked, error) {
	if !jose.Compact(token) {
		return nil, errOpaque
	}
	if len(token) > jose.MaxToken {
		return nil, fmt.Errorf("%w: token is longer than %d bytes", authn.ErrInvalid, jose.MaxToken)
	}
	claims, err := jose.Peek(token)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", authn.ErrForeign, err)
	case !a.ours(claims):
		return nil, errNotOurs
	}
	p := &peeked{}
	if _, there := claims["exp"]; there {
		if p.expires, err = jwt.Date(claims, "exp"); err != nil {
			return nil, fmt.Errorf("%w: %w", authn.ErrInvalid, err)
		}
		if !now.Before(p.expires) {
			return nil, fmt.Errorf("%w: %w at %s", authn.ErrInvalid, authn.ErrExpired, p.expires.UTC().Format(time.RFC3339))
		}
	}
	return p, a.peekAudience(claims)
}

// peekAudience refuses tokens that are for others. One without aud, as older clusters
// made, is for the API server's own audiences, which may be ours.
func (a *Authenticator) peekAudience(claims map[string]any) error {
	audiences, err := jwt.Strings(claims, "aud")
	if err != nil {
		return fmt.Errorf("%w: %w", authn.ErrInvalid, err)
	}
	if audiences != nil && !slices.ContainsFunc(audiences, a.ourAudience) {
		return fmt.Errorf("%w: %w %.64q", authn.ErrInvalid, authn.ErrAudience, audiences)
	}
	return nil
}

func (a *Authenticator) ourAudience(name string) bool {
	return slices.Contains(a.config.Audiences, name)
}

// ours tells by the issuer, if issuers are listed, else by the claims that only service
// account tokens have: kubernetes.io, and kubernetes.io/... in those of secrets.
func (a *Authenticator) ours(claims map[string]any) bool {
	if len(a.config.Issuers) > 0 {
		iss, ok := claims["iss"].(string)
		return ok && slices.Contains(a.config.Issuers, iss)
	}
	for name := range claims {
		if name == "kubernetes.io" || strings.HasPrefix(name, "kubernetes.io/") {
			return true
		}
	}
	return false
}
