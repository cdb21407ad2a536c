package authn

import (
	"errors"
	"slices"
	"strings"
)

// Challenges returns the WWW-Authenticate values for err, which Authenticate
// returned: one per authentication scheme, in the order of the chain (RFC 9110
// section 11.6.1). Only the scheme whose credential was bad names an error.
func (c *Chain) Challenges(err error) []string {
	by, cause := rejectedBy(err)
	var out []string
	seen := make(map[string]bool, len(c.links))
	add := func(l *link, err error) {
		for _, value := range l.challenges(err) {
			scheme, _, _ := strings.Cut(value, " ")
			if scheme = strings.ToLower(scheme); scheme != "" && !seen[scheme] {
				seen[scheme] = true
				out = append(out, value)
			}
		}
	}
	if by != nil {
		add(by, cause)
	}
	if errors.Is(err, ErrInsufficientScope) {
		for i := range c.links {
			add(&c.links[i], ErrInsufficientScope)
		}
		// A scheme without scopes has nothing better to offer.
		return slices.DeleteFunc(out, func(value string) bool { return !strings.Contains(value, insufficientScope) })
	}
	for i := range c.links {
		add(&c.links[i], nil)
	}
	return out
}

// rejectedBy returns who found the credential bad; nil when err says something
// else, such as that there was none.
func rejectedBy(err error) (*link, error) {
	var r *refusal
	if !errors.As(err, &r) || !errors.Is(err, ErrInvalid) {
		return nil, nil
	}
	return r.by, r.err
}

// challenges asks for what the link has to say. One with a single scheme is told
// that the credential was bad, and not why.
func (l *link) challenges(err error) []string {
	switch ch := l.Authenticator.(type) {
	case Multischeme:
		return ch.Challenges(err)
	case Challenger:
		if err != nil && !errors.Is(err, ErrInsufficientScope) {
			err = ErrInvalid
		}
		return []string{ch.Challenge(err)}
	}
	return nil
}

// insufficientScope is the error of RFC 6750 section 3.1 for a token that lacks a
// scope.
const insufficientScope = `error="insufficient_scope"`

// BearerChallenge is the WWW-Authenticate value of RFC 6750 section 3 for realm.
// It names an error only when a credential was presented, and the text is the
// same for every reason: what was wrong with a token is for the log.
func BearerChallenge(realm string, err error) string {
	value := `Bearer realm="` + realm + `"`
	switch {
	case err == nil:
		return value
	case errors.Is(err, ErrInsufficientScope):
		return value + ", " + insufficientScope
	}
	return value + `, error="invalid_token", error_description="The access token is not acceptable"`
}
