package introspection

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/dpop"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
)

// identityOf checks what the provider says about a token that it calls active, and
// makes the identity of it. An error refuses the token.
func (a *Authenticator) identityOf(f *facts, now time.Time) (*authz.Identity, error) {
	m := f.members
	if err := a.checkUse(m); err != nil {
		return nil, err
	}
	expires, err := a.checkTimes(m, now)
	if err != nil {
		return nil, err
	}
	issuer, err := text(m, "iss")
	if err != nil {
		return nil, err
	}
	if a.config.Issuer != "" && issuer != a.config.Issuer && (issuer != "" || a.config.Format != formatSigned) {
		return nil, fmt.Errorf("%w %.64q", authn.ErrIssuer, issuer)
	}
	if issuer == "" {
		issuer = a.config.Issuer // that of the signature
	}
	if issuer, err = a.use.issuer(issuer); err != nil {
		return nil, err
	}
	audiences, err := jwt.Strings(m, "aud")
	if err != nil {
		return nil, err
	}
	ours := func(x string) bool { return slices.Contains(a.config.Audiences, x) }
	if len(a.config.Audiences) > 0 && !slices.ContainsFunc(audiences, ours) {
		return nil, fmt.Errorf("%w %.64q", authn.ErrAudience, audiences)
	}
	id := &authz.Identity{
		Authenticated: true, Authenticator: a.name, Kind: a.use.kind(), Issuer: issuer, Audiences: audiences,
		Claims: m, TokenHeader: f.header, ExpiresAt: expires,
	}
	err = describe(id, m)
	a.use.ofClient(id)
	return id, err
}

// checkUse refuses what is active and no access token: providers answer questions
// about refresh tokens too, and a client must not use one in its place. RFC 7662 has
// no member for that; token_use is Hydra's and Cognito's, typ Keycloak's, and the rest
// stands in ID and logout tokens.
func (a *Authenticator) checkUse(m map[string]any) error {
	kind, err := text(m, "token_type")
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(a.config.TokenTypes, func(t string) bool { return strings.EqualFold(t, kind) }) {
		return fmt.Errorf("%w: token_type %.64q is not in token_types", errType, kind)
	}
	for _, name := range []string{"token_use", "typ"} {
		use, err := text(m, name)
		if err != nil {
			return err
		}
		switch strings.ToLower(use) {
		case "refresh", "refresh_token", "offline", "id", "id_token", "logout":
			return fmt.Errorf("%w: %s is %.64q", errType, name, use)
		}
	}
	for _, name := range []string{"at_hash", "c_hash", "s_hash", "events"} {
		if _, there := m[name]; there {
			return fmt.Errorf("%w: it has %q", errType, name)
		}
	}
	return nil
}

// bindingOf returns what the token is bound to (RFC 9449 section 6.2, RFC 8705 section
// 3.2). One that is said to be bound to a key has one: else it would be good for
// whoever has it.
func bindingOf(m map[string]any) (jwt.Binding, error) {
	bound, err := jwt.BindingOf(m)
	if kind, _ := m["token_type"].(string); err == nil && strings.EqualFold(kind, dpop.Scheme) && bound.Key == "" {
		err = errors.New("token_type is DPoP, and the answer names no key (cnf.jkt)")
	}
	if err != nil {
		return bound, fmt.Errorf("%w: %w", errBinding, err)
	}
	return bound, nil
}

// checkTimes returns the expiry; zero if the provider names none, which it need not.
func (a *Authenticator) checkTimes(m map[string]any, now time.Time) (expires time.Time, err error) {
	for _, name := range []string{"exp", "nbf", "iat"} {
		if _, there := m[name]; !there {
			continue
		}
		at, err := jwt.Date(m, name)
		switch {
		case err != nil:
			return time.Time{}, err
		case name == "exp" && !now.Before(at.Add(a.config.Leeway)):
			return time.Time{}, fmt.Errorf("%w at %s", authn.ErrExpired, at.UTC().Format(time.RFC3339))
		case name == "exp":
			expires = at
		case now.Before(at.Add(-a.config.Leeway)):
			return time.Time{}, fmt.Errorf("%w: %s is %s", authn.ErrNotYetValid, name, at.UTC().Format(time.RFC3339))
		}
	}
	return expires, nil
}

// describe fills the parts of id that are well-known members. One of a wrong type
// refuses the token: a policy that reads it would see nothing.
func describe(id *authz.Identity, m map[string]any) error {
	var err error
	if id.Subject, err = text(m, "sub"); err != nil {
		return err
	}
	for _, name := range []string{"client_id", "username"} {
		if _, err := text(m, name); err != nil {
			return err
		}
	}
	var ok bool
	if id.Actor, ok = m["act"].(map[string]any); !ok && m["act"] != nil {
		return errors.New("act is not an object")
	}
	for _, name := range []string{"scope", "scp"} {
		if id.Scopes, err = jwt.AppendScopes(id.Scopes, m, name); err != nil {
			return err
		}
	}
	return nil
}

// text returns a member that is a string; empty if it is absent.
func text(m map[string]any, name string) (string, error) {
	s, ok := m[name].(string)
	if !ok && m[name] != nil {
		return "", fmt.Errorf("%s is not a string", name)
	}
	return s, nil
}
