package jwt

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
)

// rules are the claims checks of one Config.
type rules struct {
	name   string // of the authenticator
	issuer string
	// trustDomain is that of SVIDs; empty for other tokens. Issuer is then looked at only
	// with checkIssuer.
	trustDomain string
	checkIssuer bool
	audiences   []string
	types       []string // lower case, without "application/"
	leeway      time.Duration
	required    map[string][]string
	optional    []string // claims that unsigned tokens may lack
	scopes      []string // claims that hold them
	idTokens    bool
	use         Use
}

func newRules(name string, c Config) *rules {
	r := &rules{name: name, issuer: c.Issuer, audiences: c.Audiences, leeway: c.Leeway, required: c.RequiredClaims, scopes: c.ScopeClaims, idTokens: c.AcceptIDTokens, optional: c.InsecureOptionalClaims}
	if r.trustDomain, r.checkIssuer = c.TrustDomain, c.Issuer != ""; c.Issuer == "" {
		r.issuer = "spiffe://" + c.TrustDomain
	}
	for _, t := range c.TokenTypes {
		r.types = append(r.types, jose.MediaType(t))
	}
	return r
}

// mayLack reports whether a token needs no such claim and has none.
func (r *rules) mayLack(t *jose.JWS, claims map[string]any, name string) bool {
	_, there := claims[name]
	return !there && t.Algorithm == unsignedAlgorithm && slices.Contains(r.optional, name)
}

// check returns the identity of a token whose signature holds. Without exp it has no end.
func (r *rules) check(t *jose.JWS, claims map[string]any, now time.Time) (*authz.Identity, error) {
	if err := r.checkType(t, claims); err != nil {
		return nil, err
	}
	expires, err := r.checkTimes(t, claims, now)
	if err != nil {
		return nil, err
	}
	audiences, err := r.checkAudience(t, claims)
	if err != nil {
		return nil, err
	}
	if err := r.checkRequired(claims); err != nil {
		return nil, err
	}
	if err := r.use.check(claims, now); err != nil {
		return nil, err
	}
	id := &authz.Identity{
		Authenticated: true, Authenticator: r.name, Kind: r.use.kind(), Issuer: r.issuer, Audiences: audiences,
		Claims: claims, TokenHeader: t.Header, ExpiresAt: expires,
	}
	return id, r.describe(id, claims)
}

// checkType refuses tokens made for another use than calling an API (RFC 8725
// section 3.11): by their typ, and those that only their claims betray, because
// many issuers type everything "JWT": at_hash, c_hash and s_hash stand in ID
// tokens (OpenID Connect Core section 3.3.2.11), events in logout and other
// security event tokens (RFC 8417 section 2.2).
func (r *rules) checkType(t *jose.JWS, claims map[string]any) error {
	typ := jose.MediaType(t.Type)
	if !slices.Contains(r.types, typ) {
		return fmt.Errorf("token type %.64q is not accepted", t.Type)
	}
	if typ == "at+jwt" || r.use.IDTokens {
		return nil
	}
	betray := []string{"events", "at_hash", "c_hash", "s_hash"}
	if r.idTokens {
		betray = betray[:1]
	}
	for _, name := range betray {
		if _, there := claims[name]; there {
			return fmt.Errorf("claim %q shows that this is not an access token", name)
		}
	}
	return nil
}

// checkTimes returns the expiry (RFC 7519 sections 4.1.4 to 4.1.6). A token that
// never expires is refused: it could not be taken back.
func (r *rules) checkTimes(t *jose.JWS, claims map[string]any, now time.Time) (expires time.Time, err error) {
	if !r.mayLack(t, claims, "exp") {
		if expires, err = r.checkExpiry(claims, now); err != nil {
			return time.Time{}, err
		}
	}
	for _, name := range []string{"nbf", "iat"} {
		if _, there := claims[name]; !there {
			continue
		}
		from, err := numericDate(claims, name)
		if err != nil {
			return time.Time{}, err
		}
		if now.Before(from.Add(-r.leeway)) {
			return time.Time{}, fmt.Errorf("%w: %s is in the future: %s", authn.ErrNotYetValid, name, from.UTC().Format(time.RFC3339))
		}
	}
	return expires, nil
}

func (r *rules) checkExpiry(claims map[string]any, now time.Time) (time.Time, error) {
	expires, err := numericDate(claims, "exp")
	if err != nil {
		return time.Time{}, err
	}
	if !expires.After(time.Unix(0, 0)) {
		return time.Time{}, errors.New("exp is not a number above 0")
	}
	if !now.Before(expires.Add(r.leeway)) {
		return time.Time{}, fmt.Errorf("%w at %s", authn.ErrExpired, expires.UTC().Format(time.RFC3339))
	}
	return expires, nil
}

// maxDate is the end of the year 9999 in Unix seconds, past which time.Time has
// no RFC 3339 form.
const maxDate = 253402300799

// numericDate reads a NumericDate: a JSON number of seconds, which may have a
// fraction (RFC 7519 section 2).
func numericDate(claims map[string]any, name string) (time.Time, error) {
	n, ok := claims[name].(json.Number)
	if !ok {
		return time.Time{}, fmt.Errorf("%s is missing or not a number", name)
	}
	f, err := n.Float64()
	if err != nil || f < 0 || f > maxDate {
		return time.Time{}, fmt.Errorf("%s is not a time between 1970 and 9999", name)
	}
	sec, frac := math.Modf(f)
	return time.Unix(int64(sec), int64(frac*1e9)), nil
}

func (r *rules) checkAudience(t *jose.JWS, claims map[string]any) ([]string, error) {
	if r.mayLack(t, claims, "aud") {
		return nil, nil
	}
	audiences, err := stringOrList(claims, "aud")
	if err != nil {
		return nil, err
	}
	for _, a := range audiences {
		if slices.Contains(r.audiences, a) {
			return audiences, nil
		}
	}
	return nil, fmt.Errorf("%w %.64q", authn.ErrAudience, audiences)
}

func (r *rules) checkRequired(claims map[string]any) error {
	for name, allowed := range r.required {
		if !matches(claims[name], allowed) {
			return fmt.Errorf("claim %q has none of the required values", name)
		}
	}
	return nil
}

func matches(v any, allowed []string) bool {
	switch v := v.(type) {
	case string:
		return slices.Contains(allowed, v)
	case json.Number:
		return slices.Contains(allowed, v.String())
	case bool:
		return slices.Contains(allowed, fmt.Sprint(v))
	case []any:
		return slices.ContainsFunc(v, func(e any) bool {
			_, nested := e.([]any)
			return !nested && matches(e, allowed)
		})
	}
	return false
}

// describe fills the parts of id that are well-known claims. A claim of a wrong
// type refuses the token: a policy that reads it would see nothing.
func (r *rules) describe(id *authz.Identity, claims map[string]any) error {
	var ok bool
	if id.Subject, ok = claims["sub"].(string); !ok && claims["sub"] != nil {
		return errors.New("sub is not a string")
	}
	if id.Actor, ok = claims["act"].(map[string]any); !ok && claims["act"] != nil {
		return errors.New("act is not an object")
	}
	for _, name := range r.scopes {
		var err error
		if id.Scopes, err = AppendScopes(id.Scopes, claims, name); err != nil {
			return err
		}
	}
	return nil
}

// stringOrList reads a claim that is a string or an array of strings; nil if it
// is absent.
func stringOrList(claims map[string]any, name string) ([]string, error) {
	switch v := claims[name].(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		out := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("%s has an element that is not a string", name)
			}
			out[i] = s
		}
		return out, nil
	}
	return nil, fmt.Errorf("%s is neither a string nor an array of strings", name)
}
