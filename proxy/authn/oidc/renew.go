package oidc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"time"

	"golang.org/x/oauth2"

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
		return a.equipAgain(ctx, m, s, next, token, s.IDToken, now)
	}
	claims, err := a.identify(ctx, raw, token.AccessToken, "", now)
	switch {
	case errors.Is(err, authn.ErrUnavailable):
		// The token endpoint need not give an ID token here at all, and what it gave
		// beside may be good only once: who the session is of stays what it was.
		a.logger.WarnContext(ctx, "session renewed, and its ID token could not be checked", slog.Any("error", err))
		return a.equipAgain(ctx, m, s, next, token, s.IDToken, now)
	case err != nil:
		return nil, err
	case claims["sub"] != s.Subject:
		return nil, fmt.Errorf("%w: the renewed ID token is of another subject", authn.ErrInvalid)
	case s.SID != "" && claims["sid"] != nil && claims["sid"] != s.SID:
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
	return a.equipAgain(ctx, m, s, next, token, raw, now)
}

// equipAgain equips next, which s becomes. Where the userinfo is not to be had now, it
// is what it was.
func (a *Authenticator) equipAgain(ctx context.Context, m *metadata, s, next *session.Session, token *oauth2.Token, raw string, now time.Time) (*session.Session, error) {
	err := a.equip(ctx, m, next, token, raw, now)
	if !errors.Is(err, authn.ErrUnavailable) {
		return next, err
	}
	a.logger.WarnContext(ctx, "session renewed without its userinfo", slog.Any("error", err))
	for name, value := range s.Claims {
		if _, there := next.Claims[name]; !there {
			next.Claims[name] = value
		}
	}
	return next, nil
}
