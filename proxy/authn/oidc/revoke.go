package oidc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/session"
)

const (
	// revocationTimeout is how long an answer to a logout may wait for the provider, for
	// however many tokens.
	revocationTimeout = 3 * time.Second
	// maxRevocations is how many tokens are revoked at a time.
	maxRevocations = 8
)

// errUnsupported is a provider that does not revoke tokens of a kind (RFC 7009 section
// 2.2.1): access tokens that are JWTs, as a rule.
var errUnsupported = errors.New("the provider does not revoke such tokens")

// held is a token of a session that ended.
type held struct{ token, hint string }

// release has the provider revoke the tokens of sessions that ended (RFC 7009): nobody
// uses them any more, and a copy of one would outlive the logout. The sessions have
// ended whatever comes of it. A browser that went away does not keep it from happening.
func (a *Authenticator) release(ctx context.Context, ended []*session.Session) {
	ended = slices.DeleteFunc(slices.Clone(ended), func(s *session.Session) bool { return !a.own(s) })
	tokens := tokensOf(ended, a.client.now())
	if a.config.KeepTokensAtLogout || len(tokens) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revocationTimeout)
	defer cancel()
	m, err := a.provider.metadata(ctx)
	switch {
	case err != nil:
		a.released(ctx, "any", err)
		return
	case m.revocation == "":
		return
	}
	var g errgroup.Group
	g.SetLimit(maxRevocations)
	for _, t := range tokens {
		g.Go(func() error {
			a.released(ctx, t.hint, a.client.revoke(ctx, m, t))
			return nil
		})
	}
	_ = g.Wait() // each has said what came of it
}

// tokensOf are the tokens of sessions that are still good: the refresh tokens first,
// with which most providers revoke what came of them too.
func tokensOf(all []*session.Session, now time.Time) (out []held) {
	for _, s := range all {
		if s.RefreshToken != "" {
			out = append(out, held{s.RefreshToken, "refresh_token"})
		}
	}
	for _, s := range all {
		if s.AccessToken != "" && (s.AccessEnds == 0 || now.Unix() < s.AccessEnds) {
			out = append(out, held{s.AccessToken, "access_token"})
		}
	}
	return out
}

// released counts and logs what came of a revocation.
func (a *Authenticator) released(ctx context.Context, hint string, err error) {
	switch {
	case err == nil:
		a.count.revoked.Add(1)
	case errors.Is(err, errUnsupported) && hint == "access_token":
		a.count.unsupported.Add(1)
		a.logger.DebugContext(ctx, "access token lives on after the logout until it expires", slog.Any("error", err))
	default:
		a.count.unrevoked.Add(1)
		a.logger.WarnContext(ctx, "token may live on after the logout", slog.String("token_type", hint), slog.Any("error", err))
	}
}

// revoke has the provider revoke a token. One that it does not know is revoked (RFC
// 7009 section 2.2). The error has the code and not the text of the answer, which may
// repeat the token.
func (c *client) revoke(ctx context.Context, m *metadata, t held) error {
	status, body, err := c.post(ctx, m.revocation, url.Values{"token": {t.token}, "token_type_hint": {t.hint}})
	if err != nil {
		return fmt.Errorf("revocation endpoint: %w", err)
	}
	if status == http.StatusOK {
		return nil
	}
	doc, _ := jose.Object(body) // it may be anything
	if doc["error"] == "unsupported_token_type" {
		return fmt.Errorf("%w: revocation endpoint answered %d", errUnsupported, status)
	}
	code, _ := doc["error"].(string)
	return fmt.Errorf("revocation endpoint answered %d %.64q", status, code)
}
