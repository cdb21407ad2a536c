package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/session"
)

// token returns what GET gives scripts to log out with.
func (b *browser) token() string {
	b.t.Helper()
	answer := b.at(b.request("GET", "/oauth2/logout", "accept", "application/json"))
	var doc struct{ Token string }
	if err := json.Unmarshal(answer.Body, &doc); err != nil || doc.Token == "" {
		b.t.Fatalf("logout token: %s %v", answer.Body, err)
	}
	return doc.Token
}

func (b *browser) post(path, body string, headers ...string) *authn.Request {
	r := b.request("POST", path, append([]string{"content-type", "application/x-www-form-urlencoded"}, headers...)...)
	r.Body = form{body}
	return r
}

func TestLogout(t *testing.T) {
	s := newSetup(t, func(c *Config) { c.PostLogoutRedirect = "/bye" })
	b := s.browser()
	b.logIn("/")
	page := b.at(b.request("GET", "/oauth2/logout"))
	if page.Status != 200 || !strings.Contains(string(page.Body), `<form method="post" action="/oauth2/logout">`) {
		t.Errorf("form: %d %s", page.Status, page.Body)
	}
	copied := s.browser()
	maps.Copy(copied.jar, b.jar)
	token := b.token()
	elsewhere := s.browser()
	elsewhere.logIn("/")
	for name, tc := range map[string]struct {
		body    string
		headers []string
	}{
		"no token":                {"", []string{"origin", "https://app.example"}},
		"another session's token": {"token=" + elsewhere.token(), []string{"origin", "https://app.example"}},
		"no origin":               {"token=" + token, nil},
		"another origin":          {"token=" + token, []string{"origin", "https://evil.example"}},
		"null origin":             {"token=" + token, []string{"origin", "null"}},
		"null origin, cross-site": {"token=" + token, []string{"origin", "null", "sec-fetch-site", "cross-site"}},
		"another site":            {"token=" + token, []string{"sec-fetch-site", "cross-site"}},
		"same site":               {"token=" + token, []string{"sec-fetch-site", "same-site"}},
		"origins disagree":        {"token=" + token, []string{"sec-fetch-site", "same-origin", "origin", "https://evil.example"}},
		"token twice":             {"token=" + token + "&token=x", []string{"origin", "https://app.example"}},
	} {
		if a := b.at(b.post("/oauth2/logout", tc.body, tc.headers...)); a.Status != 403 || !b.in() {
			t.Errorf("%s: answered %d: %s", name, a.Status, a.Why)
		}
	}
	wrong := b.post("/oauth2/logout", "token="+token, "origin", "https://app.example")
	wrong.Headers[0].Value = "text/plain"
	if a := b.at(wrong); a.Status != 403 {
		t.Errorf("no form: %d", a.Status)
	}
	answer := b.at(b.post("/oauth2/logout", "token="+token, "origin", "https://app.example", "sec-fetch-site", "same-origin"))
	u := sent(t, answer)
	if q := u.Query(); u.Path != "/logout" || !strings.HasPrefix(u.String(), s.idp.URL) || q.Get("client_id") != "web" ||
		q.Get("post_logout_redirect_uri") != "https://app.example/bye" || strings.Count(q.Get("id_token_hint"), ".") != 2 {
		t.Errorf("sent to %s", u)
	}
	if len(b.jar) != 0 || b.in() {
		t.Errorf("still logged in: %v", b.jar)
	}
	if copied.in() {
		t.Error("a copy of the cookie is still good")
	}
	if !elsewhere.in() {
		t.Error("another session ended too")
	}
	if a := b.at(b.request("GET", "/oauth2/logout")); a.Status != 200 {
		t.Errorf("logout without a session: %d", a.Status)
	}
}

// TestLogoutFromStrictPage: where a page allows no referrer, the browser says null in
// place of the form's origin.
func TestLogoutFromStrictPage(t *testing.T) {
	s := newSetup(t, nil)
	b := s.browser()
	b.logIn("/")
	a := b.at(b.post("/oauth2/logout", "token="+b.token(), "origin", "null", "sec-fetch-site", "same-origin"))
	if sent(t, a); b.in() {
		t.Error("still logged in")
	}
}

// TestLogoutByAnotherSite: browsers keep our cookie back from another site's form, which
// tells nothing of the session.
func TestLogoutByAnotherSite(t *testing.T) {
	s := newSetup(t, nil)
	b := s.browser()
	b.logIn("/")
	for name, tc := range map[string]struct {
		headers []string
		status  int
	}{
		"another site":             {[]string{"origin", "https://evil.example", "sec-fetch-site", "cross-site"}, 303},
		"null origin":              {[]string{"origin", "null", "sec-fetch-site", "cross-site"}, 303},
		"without an origin":        {[]string{"sec-fetch-site", "cross-site"}, 303},
		"without fetch metadata":   {[]string{"origin", "https://evil.example"}, 303},
		"our own, after the end":   {[]string{"origin", "https://app.example", "sec-fetch-site", "same-origin"}, 200},
		"a script without session": {nil, 200},
	} {
		r := s.browser().post("/oauth2/logout", "token=x", tc.headers...)
		a := b.at(r)
		if a.Status != tc.status || !b.in() {
			t.Errorf("%s: answered %d: %s", name, a.Status, a.Why)
		}
		if a.Status != 303 {
			continue
		}
		if u := sent(t, a); u.String() != "/oauth2/logout" || len(r.Response) != 0 {
			t.Errorf("%s: sent to %s with %v", name, u, r.Response)
		}
	}
	if a := b.at(b.request("GET", "/oauth2/logout", "accept", "text/html", "sec-fetch-site", "cross-site")); !strings.Contains(string(a.Body), "<h1>Log out?</h1>") {
		t.Errorf("there the user sees %d %s", a.Status, a.Body)
	}
}

// TestLogoutFormPolicy: browsers apply form-action to each redirect that follows the
// form, and send its origin only where the page may be a referrer.
func TestLogoutFormPolicy(t *testing.T) {
	for after, want := range map[string]string{
		"":                     "form-action 'self' %s",
		"/bye":                 "form-action 'self' %s",
		"https://www.example/": "form-action 'self' %s https:",
	} {
		s := newSetup(t, func(c *Config) { c.PostLogoutRedirect = after })
		b := s.browser()
		b.logIn("/")
		headers := map[string]string{}
		for _, h := range b.at(b.request("GET", "/oauth2/logout")).Headers {
			headers[h.Name] = h.Value
		}
		if want = fmt.Sprintf(want, s.idp.URL); !strings.HasSuffix(headers["content-security-policy"], want) || headers["referrer-policy"] != "same-origin" {
			t.Errorf("%q: %v", after, headers)
		}
	}
}

func TestLogoutWithoutProvider(t *testing.T) {
	for after, want := range map[string]string{"": "", "/bye": "https://app.example/bye", "https://www.example/": "https://www.example/"} {
		s := newSetup(t, func(c *Config) { c.PostLogoutRedirect = after })
		s.idp.set(func(f *fake) { f.metadata = map[string]any{"end_session_endpoint": nil} })
		s.pass(metadataAge)
		if _, err := s.a.provider.refresh(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		b := s.browser()
		b.logIn("/")
		answer := b.at(b.post("/oauth2/logout", "token="+b.token(), "origin", "https://app.example"))
		if want == "" && answer.Status == 200 {
			continue
		}
		if got := sent(t, answer).String(); got != want {
			t.Errorf("%q: sent to %q", after, got)
		}
	}
}

func TestFrontChannelLogout(t *testing.T) {
	s := newSetup(t, nil)
	b := s.browser()
	b.logIn("/")
	s.pass(time.Second)
	frame := s.browser() // browsers send no cookie into the frame
	at := func(q url.Values) int {
		return frame.at(frame.request("GET", "/oauth2/frontchannel-logout?"+q.Encode())).Status
	}
	for name, q := range map[string]url.Values{
		"no sid": {"iss": {s.idp.URL}}, "empty issuer": {"iss": {""}, "sid": {"s1"}}, "another issuer": {"iss": {"https://evil.example"}, "sid": {"s1"}},
		"sid twice": {"iss": {s.idp.URL}, "sid": {"s1", "s2"}},
	} {
		if status := at(q); status != 400 || !b.in() {
			t.Errorf("%s: %d", name, status)
		}
	}
	if status := at(url.Values{"iss": {s.idp.URL}, "sid": {"s9"}}); status != 200 || !b.in() {
		t.Errorf("another sid: %d", status)
	}
	if status := at(url.Values{"iss": {s.idp.URL}, "sid": {"s1"}}); status != 200 || b.in() {
		t.Errorf("answered %d, and the session goes on", status)
	}
	b.logIn("/")
	s.pass(time.Second)
	if status := at(url.Values{"sid": {"s1"}}); status != 200 || b.in() {
		t.Errorf("without iss, as Entra ID does it: answered %d, and the session goes on", status)
	}
}

func TestBackChannelLogout(t *testing.T) {
	s := newSetup(t, nil)
	event := map[string]any{logoutEvent: map[string]any{}}
	logout := func(changes map[string]any) map[string]any {
		now := s.now()
		c := map[string]any{
			"iss": s.idp.URL, "aud": "web", "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(), "jti": fmt.Sprint(now.UnixNano(), changes),
			"events": event, "sid": "s1",
		}
		merge(c, changes)
		return c
	}
	now := s.now()
	for _, tc := range []struct {
		name   string
		claims map[string]any
		header map[string]string
		status int
		ends   bool
	}{
		{"by sid", nil, nil, 200, true},
		{"typed", nil, map[string]string{"typ": "logout+jwt"}, 200, true},
		{"without exp, as older providers make it", map[string]any{"exp": nil}, nil, 200, true},
		{"by subject", map[string]any{"sid": nil, "sub": "alice"}, nil, 200, true},
		{"by both", map[string]any{"sub": "alice"}, nil, 200, true},
		{"another sid", map[string]any{"sid": "s2"}, nil, 200, false},
		{"another sid of the subject", map[string]any{"sid": "s2", "sub": "alice"}, nil, 200, false},
		{"another subject", map[string]any{"sid": nil, "sub": "bob"}, nil, 200, false},
		{"neither", map[string]any{"sid": nil}, nil, 400, false},
		{"no events", map[string]any{"events": nil}, nil, 400, false},
		{"another event", map[string]any{"events": map[string]any{"x": map[string]any{}}}, nil, 400, false},
		{"event is no object", map[string]any{"events": map[string]any{logoutEvent: true}}, nil, 400, false},
		{"nonce", map[string]any{"nonce": "x"}, nil, 400, false},
		{"no jti", map[string]any{"jti": nil}, nil, 400, false},
		{"no iat", map[string]any{"iat": nil}, nil, 400, false},
		{"old, no exp", map[string]any{"exp": nil, "iat": now.Add(-time.Hour).Unix()}, nil, 400, false},
		{"exp is text", map[string]any{"exp": "9999999999"}, nil, 400, false},
		{"old", map[string]any{"iat": now.Add(-time.Hour).Unix()}, nil, 400, false},
		{"expired", map[string]any{"exp": now.Add(-time.Hour).Unix()}, nil, 400, false},
		{"of the future", map[string]any{"iat": now.Add(time.Hour).Unix(), "exp": now.Add(2 * time.Hour).Unix()}, nil, 400, false},
		{"another audience", map[string]any{"aud": "x"}, nil, 400, false},
		{"another issuer", map[string]any{"iss": "https://evil.example"}, nil, 400, false},
		{"sid is no text", map[string]any{"sid": 1}, nil, 400, false},
		{"an access token", nil, map[string]string{"typ": "at+jwt"}, 400, false},
		{"alg none", nil, map[string]string{"alg": "none"}, 400, false},
		{"an unknown key", nil, map[string]string{"kid": "k9"}, 400, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := s.browser()
			b.logIn("/")
			s.pass(time.Second)
			body := url.Values{"logout_token": {s.idp.sign(t, tc.header, logout(tc.claims))}}.Encode()
			idp := s.browser()
			idp.host = "gateway.internal"
			answer := idp.at(idp.post("/oauth2/backchannel-logout", body))
			if answer.Status != tc.status || b.in() == tc.ends {
				t.Errorf("answered %d: %s; ended %v", answer.Status, answer.Why, !b.in())
			}
			if tc.status != 200 {
				return
			}
			if a := idp.at(idp.post("/oauth2/backchannel-logout", body)); a.Status != 400 {
				t.Errorf("used again: %d", a.Status)
			}
			s.pass(time.Second)
			if clear(b.jar); tc.ends {
				b.logIn("/")
			}
			if b.in() != tc.ends {
				t.Error("a login afterwards does not count")
			}
		})
	}
	idp := s.browser()
	for name, r := range map[string]*authn.Request{
		"GET": idp.request("GET", "/oauth2/backchannel-logout"), "empty": idp.post("/oauth2/backchannel-logout", ""),
		"garbage": idp.post("/oauth2/backchannel-logout", "logout_token=x"),
	} {
		if a := idp.at(r); a.Status != 400 {
			t.Errorf("%s: %d", name, a.Status)
		}
	}
}

// TestBackChannelLogoutWhileTheStoreFails: whichever step fails, the provider's retry ends
// the session, and the token counts no more after that.
func TestBackChannelLogoutWhileTheStoreFails(t *testing.T) {
	for good := range 3 {
		s := newSetup(t, nil)
		b := s.browser()
		b.logIn("/")
		s.pass(time.Second)
		now := s.now()
		body := url.Values{"logout_token": {s.idp.sign(t, nil, map[string]any{
			"iss": s.idp.URL, "aud": "web", "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(), "jti": "1",
			"events": map[string]any{logoutEvent: map[string]any{}}, "sid": "s1",
		})}}.Encode()
		store := &failingStore{Store: s.a.store, good: good}
		s.a.store = store
		idp := s.browser()
		if a := idp.at(idp.post("/oauth2/backchannel-logout", body)); a.Status != 503 || !store.failed {
			t.Errorf("call %d of the store fails: %v; answered %d: %s", good+1, store.failed, a.Status, a.Why)
		}
		if a := idp.at(idp.post("/oauth2/backchannel-logout", body)); a.Status != 200 || b.in() {
			t.Errorf("retry after call %d failed: answered %d: %s; the session goes on: %v", good+1, a.Status, a.Why, b.in())
		}
		if a := idp.at(idp.post("/oauth2/backchannel-logout", body)); a.Status != 400 {
			t.Errorf("used again after call %d failed: %d", good+1, a.Status)
		}
	}
}

// failingStore fails once, after some good calls that do not come with the request of a
// browser.
type failingStore struct {
	session.Store
	good   int
	failed bool
}

func (s *failingStore) fails() error {
	if s.good--; s.good >= 0 || s.failed {
		return nil
	}
	s.failed = true
	return errors.New("connection reset by peer")
}

func (s *failingStore) Seen(ctx context.Context, key string, made time.Time) (bool, error) {
	if err := s.fails(); err != nil {
		return false, err
	}
	return s.Store.Seen(ctx, key, made)
}

func (s *failingStore) Revoke(ctx context.Context, issuer, sid, subject string) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Store.Revoke(ctx, issuer, sid, subject)
}

func (s *failingStore) Once(ctx context.Context, key string, made time.Time, keep time.Duration) (bool, error) {
	if err := s.fails(); err != nil {
		return false, err
	}
	return s.Store.Once(ctx, key, made, keep)
}

// TestReloadKeepsWhatEnded: another configuration of the same provider.
func TestReloadKeepsWhatEnded(t *testing.T) {
	s := newSetup(t, nil)
	stays, goes := s.browser(), s.browser()
	stays.logIn("/")
	goes.logIn("/")
	copied := s.browser()
	maps.Copy(copied.jar, goes.jar)
	if a := goes.at(goes.post("/oauth2/logout", "token="+goes.token(), "origin", "https://app.example")); a.Status != 303 {
		t.Fatal(a.Why)
	}
	c := s.a.config
	c.Userinfo = true
	next := s.open("login", c)
	next.Inherit(s.a)
	for name, b := range map[string]*browser{"stays": stays, "goes": copied} {
		_, id, _ := b.through(next, b.request("GET", "/x"))
		if (id != nil) != (name == "stays") {
			t.Errorf("%s: %v", name, id)
		}
	}
}

func TestStepUp(t *testing.T) {
	s := newSetup(t, nil)
	b := s.browser()
	b.logIn("/")
	step := func(c authz.Challenge, headers ...string) *authn.Answer {
		t.Helper()
		r := b.request("GET", "/admin", headers...)
		_, id, _ := b.through(s.a, r)
		if id == nil {
			t.Fatal("not logged in")
		}
		answer := s.a.StepUp(t.Context(), r, id, &c)
		b.take(r)
		return answer
	}
	if a := step(authz.Challenge{ACRValues: "two", MaxAge: -1}, "accept", "application/json"); a != nil {
		t.Errorf("an API client is answered %d", a.Status)
	}
	if a := step(authz.Challenge{Error: "insufficient_scope", Scope: "x", MaxAge: -1}); a != nil {
		t.Errorf("a challenge of another kind is answered %d", a.Status)
	}
	if a := step(authz.Challenge{ACRValues: "zero one", MaxAge: 300}); a == nil || a.Status != 403 {
		t.Errorf("the session is like that already, and the answer is %+v", a)
	}
	try := func(c authz.Challenge) (int, url.Values) {
		t.Helper()
		q := sent(t, step(c)).Query()
		s.idp.set(func(f *fake) { f.nonces["code-"+q.Get("state")] = q.Get("nonce") })
		a := b.at(b.back(q))
		if a.Status == http.StatusSeeOther && sent(t, a).Path != "/admin" {
			t.Errorf("sent to %s", sent(t, a))
		}
		return a.Status, q
	}
	if status, q := try(authz.Challenge{ACRValues: "two three", MaxAge: -1}); status != 403 || q.Get("acr_values") != "two three" || q.Has("max_age") {
		t.Errorf("a provider that does not step up: %d, %v", status, q)
	}
	s.idp.set(func(f *fake) { f.claims = map[string]any{"acr": "three"} })
	if status, _ := try(authz.Challenge{ACRValues: "two three", MaxAge: -1}); status != 303 {
		t.Errorf("a provider that steps up: %d", status)
	}
	s.pass(10 * time.Minute)
	then := s.now()
	s.idp.set(func(f *fake) { f.claims = map[string]any{"auth_time": then.Add(-10 * time.Minute).Unix()} })
	if status, q := try(authz.Challenge{MaxAge: 300}); status != 403 || q.Get("max_age") != "300" {
		t.Errorf("an old authentication: %d, %v", status, q)
	}
	s.idp.set(func(f *fake) { f.claims = map[string]any{"auth_time": nil} })
	if status, _ := try(authz.Challenge{MaxAge: 300}); status != 403 {
		t.Errorf("no auth_time: %d", status)
	}
	s.idp.set(func(f *fake) { f.claims = map[string]any{"auth_time": then.Unix()} })
	if status, _ := try(authz.Challenge{MaxAge: 0}); status != 303 {
		t.Errorf("a new authentication: %d", status)
	}
	if a := step(authz.Challenge{MaxAge: 0}); a == nil || a.Status != 403 {
		t.Errorf("asked again at once: %+v", a)
	}
	s.pass(2 * time.Second) // the provider's clock is two seconds behind
	if a := step(authz.Challenge{MaxAge: 0}); a == nil || a.Status != 403 {
		t.Errorf("asked again a moment later: %+v", a)
	}
	s.pass(2 * time.Second)
	if a := step(authz.Challenge{MaxAge: 3}); a == nil || a.Status != 302 {
		t.Errorf("asked again when it is too old: %+v", a)
	}
}
