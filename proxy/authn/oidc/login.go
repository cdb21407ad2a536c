package oidc

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/session"
)

// demand is what a login has to be like (RFC 9470).
type demand struct {
	ACR    string `json:"acr,omitempty"`     // any of these, separated by spaces
	MaxAge *int   `json:"max_age,omitempty"` // seconds
}

// Greet sends somebody at a browser to log in, by a page to choose the provider if
// there are several.
func (a *Authenticator) Greet(ctx context.Context, r *authn.Request, all []authn.Greeter) *authn.Answer {
	if !person(r) {
		return nil
	}
	seen := a.seen(r)
	defer r.Take(seen)
	if len(all) > 1 {
		return a.choose(seen, all)
	}
	return a.begin(ctx, seen, demand{}, a.asked(seen))
}

func (a *Authenticator) choose(r *authn.Request, all []authn.Greeter) *authn.Answer {
	var d pageData
	for _, g := range all {
		if o, ok := g.(*Authenticator); ok {
			link := o.config.LoginPath + "?" + url.Values{"return": {a.asked(r)}}.Encode()
			d.Choices = append(d.Choices, choice{Link: link, Label: o.config.DisplayName})
		}
	}
	answer := a.render(r, http.StatusUnauthorized, pageChoose, d, "choose where to log in")
	// A 401 has a challenge (RFC 9110 section 15.5.2). Browsers show the page where they
	// know no scheme of it; Basic would have them ask for a password.
	answer.Headers = append(answer.Headers, authz.Header{Name: "www-authenticate", Value: a.Challenge(nil)})
	return answer
}

// login is where links lead to log in.
func (a *Authenticator) login(ctx context.Context, r *authn.Request) *authn.Answer {
	params, err := single(r.RawQuery)
	if err != nil || r.Method != "GET" {
		return a.page(r, http.StatusBadRequest, pageRestart, "login by "+r.Method+", or with a query that is none")
	}
	to, ok := returnAddress(params["return"])
	if path, _, _ := strings.Cut(to, "?"); !ok || slices.Contains(a.paths(), path) {
		to = "/"
	}
	return a.begin(ctx, r, demand{}, to)
}

// StepUp sends somebody at a browser to log in again as the policy demands. If the
// session is like that already, another login would not change the decision.
func (a *Authenticator) StepUp(ctx context.Context, r *authn.Request, id *authz.Identity, c *authz.Challenge) *authn.Answer {
	d := demand{ACR: c.ACRValues}
	if c.MaxAge >= 0 {
		d.MaxAge = &c.MaxAge
	}
	if !person(r) || d == (demand{}) {
		return nil
	}
	leeway := time.Duration(0)
	if r.Now.Sub(id.ExpiresAt.Add(-a.config.Session.Lifetime)) < again {
		leeway = a.config.Leeway // the provider's clock is behind: the next login would be as old
	}
	if d.met(id.Claims, r.Now, leeway) == nil {
		return a.page(r, http.StatusForbidden, pageDenied, "the policy asks for an authentication that the session has")
	}
	seen := a.seen(r)
	defer r.Take(seen)
	return a.begin(ctx, seen, d, a.asked(seen))
}

// again is how soon after a login the next one is taken for the same.
const again = 3 * time.Second

// begin redirects to the provider, and has the browser go to a page afterwards.
func (a *Authenticator) begin(ctx context.Context, r *authn.Request, d demand, to string) *authn.Answer {
	origin := a.origin(r)
	if origin == "" {
		return a.page(r, http.StatusForbidden, pageOrigin, "nobody can log in at "+r.Scheme+"://"+r.Host+
			": it is not https (is the proxy in front one of trusted_proxies?), or not one of origins (does it rewrite Host? see internal_origins)")
	}
	m, err := a.provider.metadata(ctx)
	if err != nil {
		return a.failed(ctx, r, err, to)
	}
	f := &flow{
		State: session.NewID(), Nonce: session.NewID(), Verifier: oauth2.GenerateVerifier(),
		Origin: origin, Return: to, Begun: r.Now.UnixMilli(), demand: d,
	}
	at, err := a.authorization(ctx, m, f)
	if err != nil {
		return a.failed(ctx, r, err, to)
	}
	if err := a.remember(r, f); err != nil {
		return a.failed(ctx, r, err, to)
	}
	a.count.begun.Add(1)
	return redirect(http.StatusFound, at, "log in at "+a.config.Issuer)
}

// authorization is the address to log in at. The error is errRequest or
// authn.ErrUnavailable.
func (a *Authenticator) authorization(ctx context.Context, m *metadata, f *flow) (string, error) {
	pushes, err := a.pushes(m)
	if err != nil {
		return "", err
	}
	params, err := a.signed(m, a.parameters(f), pushes)
	if err != nil {
		return "", err
	}
	if pushes {
		if params, err = a.client.push(ctx, m, params); err != nil {
			return "", err
		}
	}
	separator := "?"
	if strings.Contains(m.authorization, "?") { // RFC 6749 section 3.1: the endpoint's own query stays
		separator = "&"
	}
	return m.authorization + separator + params.Encode(), nil
}

// parameters are those of the authorization request (RFC 6749 section 4.1.1, RFC 7636
// section 4.3, OpenID Connect Core section 3.1.2.1).
func (a *Authenticator) parameters(f *flow) url.Values {
	params := url.Values{
		"response_type": {"code"}, "client_id": {a.config.ClientID}, "redirect_uri": {a.redirectURI(f.Origin)},
		"scope": {strings.Join(a.config.Scopes, " ")}, "state": {f.State}, "nonce": {f.Nonce},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(f.Verifier)}, "code_challenge_method": {"S256"},
	}
	for name, value := range a.config.AuthorizationParameters {
		params.Set(name, value)
	}
	if f.ACR != "" {
		params.Set("acr_values", f.ACR)
	}
	if f.MaxAge != nil {
		params.Set("max_age", strconv.Itoa(*f.MaxAge))
	}
	return params
}

// errLogin is a login that cannot go on, and that the sender may begin again.
var errLogin = errors.New("login is refused")

// callback is where the provider sends the browser back to.
func (a *Authenticator) callback(ctx context.Context, r *authn.Request) *authn.Answer {
	if r.Method != "GET" {
		return a.page(r, http.StatusMethodNotAllowed, pageRestart, "callback by "+r.Method)
	}
	f, code, err := a.answered(ctx, r)
	to := "/"
	if f != nil {
		to = a.resume(r, f)
	}
	if err != nil {
		return a.failed(ctx, r, err, to)
	}
	s, err := a.establish(ctx, r, f, code)
	if err != nil {
		return a.failed(ctx, r, err, to)
	}
	if err := a.store.Create(ctx, r, s); err != nil {
		return a.failed(ctx, r, err, to)
	}
	a.count.done.Add(1)
	return redirect(http.StatusSeeOther, f.Origin+f.Return, "logged in")
}

// resume is where a page leads that tells of the end of a login: to the one that was
// asked for, at its own origin.
func (a *Authenticator) resume(r *authn.Request, f *flow) string {
	if f.Origin == a.origin(r) {
		return f.Return
	}
	return f.Origin + f.Return
}

// answered checks that the provider's answer belongs to a login that this browser
// began, and returns the code. The login comes with an error too if it is the one.
func (a *Authenticator) answered(ctx context.Context, r *authn.Request) (*flow, string, error) {
	params, err := single(r.RawQuery)
	if err != nil {
		return nil, "", err
	}
	cookie := a.flowOf(params["state"])
	value := cookie.Read(r)
	cookie.Clear(r) // whatever comes of it, it is spent
	f, err := a.opened(r, value)
	if err == nil {
		err = a.arrived(r, f)
	}
	if err != nil {
		return nil, "", err
	}
	if subtle.ConstantTimeCompare([]byte(f.State), []byte(params["state"])) != 1 {
		return nil, "", fmt.Errorf("%w: state is not that of the login in the cookie", errLogin)
	}
	fresh, err := a.store.Once(ctx, "state "+f.State, time.UnixMilli(f.Begun), flowLife)
	switch {
	case err != nil:
		return f, "", err
	case !fresh:
		return f, "", fmt.Errorf("%w: state was used before", errLogin)
	}
	if err := a.checkIssuer(ctx, params); err != nil {
		return f, "", err
	}
	if e := params["error"]; e != "" {
		return f, "", providerError(e)
	}
	if params["code"] == "" {
		return f, "", fmt.Errorf("%w: the provider sent neither code nor error", errLogin)
	}
	return f, params["code"], nil
}

// single reads a query in which no parameter stands twice (RFC 6749 section 3.1).
func single(query string) (map[string]string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("%w: query: %w", errLogin, err)
	}
	out := make(map[string]string, len(values))
	for name, v := range values {
		if len(v) > 1 {
			return nil, fmt.Errorf("%w: %.32q stands twice", errLogin, name)
		}
		out[name] = v[0]
	}
	return out, nil
}

// checkIssuer keeps a provider from being taken for another one (mix-up; RFC 9207
// section 2.4).
func (a *Authenticator) checkIssuer(ctx context.Context, params map[string]string) error {
	iss, there := params["iss"]
	if there {
		if iss != a.config.Issuer {
			return fmt.Errorf("%w: the answer is of issuer %.64q", errLogin, iss)
		}
		return nil
	}
	m, err := a.provider.metadata(ctx)
	if err != nil {
		return err
	}
	if m.namesIssuer {
		return fmt.Errorf("%w: the answer does not name its issuer, which this provider always does", errLogin)
	}
	return nil
}

// providerError is what the provider answered in place of a code (RFC 6749 section
// 4.1.2.1).
func providerError(code string) error {
	if code == "server_error" || code == "temporarily_unavailable" {
		return fmt.Errorf("%w: the provider says %s", authn.ErrUnavailable, code)
	}
	return fmt.Errorf("%w: the provider says %.64q", errLogin, code)
}

// establish makes a session of a code.
func (a *Authenticator) establish(ctx context.Context, r *authn.Request, f *flow, code string) (*session.Session, error) {
	m, err := a.provider.metadata(ctx)
	if err != nil {
		return nil, err
	}
	token, err := a.client.ask(ctx, m, a.redirectURI(f.Origin), code, url.Values{"code_verifier": {f.Verifier}})
	if err != nil {
		return nil, err
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, fmt.Errorf("%w: the token endpoint gave no ID token", authn.ErrInvalid)
	}
	claims, err := a.identify(ctx, raw, token.AccessToken, f.Nonce, r.Now)
	if err != nil {
		return nil, err
	}
	if err := f.met(claims, r.Now, a.config.Leeway); err != nil {
		return nil, err
	}
	s := &session.Session{Provider: a.name, Issuer: a.config.Issuer, Scopes: a.config.Scopes, Claims: claims}
	s.Subject, _ = claims["sub"].(string)
	return s, a.equip(ctx, m, s, token, raw, r.Now)
}

// equip fills in what the token endpoint gave, and the userinfo.
func (a *Authenticator) equip(ctx context.Context, m *metadata, s *session.Session, token *oauth2.Token, raw string, now time.Time) error {
	s.AccessToken, s.IDToken = token.AccessToken, raw
	if token.RefreshToken != "" {
		s.RefreshToken = token.RefreshToken
	}
	s.AccessEnds = 0
	if token.ExpiresIn > 0 {
		s.AccessEnds = now.Unix() + token.ExpiresIn
	}
	if scope, ok := token.Extra("scope").(string); ok && scope != "" {
		s.Scopes = strings.Fields(scope)
	}
	s.SID, _ = s.Claims["sid"].(string)
	if a.config.Userinfo {
		return a.addUserinfo(ctx, m, s)
	}
	return nil
}

// failed answers for a login that ended. The page says nothing of the reason, which
// is for the log. To begin again leads to the page that was asked for.
func (a *Authenticator) failed(ctx context.Context, r *authn.Request, err error, to string) *authn.Answer {
	level, status, page := slog.LevelInfo, http.StatusForbidden, pageDenied
	switch {
	case errors.Is(err, errDemand):
	case errors.Is(err, errRequest):
		level, status, page = slog.LevelError, http.StatusServiceUnavailable, pageUnable
	case errors.Is(err, errLogin):
		status, page = http.StatusBadRequest, pageRestart
	case errors.Is(err, authn.ErrInvalid):
		level = slog.LevelWarn
	default:
		level, status, page = slog.LevelWarn, http.StatusServiceUnavailable, pageLater
	}
	if page == pageDenied {
		to = root(to) // the same login would end the same way
	}
	a.count.refused.Add(1)
	a.logger.Log(ctx, level, "login ended", slog.Any("error", err), slog.String("request_id", r.ID))
	return a.render(r, status, page, pageData{Link: to}, err.Error())
}

// root is the start of the site that an address is of, which may be a path alone.
func root(to string) string {
	if scheme, rest, ok := strings.Cut(to, "://"); ok && to[0] != '/' {
		host, _, _ := strings.Cut(rest, "/")
		return scheme + "://" + host + "/"
	}
	return "/"
}
