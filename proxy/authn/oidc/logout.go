package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/session"
)

// logout ends the session here, has the provider revoke its tokens, and ends the session
// there, if the provider has addresses for that (RFC 7009, OpenID Connect RP-Initiated
// Logout 1.0). A POST has to come from a page of the same
// origin and to bring the token that GET gave it: other sites cannot log people out. To
// those browsers do not give our cookie (SameSite), so that GET has to say what is so.
func (a *Authenticator) logout(ctx context.Context, r *authn.Request) *authn.Answer {
	s, err := a.load(ctx, r)
	if err != nil && !errors.Is(err, session.ErrNone) {
		return a.failed(ctx, r, fmt.Errorf("%w: session: %w", authn.ErrUnavailable, err), "/")
	}
	target := ""
	if m, err := a.provider.metadata(ctx); err == nil {
		target = m.endSession
	}
	switch {
	case r.Method != "GET" && r.Method != "POST":
		return a.page(r, http.StatusMethodNotAllowed, pageDenied, "logout by "+r.Method)
	case s == nil && r.Method == "POST" && otherSite(r, a.origin(r)):
		return redirect(http.StatusSeeOther, a.config.LogoutPath, "logout by another site: the browser may have a session that it does not show it")
	case s == nil:
		a.forgetFlows(r, 0)
		_ = a.store.End(ctx, r, nil) // there is none; only cookies go
		return a.page(r, http.StatusOK, pageOut, "logout without a session")
	case r.Method == "GET":
		return a.logoutForm(r, s, target)
	}
	form, err := readForm(ctx, r)
	if err != nil || !ownForm(r, a.origin(r)) || !a.keys.CheckToken(a.logoutPurpose(), s.ID, form.Get("token")) {
		return a.page(r, http.StatusForbidden, pageDenied, "logout that the user did not ask for: its form is not ours")
	}
	if err := a.store.End(ctx, r, s); err != nil {
		return a.failed(ctx, r, fmt.Errorf("%w: end session: %w", authn.ErrUnavailable, err), "/")
	}
	a.count.loggedOut.Add(1)
	a.release(ctx, []*session.Session{s})
	return a.goodbye(r, s, target)
}

func (a *Authenticator) logoutPurpose() string { return "logout " + a.name }

// logoutForm gives the token, to scripts as JSON.
func (a *Authenticator) logoutForm(r *authn.Request, s *session.Session, target string) *authn.Answer {
	token := a.keys.Token(a.logoutPurpose(), s.ID)
	if person(r) {
		answer := a.render(r, http.StatusOK, pageLogout, pageData{Action: a.config.LogoutPath, Token: token, Link: "/"}, "logout form", target, a.config.PostLogoutRedirect)
		set(answer, "referrer-policy", "same-origin") // without a referrer the form's Origin is null
		return answer
	}
	body, err := json.Marshal(map[string]string{"token": token})
	if err != nil {
		return a.page(r, http.StatusInternalServerError, pageDenied, err.Error())
	}
	return &authn.Answer{Status: http.StatusOK, Body: body, Why: "logout token", Headers: []authz.Header{
		{Name: "content-type", Value: "application/json"},
		{Name: "cache-control", Value: "no-store"},
		{Name: "x-content-type-options", Value: "nosniff"},
	}}
}

// after is where the browser goes in the end, empty if that is for the provider to say.
func (a *Authenticator) after(r *authn.Request) string {
	if to := a.config.PostLogoutRedirect; !strings.HasPrefix(to, "/") {
		return to
	}
	return a.origin(r) + a.config.PostLogoutRedirect
}

// goodbye sends the browser to the provider, or to where the operator wants it.
func (a *Authenticator) goodbye(r *authn.Request, s *session.Session, target string) *authn.Answer {
	after := a.after(r)
	u, err := url.Parse(target)
	switch {
	case target != "" && err == nil:
		q := u.Query()
		q.Set("client_id", a.config.ClientID)
		if s.IDToken != "" {
			q.Set("id_token_hint", s.IDToken)
		}
		if after != "" {
			q.Set("post_logout_redirect_uri", after)
		}
		u.RawQuery = q.Encode()
		return redirect(http.StatusSeeOther, u.String(), "logged out, and on to the provider")
	case after != "":
		return redirect(http.StatusSeeOther, after, "logged out")
	}
	return a.page(r, http.StatusOK, pageOut, "logged out")
}

// maxForm bounds a form in bytes: a token and little else.
const maxForm = 64 << 10

// readForm reads a form body in which no field stands twice.
func readForm(ctx context.Context, r *authn.Request) (url.Values, error) {
	media, _, _ := strings.Cut(r.Header("content-type"), ";")
	if !strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded") || r.Body == nil {
		return nil, errors.New("body is not a form")
	}
	data, truncated, err := r.Body.Buffer(ctx)
	if err != nil || truncated || len(data) > maxForm {
		return nil, errors.New("form is too large or was cut off")
	}
	form, err := url.ParseQuery(string(data))
	if err != nil {
		return nil, err
	}
	for name, values := range form {
		if len(values) > 1 {
			return nil, fmt.Errorf("%.32q stands twice", name)
		}
	}
	return form, nil
}

// frontChannel is what the provider has the browser load when its session ends
// (OpenID Connect Front-Channel Logout 1.0 section 2). Browsers do not send our cookie
// into another site's frame, so it is the sid that names the session; it is not
// guessable, and one that nobody here knows changes nothing. The path is of one
// provider, so iss says nothing new: it is checked, and Entra ID leaves it out.
func (a *Authenticator) frontChannel(ctx context.Context, r *authn.Request) *authn.Answer {
	params, err := single(r.RawQuery)
	iss, named := params["iss"]
	if err != nil || params["sid"] == "" || named && iss != a.config.Issuer || r.Method != "GET" {
		return a.page(r, http.StatusBadRequest, pageDenied, "front-channel logout without sid, or with iss of another provider")
	}
	if s, err := a.load(ctx, r); err == nil && s.SID == params["sid"] {
		err = a.store.End(ctx, r, s)
		if err != nil {
			return a.failed(ctx, r, fmt.Errorf("%w: end session: %w", authn.ErrUnavailable, err), "/")
		}
		a.release(ctx, []*session.Session{s})
	}
	if err := a.store.RevokeKnown(ctx, a.config.Issuer, params["sid"]); err != nil {
		return a.failed(ctx, r, fmt.Errorf("%w: end sessions: %w", authn.ErrUnavailable, err), "/")
	}
	answer := a.page(r, http.StatusOK, pageOut, "front-channel logout")
	set(answer, "content-security-policy", a.look.Load().policy()+"; form-action 'none'") // the provider frames it
	return answer
}

// backChannel is where the provider tells that sessions ended (OpenID Connect
// Back-Channel Logout 1.0 section 2.5).
func (a *Authenticator) backChannel(ctx context.Context, r *authn.Request) *authn.Answer {
	err := a.revoke(ctx, r)
	status, body := http.StatusOK, []byte(nil)
	switch {
	case errors.Is(err, authn.ErrInvalid):
		status, body = http.StatusBadRequest, []byte(`{"error":"invalid_request"}`)
	case err != nil:
		status, body = http.StatusServiceUnavailable, []byte(`{"error":"temporarily_unavailable"}`)
	}
	why := "back-channel logout"
	if err != nil {
		why = err.Error()
		a.logger.WarnContext(ctx, "back-channel logout refused", slog.Any("error", err))
	}
	answer := &authn.Answer{Status: status, Body: body, Why: why, Headers: []authz.Header{{Name: "cache-control", Value: "no-store"}}}
	if body != nil {
		answer.Headers = append(answer.Headers, authz.Header{Name: "content-type", Value: "application/json"})
	}
	return answer
}

func (a *Authenticator) revoke(ctx context.Context, r *authn.Request) error {
	if r.Method != "POST" {
		return fmt.Errorf("%w: %s is not POST", authn.ErrInvalid, r.Method)
	}
	form, err := readForm(ctx, r)
	if err != nil {
		return fmt.Errorf("%w: %w", authn.ErrInvalid, err)
	}
	t, err := a.verifier.Verify(ctx, form.Get("logout_token"))
	if err != nil {
		return fmt.Errorf("logout token: %w", err)
	}
	issued, err := a.checkLogout(t, r.Now)
	if err != nil {
		return fmt.Errorf("%w: logout token: %w", authn.ErrInvalid, err)
	}
	id, _ := t.Claims["jti"].(string)
	sid, _ := t.Claims["sid"].(string)
	sub, _ := t.Claims["sub"].(string)
	fresh, err := a.endOnce(ctx, "logout "+id, issued, func() error { return a.store.Revoke(ctx, a.config.Issuer, sid, sub) })
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", authn.ErrUnavailable, err)
	case !fresh:
		return fmt.Errorf("%w: logout token was used before", authn.ErrInvalid)
	}
	a.count.loggedOut.Add(1)
	return nil
}

// endOnce has end do its work unless key was used before, and notes then that it was
// used: when the store fails on the way the provider sends the token again, which must
// find it as good as before. To end sessions twice changes nothing.
func (a *Authenticator) endOnce(ctx context.Context, key string, made time.Time, end func() error) (bool, error) {
	seen, err := a.store.Seen(ctx, key, made)
	if err != nil || seen {
		return false, err
	}
	if err := end(); err != nil {
		return false, err
	}
	return a.store.Once(ctx, key, made, maxLogoutAge+2*time.Minute)
}

const (
	logoutEvent  = "http://schemas.openid.net/event/backchannel-logout"
	maxLogoutAge = 5 * time.Minute
)

// checkLogout checks a logout token (OpenID Connect Back-Channel Logout 1.0 section
// 2.6) and returns when it was issued.
func (a *Authenticator) checkLogout(t *jwt.Token, now time.Time) (time.Time, error) {
	if t.Type != "logout+jwt" && t.Type != "jwt" && t.Type != "" {
		return time.Time{}, fmt.Errorf("type %.32q is not a logout token's", t.Type)
	}
	events, _ := t.Claims["events"].(map[string]any)
	if event, ok := events[logoutEvent].(map[string]any); !ok || event == nil {
		return time.Time{}, errors.New("events does not say that it is a logout")
	}
	if _, there := t.Claims["nonce"]; there {
		return time.Time{}, errors.New("it has a nonce, as ID tokens have")
	}
	audiences, err := jwt.Strings(t.Claims, "aud")
	if err != nil || !slices.Contains(audiences, a.config.ClientID) {
		return time.Time{}, fmt.Errorf("it is for %.64q", audiences)
	}
	for _, name := range []string{"sid", "sub", "jti"} {
		if v, ok := t.Claims[name].(string); !ok && t.Claims[name] != nil || len(v) > 255 {
			return time.Time{}, fmt.Errorf("%s is not a string, or too long", name)
		}
	}
	if t.Claims["jti"] == nil || t.Claims["jti"] == "" {
		return time.Time{}, errors.New("jti is missing")
	}
	if (t.Claims["sid"] == nil || t.Claims["sid"] == "") && (t.Claims["sub"] == nil || t.Claims["sub"] == "") {
		return time.Time{}, errors.New("neither sid nor sub says whose session ended")
	}
	check := a.checkTimes
	if _, there := t.Claims["exp"]; !there {
		check = a.checkBegun // older providers leave exp out; the age below ends the token
	}
	if err := check(t.Claims, now); err != nil {
		return time.Time{}, err
	}
	issued, err := jwt.Date(t.Claims, "iat")
	if err == nil && now.Sub(issued) > maxLogoutAge {
		err = fmt.Errorf("it was issued %s ago", now.Sub(issued))
	}
	return issued, err
}
