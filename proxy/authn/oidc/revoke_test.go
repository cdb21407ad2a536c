package oidc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
	"github.com/sallyport/sallyport/proxy/redis"
	"github.com/sallyport/sallyport/proxy/redis/redistest"
	"github.com/sallyport/sallyport/proxy/session"
)

// serveRevocation takes a token back (RFC 7009). Its address is in the metadata of
// those tests that say so.
func (f *fake) serveRevocation(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revoked, f.basic = append(f.revoked, r.PostForm), r.Header.Get("Authorization")
	if f.revoke != nil && f.revoke(w, r.PostForm) {
		return
	}
	w.WriteHeader(http.StatusOK)
}

// gone are the tokens that were revoked since it was asked last, as hint=token.
func (f *fake) gone() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, q := range f.revoked {
		out = append(out, q.Get("token_type_hint")+"="+q.Get("token"))
	}
	f.revoked = nil
	slices.Sort(out)
	return strings.Join(out, " ")
}

const revocationEndpoint = "revocation_endpoint"

// counted has an authenticator count anew, and returns what is counted under a name.
func counted(a *Authenticator) func(name, outcome string) int64 {
	r := meter.New()
	a.count = newCounters(r, a.name)
	return func(name, outcome string) (n int64) {
		for _, m := range r.Snapshot() {
			if m.Name != name {
				continue
			}
			for _, p := range m.Series {
				if slices.ContainsFunc(p.Attrs, func(at meter.Attr) bool { return at.Value == outcome }) {
					n += p.Value
				}
			}
		}
		return n
	}
}

// logOut logs out as the page's form does.
func (b *browser) logOut() *authn.Answer {
	b.t.Helper()
	return b.at(b.post("/oauth2/logout", "token="+b.token(), "origin", "https://app.example"))
}

// TestLogoutRevokes: the tokens of the session that ended, and nobody else's.
func TestLogoutRevokes(t *testing.T) {
	for name, tc := range map[string]struct {
		metadata map[string]any
		change   func(*Config)
		answer   map[string]any // of the token endpoint
		wait     time.Duration  // before the logout
		want     string
	}{
		"both":                   {map[string]any{revocationEndpoint: "/revoke"}, nil, nil, 0, "access_token=at-c refresh_token=rt-at-c"},
		"here alone":             {map[string]any{revocationEndpoint: "/revoke", "end_session_endpoint": nil}, nil, nil, 0, "access_token=at-c refresh_token=rt-at-c"},
		"no refresh token":       {map[string]any{revocationEndpoint: "/revoke"}, nil, map[string]any{"refresh_token": nil}, 0, "access_token=at-c"},
		"access token has ended": {map[string]any{revocationEndpoint: "/revoke"}, nil, nil, time.Minute, "refresh_token=rt-at-c"},
		"no end is known":        {map[string]any{revocationEndpoint: "/revoke"}, nil, map[string]any{"expires_in": nil}, time.Minute, "access_token=at-c refresh_token=rt-at-c"},
		"nowhere to revoke":      {nil, nil, nil, 0, ""},
		"kept":                   {map[string]any{revocationEndpoint: "/revoke"}, func(c *Config) { c.KeepTokensAtLogout = true }, nil, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := offering(t, tc.metadata, tc.change)
			s.idp.set(func(f *fake) { f.answer = tc.answer })
			count := counted(s.a)
			other, b := s.browser(), s.browser()
			other.logIn("/")
			b.logIn("/")
			s.pass(tc.wait)
			// Forms that are not ours revoke nothing.
			if a := b.at(b.post("/oauth2/logout", "token=x", "origin", "https://app.example")); a.Status != 403 || s.idp.gone() != "" {
				t.Errorf("a forged logout: %d", a.Status)
			}
			answer := b.logOut()
			if got := s.idp.gone(); got != tc.want {
				t.Errorf("revoked are %q, want %q", got, tc.want)
			}
			if want := int64(strings.Count(tc.want, "=")); count("sallyport.token.revocations", "done") != want || count("sallyport.logins", "logged_out") != 1 {
				t.Errorf("counted are %d", count("sallyport.token.revocations", "done"))
			}
			if answer.Status != 303 && answer.Status != 200 || b.in() || !other.in() {
				t.Errorf("answered %d: %s", answer.Status, answer.Why)
			}
		})
	}
}

// TestLogoutWithoutTheProvidersHelp: whatever the provider says or does not, the session
// is over, the person is told so, and the tokens that may live on are counted.
func TestLogoutWithoutTheProvidersHelp(t *testing.T) {
	say := func(status int, body string) func(http.ResponseWriter, url.Values) bool {
		return func(w http.ResponseWriter, _ url.Values) bool {
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, body)
			return true
		}
	}
	s := offering(t, map[string]any{revocationEndpoint: "/revoke"}, nil)
	var log bytes.Buffer
	s.a.logger = slog.New(slog.NewTextHandler(&log, nil)) // its handler writes one line at a time
	for name, tc := range map[string]struct {
		revoke                    func(http.ResponseWriter, url.Values) bool
		done, unsupported, failed int64
	}{
		"500":     {say(500, ""), 0, 0, 2},
		"503":     {say(503, ""), 0, 0, 2},
		"refused": {say(401, `{"error":"invalid_client"}`), 0, 0, 2},
		"chatty": {func(w http.ResponseWriter, q url.Values) bool {
			return say(400, `{"error":"invalid_request","error_description":"no token `+q.Get("token")+`"}`)(w, q)
		}, 0, 0, 2},
		"garbage":      {say(400, "<html>"), 0, 0, 2},
		"no content":   {say(204, ""), 0, 0, 2},
		"unsupported":  {say(400, `{"error":"unsupported_token_type"}`), 0, 1, 1},
		"200, garbage": {say(200, "<html>"), 2, 0, 0},
		"not JWTs": {func(w http.ResponseWriter, q url.Values) bool {
			return q.Get("token_type_hint") == "access_token" && say(400, `{"error":"unsupported_token_type"}`)(w, q)
		}, 1, 1, 0},
		"sends it away": {func(w http.ResponseWriter, _ url.Values) bool {
			w.Header().Set("Location", s.idp.URL+"/revoke")
			w.WriteHeader(307)
			return true
		}, 0, 0, 2},
	} {
		s.idp.set(func(f *fake) { f.revoke = tc.revoke })
		count := counted(s.a)
		b := s.browser()
		b.logIn("/")
		answer := b.logOut()
		if answer.Status != 303 || len(b.jar) != 0 || b.in() {
			t.Errorf("%s: answered %d: %s", name, answer.Status, answer.Why)
		}
		for outcome, want := range map[string]int64{"done": tc.done, "unsupported": tc.unsupported, "failed": tc.failed} {
			if got := count("sallyport.token.revocations", outcome); got != want {
				t.Errorf("%s: %s is %d, want %d", name, outcome, got, want)
			}
		}
	}
	count := counted(s.a)
	b := s.browser()
	b.logIn("/")
	s.idp.Close()
	if answer := b.logOut(); answer.Status != 303 || b.in() || count("sallyport.token.revocations", "failed") != 2 {
		t.Errorf("a provider that is gone: %d: %s", answer.Status, answer.Why)
	}
	if text := log.String(); !strings.Contains(text, "token may live on") || !strings.Contains(text, "invalid_request") || strings.Contains(text, "at-") {
		t.Errorf("the log says %s", text)
	}
}

// transport is an http.RoundTripper.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestLogoutDoesNotWaitForEver: the provider has its time and no more, and a browser
// that goes away right after the click does not cut it short.
func TestLogoutDoesNotWaitForEver(t *testing.T) {
	s := offering(t, map[string]any{revocationEndpoint: "/revoke"}, nil)
	b := s.browser()
	b.logIn("/")
	r := b.post("/oauth2/logout", "token="+b.token(), "origin", "https://app.example")
	asked := make(chan error, 2)
	s.a.client.http.Transport = transport(func(r *http.Request) (*http.Response, error) {
		end, ok := r.Context().Deadline()
		if left := time.Until(end); !ok || left > revocationTimeout || r.Context().Err() != nil {
			asked <- fmt.Errorf("bounded %v, by %s; %w", ok, left, r.Context().Err())
		} else {
			asked <- nil
		}
		return nil, errors.New("connection refused")
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if answer := s.a.logout(ctx, r); answer.Status != 303 {
		t.Errorf("answered %d: %s", answer.Status, answer.Why)
	}
	close(asked)
	n := 0
	for err := range asked {
		if n++; err != nil {
			t.Error(err)
		}
	}
	if n != 2 {
		t.Errorf("the provider was asked %d times", n)
	}
}

// startRedis runs a Redis of its own.
func startRedis(t *testing.T) (address string) {
	t.Helper()
	return redistest.Start(t, t.TempDir(), redistest.Open).Address
}

// inRedis keeps sessions there.
func inRedis(t *testing.T, address string) func(*Config) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "session.key")
	if err := os.WriteFile(file, []byte(strings.Repeat("5e", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(c *Config) {
		c.Session.KeysFiles, c.Session.Redis = []string{file}, &redis.Config{Server: redis.Server{Address: address}}
	}
}

// TestProviderEndsSessionsWithTheirTokens: where the gateway has the sessions, what the
// provider ends takes its tokens along.
func TestProviderEndsSessionsWithTheirTokens(t *testing.T) {
	address := startRedis(t)
	s := offering(t, map[string]any{revocationEndpoint: "/revoke"}, inRedis(t, address))
	logout := func(claims map[string]any) int {
		now := s.now()
		all := map[string]any{
			"iss": s.idp.URL, "aud": "web", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "jti": session.NewID(),
			"events": map[string]any{logoutEvent: map[string]any{}},
		}
		merge(all, claims)
		idp := s.browser()
		return idp.at(idp.post("/oauth2/backchannel-logout", url.Values{"logout_token": {s.idp.sign(t, nil, all)}}.Encode())).Status
	}
	a, b := s.browser(), s.browser()
	a.logIn("/")
	b.logIn("/")
	for name, row := range map[string]map[string]any{"another session": {"sid": "s9"}, "another subject": {"sub": "bob"}} {
		if status := logout(row); status != 200 || s.idp.gone() != "" || !a.in() {
			t.Errorf("%s: %d", name, status)
		}
	}
	if status, got := logout(map[string]any{"sid": "s1"}), s.idp.gone(); status != 200 || a.in() || b.in() ||
		got != "access_token=at-b access_token=at-c refresh_token=rt-at-b refresh_token=rt-at-c" {
		t.Errorf("back channel: %d, revoked are %q", status, got)
	}

	a.logIn("/")
	s.idp.set(func(f *fake) {
		f.revoke = func(w http.ResponseWriter, _ url.Values) bool { w.WriteHeader(500); return true }
	})
	if status := logout(map[string]any{"sub": "alice"}); status != 200 || a.in() {
		t.Errorf("back channel of a provider that does not revoke: %d", status)
	}
	s.idp.set(func(f *fake) { f.revoke, f.revoked = nil, nil })

	a.logIn("/")
	frame := s.browser()
	q := url.Values{"iss": {s.idp.URL}, "sid": {"s1"}}
	if status, got := frame.at(frame.request("GET", "/oauth2/frontchannel-logout?"+q.Encode())).Status, s.idp.gone(); status != 200 || a.in() ||
		got != "access_token=at-e refresh_token=rt-at-e" {
		t.Errorf("front channel: %d, revoked are %q", status, got)
	}

	a.logIn("/")
	if answer, got := a.logOut(), s.idp.gone(); answer.Status != 303 || a.in() || got != "access_token=at-f refresh_token=rt-at-f" {
		t.Errorf("logout: %d, revoked are %q", answer.Status, got)
	}
}

// TestFrontChannelRevokesWhatTheCookieHolds: where the browser has the session and sends
// it along.
func TestFrontChannelRevokesWhatTheCookieHolds(t *testing.T) {
	s := offering(t, map[string]any{revocationEndpoint: "/revoke"}, nil)
	b := s.browser()
	b.logIn("/")
	q := url.Values{"iss": {s.idp.URL}, "sid": {"s1"}}
	if a, got := b.at(b.request("GET", "/oauth2/frontchannel-logout?"+q.Encode())), s.idp.gone(); a.Status != 200 || b.in() || got != "access_token=at-b refresh_token=rt-at-b" {
		t.Errorf("answered %d, revoked are %q", a.Status, got)
	}
}

// TestLogoutRevokesAtProvider: a certified provider refuses the tokens after the logout.
func TestLogoutRevokesAtProvider(t *testing.T) {
	s := newCertifiedSite(t)
	key, file := clientKey(t)
	issuer := oidctest.StartLogin(t, s.URL, map[string]any{"clients": []any{
		map[string]any{},
		map[string]any{"client_id": "with-post", "token_endpoint_auth_method": authPost},
		map[string]any{"client_id": "with-key", "token_endpoint_auth_method": authKey, "jwks": jwksOf(key, "web-1")},
	}}).Issuer
	methods := map[string]func(*Config){
		"web":       func(*Config) {},
		"with-post": func(c *Config) { c.ClientID, c.ClientAuth = "with-post", authPost },
		"with-key": func(c *Config) {
			c.ClientID, c.ClientSecretFile, c.ClientKeyFile, c.ClientKeyID = "with-key", "", file, "web-1"
		},
	}
	for name, change := range methods {
		for _, keep := range []bool{false, true} {
			a := s.use(issuer, func(c *Config) { change(c); c.KeepTokensAtLogout = keep })
			count := counted(a)
			v := s.visitor()
			if at, _ := s.logIn(v); at.Status != 200 {
				t.Fatalf("%s: %s answers %d: %s", name, at.URL, at.Status, at.Text)
			}
			held, err := a.store.Load(t.Context(), s.seen.Load())
			if err != nil || held.RefreshToken == "" || held.AccessToken == "" {
				t.Fatalf("%s: the session has no tokens: %v", name, err)
			}
			if status := userinfo(t, a, held.AccessToken); status != 200 {
				t.Fatalf("%s: the access token is not good before: %d", name, status)
			}
			form := v.Get(s.URL + "/oauth2/logout")
			v.Submit(form, nil) // and on to the provider, where nobody confirms
			wantDone, wantStatus := int64(2), 401
			if keep {
				wantDone, wantStatus = 0, 200
			}
			if n := count("sallyport.token.revocations", "done"); n != wantDone || count("sallyport.token.revocations", "failed") != 0 {
				t.Errorf("%s, kept %v: %d tokens were revoked", name, keep, n)
			}
			if status := userinfo(t, a, held.AccessToken); status != wantStatus {
				t.Errorf("%s, kept %v: the access token gets %d", name, keep, status)
			}
			_, err = a.ask(t.Context(), held)
			if refused := errors.Is(err, authn.ErrInvalid); refused == keep {
				t.Errorf("%s, kept %v: the refresh token: %v", name, keep, err)
			}
		}
	}
}

// userinfo is how the provider's userinfo endpoint answers to an access token.
func userinfo(t *testing.T, a *Authenticator, token string) int {
	t.Helper()
	m, err := a.provider.metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.userinfo, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := a.provider.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}
