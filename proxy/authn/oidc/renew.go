package oidc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/session"
)

// renew gets new tokens for a session (OpenID Connect Core section 12). A provider
// that refuses ends the session: session.ErrNone. One that cannot be reached does not.
func (a *Authenticator) renew(ctx context.Context, s *session.Session) (*session.Session, error) {
	next, err := a.ask(ctx, s)
	switch {
	case errors.Is(err, authn.ErrInvalid):
		a.count.ended.Add(1)
		a.logger.InfoContext(ctx, "session ended: it was not renewed", slog.Any("error", err))
		return nil, fmt.Errorf("%w: %w", session.ErrNone, err)
	case err != nil:
		a.logger.WarnContext(ctx, "session could not be renewed now; it goes on without an access token", slog.Any("error", err))
		return nil, err
	}
	a.count.renewed.Add(1)
	return next, nil
}

func (a *Authenticator) ask(ctx context.Context, s *session.Session) (*session.Session, error) {
	m, err := a.provider.metadata(ctx)
	if err != nil {
		return nil, err
	}
	token, err := a.client.ask(ctx, m, "", "", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.RefreshToken}})
	if err != nil {
		return nil, err
	}
	now := a.client.now()
	next := s.Copy()
	next.Claims = maps.Clone(s.Claims)
	raw, ok := token.Extra("id_token").(string)
	if !ok || raw == "" {
		return next, a.equip(ctx, m, next, token, s.IDToken, now)
	}
	claims, err := a.identify(ctx, raw, token.AccessToken, "", now)
	if err != nil {
		return nil, err
	}
	if claims["sub"] != s.Subject {
		return nil, fmt.Errorf("%w: the renewed ID token is of another subject", authn.ErrInvalid)
	}
	if s.SID != "" && claims["sid"] != nil && claims["sid"] != s.SID {
		return nil, fmt.Errorf("%w: the renewed ID token is of another session", authn.ErrInvalid)
	}
	// A renewal is no authentication: it cannot make one better or more recent, and
	// some providers leave out of it what they said at the login.
	for _, name := range []string{"auth_time", "acr", "amr", "sid"} {
		if delete(claims, name); s.Claims[name] != nil {
			claims[name] = s.Claims[name]
		}
	}
	next.Claims = claims
	return next, a.equip(ctx, m, next, token, raw, now)
}
