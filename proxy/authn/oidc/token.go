package oidc

import (
	"context"
	"crypto"
	_ "crypto/sha256" // hashes of at_hash
	_ "crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/session"
)

// identify checks an ID token (OpenID Connect Core section 3.1.3.7) and returns its
// claims. The nonce is empty when the token comes with a renewal. The error is
// authn.ErrInvalid or authn.ErrUnavailable.
func (a *Authenticator) identify(ctx context.Context, raw, access, nonce string, now time.Time) (map[string]any, error) {
	t, err := a.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("ID token: %w", err)
	}
	if err := a.checkID(t, access, nonce, now); err != nil {
		return nil, fmt.Errorf("%w: ID token: %w", authn.ErrInvalid, err)
	}
	claims := maps.Clone(t.Claims)
	for _, name := range []string{"nonce", "at_hash", "c_hash", "s_hash"} {
		delete(claims, name) // they were for this exchange
	}
	return claims, nil
}

func (a *Authenticator) checkID(t *jwt.Token, access, nonce string, now time.Time) error {
	if t.Type != "" && t.Type != "jwt" && t.Type != "id_token+jwt" {
		return fmt.Errorf("type %.32q is not an ID token's", t.Type)
	}
	if _, there := t.Claims["events"]; there {
		return errors.New(`claim "events" shows that it is a security event`)
	}
	if sub, ok := t.Claims["sub"].(string); !ok || sub == "" || len(sub) > 255 {
		return errors.New("sub is missing, empty, longer than 255 bytes or not a string")
	}
	if _, there := t.Claims["sid"].(string); !there && t.Claims["sid"] != nil {
		return errors.New("sid is not a string")
	}
	if err := errors.Join(a.checkAudience(t.Claims), a.checkTimes(t.Claims, now)); err != nil {
		return err
	}
	if nonce != "" || t.Claims["nonce"] != nil {
		got, _ := t.Claims["nonce"].(string)
		if nonce != "" && subtle.ConstantTimeCompare([]byte(got), []byte(nonce)) != 1 {
			return errors.New("nonce is not that of the login")
		}
	}
	return checkHash(t, access)
}

// checkAudience: the token is for us, and if it is for others too it says that we are
// who asked for it.
func (a *Authenticator) checkAudience(claims map[string]any) error {
	audiences, err := jwt.Strings(claims, "aud")
	switch azp, there := claims["azp"]; {
	case err != nil:
		return err
	case !slices.Contains(audiences, a.config.ClientID):
		return fmt.Errorf("it is for %.64q", audiences)
	case there && azp != a.config.ClientID:
		return fmt.Errorf("azp is %.64q", azp)
	case !there && len(audiences) > 1:
		return errors.New("it has several audiences and no azp")
	}
	return nil
}

func (a *Authenticator) checkTimes(claims map[string]any, now time.Time) error {
	expires, err := jwt.Date(claims, "exp")
	if err != nil {
		return err
	}
	if !now.Before(expires.Add(a.config.Leeway)) {
		return fmt.Errorf("it expired at %s", expires.UTC().Format(time.RFC3339))
	}
	return a.checkBegun(claims, now)
}

// checkBegun: iat is there, and neither it nor nbf is in the future.
func (a *Authenticator) checkBegun(claims map[string]any, now time.Time) error {
	issued, err := jwt.Date(claims, "iat")
	if err != nil {
		return err
	}
	begins := issued
	if claims["nbf"] != nil {
		if begins, err = jwt.Date(claims, "nbf"); err != nil {
			return err
		}
	}
	if now.Before(issued.Add(-a.config.Leeway)) || now.Before(begins.Add(-a.config.Leeway)) {
		return errors.New("iat or nbf is in the future")
	}
	return nil
}

// checkHash checks that the access token is the one that came with the ID token, if
// that says so (OpenID Connect Core section 3.1.3.6).
func checkHash(t *jwt.Token, access string) error {
	want, there := t.Claims["at_hash"]
	if !there {
		return nil
	}
	text, ok := want.(string)
	alg, _ := t.Header["alg"].(string)
	hash := crypto.SHA512 // EdDSA, as Ed25519 hashes
	switch {
	case strings.HasSuffix(alg, "256"):
		hash = crypto.SHA256
	case strings.HasSuffix(alg, "384"):
		hash = crypto.SHA384
	}
	sum := digest(hash, []byte(access))
	if !ok || subtle.ConstantTimeCompare([]byte(text), []byte(base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2]))) != 1 {
		return errors.New("at_hash is of another access token")
	}
	return nil
}

// errDemand is a login that is not like the policy demanded.
var errDemand = errors.New("the provider did not authenticate as the policy demands")

// met reports what is missing from an authentication.
func (d demand) met(claims map[string]any, now time.Time, leeway time.Duration) error {
	if d.ACR != "" {
		acr, _ := claims["acr"].(string)
		if acr == "" || !slices.Contains(strings.Fields(d.ACR), acr) {
			return fmt.Errorf("%w: acr is %.64q, wanted is %.64q", errDemand, acr, d.ACR)
		}
	}
	if d.MaxAge == nil {
		return nil
	}
	at, err := jwt.Date(claims, "auth_time")
	if err != nil {
		return fmt.Errorf("%w: %w", errDemand, err)
	}
	if age := now.Sub(at); age > time.Duration(*d.MaxAge)*time.Second+leeway {
		return fmt.Errorf("%w: it was %s ago", errDemand, age)
	}
	return nil
}

// ofTokens are claims of tokens and of how somebody authenticated (OpenID Connect Core
// section 2, RFC 7519, RFC 7800, RFC 8693). The userinfo, which is not signed and which
// people may write, is not asked for them.
func ofTokens() []string {
	return []string{
		"iss", "aud", "exp", "nbf", "iat", "jti", "auth_time", "acr", "amr", "azp", "sid", "nonce", "at_hash", "c_hash", "s_hash",
		"cnf", "act", "may_act", "scope", "scp", "client_id", "events",
	}
}

// addUserinfo adds the claims of the userinfo endpoint (OpenID Connect Core section
// 5.3). Those of the ID token, which is signed, win.
func (a *Authenticator) addUserinfo(ctx context.Context, m *metadata, s *session.Session) error {
	if m.userinfo == "" {
		return fmt.Errorf("%w: userinfo is configured, and the provider has no userinfo endpoint", authn.ErrInvalid)
	}
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	info, err := a.provider.object(ctx, m.userinfo, s.AccessToken)
	if err != nil {
		class := authn.ErrInvalid
		if away(err) {
			class = authn.ErrUnavailable
		}
		return fmt.Errorf("%w: userinfo: %w", class, err)
	}
	if info["sub"] != s.Subject {
		return fmt.Errorf("%w: userinfo is of another subject", authn.ErrInvalid)
	}
	for name, value := range info {
		if _, there := s.Claims[name]; !there && !slices.Contains(ofTokens(), name) {
			s.Claims[name] = value
		}
	}
	return nil
}
