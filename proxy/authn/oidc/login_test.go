package oidc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/session"
)

func TestLogin(t *testing.T) {
	s := newSetup(t, func(c *Config) { c.AuthorizationParameters = map[string]string{"audience": "orders"} })
	b := s.browser()
	q := b.begin("/v1/orders?a=b&c=%20d")
	for name, want := range map[string]string{
		"response_type": "code", "client_id": "web", "redirect_uri": "https://app.example/oauth2/callback", "scope": "openid email",
		"code_challenge_method": "S256", "audience": "orders",
	} {
		if q.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, q.Get(name), want)
		}
	}
	if len(q.Get("state")) < 43 || len(q.Get("nonce")) < 43 || q.Get("state") == q.Get("nonce") || len(q.Get("code_challenge")) != 43 {
		t.Errorf("state, nonce or challenge are weak: %v", q)
	}
	if len(b.jar) != 1 || !strings.HasPrefix(slices.Collect(keys(b.jar))[0], "__Host-") {
		t.Errorf("cookies of a login that began: %v", b.jar)
	}
	answer := b.at(b.back(q))
	if got := sent(t, answer).String(); got != "https://app.example/v1/orders?a=b&c=%20d" {
		t.Errorf("sent to %s", got)
	}
	asked := s.idp.questions()
	if len(asked) != 1 || asked[0].Get("grant_type") != "authorization_code" || asked[0].Get("redirect_uri") != "https://app.example/oauth2/callback" || len(asked[0].Get("code_verifier")) < 43 || asked[0].Has("client_secret") {
		t.Errorf("token endpoint was asked %v", asked)
	}
	r, id, _ := b.get("/v1/orders")
	if id == nil {
		t.Fatal("no identity after the login")
	}
	want := &authz.Identity{
		Authenticated: true, Authenticator: "login", Kind: "oidc", Subject: "alice", Issuer: s.idp.URL, Audiences: []string{"web"}, Scopes: []string{"openid", "email"},
	}
	if id.Subject != want.Subject || id.Kind != want.Kind || id.Authenticator != want.Authenticator || !id.Authenticated || id.Issuer != want.Issuer ||
		!slices.Equal(id.Audiences, want.Audiences) || !slices.Equal(id.Scopes, want.Scopes) || id.Claims["email"] != "alice@example.com" ||
		id.Claims["nonce"] != nil || !id.ExpiresAt.Equal(s.now().Add(12*time.Hour)) {
		t.Errorf("identity %+v", id)
	}
	if r.Token == "" || r.Token != "at-b" {
		t.Errorf("token %q", r.Token)
	}
	if strings.Count(r.IDToken, ".") != 2 {
		t.Errorf("ID token %q", r.IDToken)
	}
	if _, cookies := r.Spent(); len(cookies) != 1 {
		t.Errorf("spent cookies %v", cookies)
	}
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TestWhoIsRedirected: a script that got a login page would take it for its answer.
func TestWhoIsRedirected(t *testing.T) {
	s := newSetup(t, nil)
	html := []string{"accept", "text/html"}
	for _, tc := range []struct {
		name, method string
		headers      []string
		redirected   bool
	}{
		{"a browser", "GET", html, true},
		{"a browser as browsers are", "GET", []string{"accept", "text/html,application/xhtml+xml,*/*;q=0.8", "sec-fetch-mode", "navigate", "sec-fetch-site", "none"}, true},
		{"curl", "GET", []string{"accept", "*/*"}, false},
		{"no accept", "GET", []string{"x-y", "z"}, false},
		{"JSON", "GET", []string{"accept", "application/json"}, false},
		{"html weighed 0", "GET", []string{"accept", "text/html;q=0, */*"}, false},
		{"html weighed 0.000", "GET", []string{"accept", "text/html; q=0.000"}, false},
		{"html weighed little", "GET", []string{"accept", "text/html;q=0.1"}, true},
		{"something like html", "GET", []string{"accept", "text/html5"}, false},
		{"XMLHttpRequest", "GET", append([]string{"x-requested-with", "XMLHttpRequest"}, html...), false},
		{"fetch", "GET", append([]string{"sec-fetch-mode", "cors"}, html...), false},
		{"a bearer token", "GET", append([]string{"authorization", "Bearer x"}, html...), false},
		{"POST", "POST", html, false},
		{"HEAD", "HEAD", html, false},
	} {
		b := s.browser()
		_, id, answer := b.through(s.a, b.request(tc.method, "/x", tc.headers...))
		if id != nil || (answer != nil) != tc.redirected || answer != nil && answer.Status != 302 {
			t.Errorf("%s: %v %+v", tc.name, id, answer)
		}
	}
	b := s.browser()
	b.host = "app.example:8443"
	for scheme, want := range map[string]int{"https": 302, "http": 403} {
		r := b.request("GET", "/x")
		r.Scheme = scheme
		if _, _, answer := b.through(s.a, r); answer == nil || answer.Status != want {
			t.Errorf("%s: %+v", scheme, answer)
		}
	}
	r := b.request("GET", "/x")
	r.Scheme, r.Host = "http", "127.0.0.1:8080"
	if _, _, answer := b.through(s.a, r); answer == nil || answer.Status != 302 {
		t.Errorf("loopback: %+v", answer)
	}
}

func TestOrigins(t *testing.T) {
	s := newSetup(t, func(c *Config) { c.Origins = []string{"https://app.example", "https://b.example:8443"} })
	for host, want := range map[string]int{"app.example": 302, "APP.example:443": 302, "b.example:8443": 302, "b.example": 403, "evil.example": 403} {
		b := s.browser()
		b.host = host
		if _, _, answer := b.get("/x"); answer == nil || answer.Status != want {
			t.Errorf("%s: %+v, want %d", host, answer, want)
		}
	}
}

// TestCallbackRefuses: answers that are not of the login that this browser began.
func TestCallbackRefuses(t *testing.T) {
	s := newSetup(t, nil)
	other := newSetup(t, nil)
	for _, tc := range []struct {
		name   string
		status int
		change func(b *browser, q url.Values) *authn.Request
	}{
		{"another state", 400, func(b *browser, q url.Values) *authn.Request { return b.back(q, "state", strings.Repeat("x", 43)) }},
		{"no state", 400, func(b *browser, q url.Values) *authn.Request { return b.back(q, "state", "") }},
		{"no code", 400, func(b *browser, q url.Values) *authn.Request { return b.back(q, "code", "") }},
		{"mix-up: another issuer", 400, func(b *browser, q url.Values) *authn.Request { return b.back(q, "iss", "https://evil.example") }},
		{"mix-up: no issuer although always named", 400, func(b *browser, q url.Values) *authn.Request { return b.back(q, "iss", "") }},
		{"mix-up: empty issuer", 400, func(b *browser, q url.Values) *authn.Request {
			r := b.back(q, "iss", "")
			r.RawQuery += "&iss="
			return r
		}},
		{"mix-up: issuer with a slash more", 400, func(b *browser, q url.Values) *authn.Request { return b.back(q, "iss", b.idp.URL+"/") }},
		{"mix-up: issuer in capitals", 400, func(b *browser, q url.Values) *authn.Request { return b.back(q, "iss", strings.ToUpper(b.idp.URL)) }},
		{"mix-up: issuer twice", 400, func(b *browser, q url.Values) *authn.Request {
			r := b.back(q)
			r.RawQuery += "&iss=" + url.QueryEscape(b.idp.URL)
			return r
		}},
		{"mix-up: error of another issuer", 400, func(b *browser, q url.Values) *authn.Request {
			return b.back(q, "iss", "https://evil.example", "error", "server_error", "code", "")
		}},
		{"mix-up: error without issuer", 400, func(b *browser, q url.Values) *authn.Request {
			return b.back(q, "iss", "", "error", "server_error", "code", "")
		}},
		{"state with more", 400, func(b *browser, q url.Values) *authn.Request { return b.back(q, "state", q.Get("state")+"x") }},
		{"state with less", 400, func(b *browser, q url.Values) *authn.Request { return b.back(q, "state", q.Get("state")[1:]) }},
		{"nonce for state", 400, func(b *browser, q url.Values) *authn.Request { return b.back(q, "state", q.Get("nonce")) }},
		{"empty state", 400, func(b *browser, q url.Values) *authn.Request {
			r := b.back(q, "state", "")
			r.RawQuery += "&state="
			return r
		}},
		{"state twice", 400, func(b *browser, q url.Values) *authn.Request {
			r := b.back(q)
			r.RawQuery += "&state=x"
			return r
		}},
		{"code twice", 400, func(b *browser, q url.Values) *authn.Request {
			r := b.back(q)
			r.RawQuery += "&code=x"
			return r
		}},
		{"query that is none", 400, func(b *browser, q url.Values) *authn.Request {
			r := b.back(q)
			r.RawQuery += "&%zz"
			return r
		}},
		{"no cookie", 400, func(b *browser, q url.Values) *authn.Request { clear(b.jar); return b.back(q) }},
		{"another browser's login", 400, func(b *browser, _ url.Values) *authn.Request {
			attacker := s.browser()
			return b.back(attacker.begin("/"))
		}},
		{"another browser's cookie and state", 400, func(b *browser, q url.Values) *authn.Request {
			attacker := s.browser()
			attacker.begin("/")
			b.jar = attacker.jar
			return b.back(q)
		}},
		{"cookie of another gateway", 400, func(b *browser, _ url.Values) *authn.Request {
			x := other.browser()
			q := x.begin("/")
			b.jar = x.jar
			return b.back(q)
		}},
		{"cookie that was changed", 400, func(b *browser, q url.Values) *authn.Request {
			for k, v := range b.jar {
				b.jar[k] = v[:len(v)-4] + "AAAA"
			}
			return b.back(q)
		}},
		{"a session in place of the cookie", 400, func(b *browser, q url.Values) *authn.Request {
			x := s.browser()
			x.logIn("/")
			for _, v := range x.jar {
				for k := range b.jar {
					b.jar[k] = v
				}
			}
			return b.back(q)
		}},
		{"too late", 400, func(b *browser, q url.Values) *authn.Request {
			r := b.back(q)
			r.Now = r.Now.Add(flowLife + time.Second)
			return r
		}},
		{"another origin", 400, func(b *browser, q url.Values) *authn.Request { b.host = "other.example"; return b.back(q) }},
		{"POST", 405, func(b *browser, q url.Values) *authn.Request { r := b.back(q); r.Method = "POST"; return r }},
		{"a login with many newer ones in this browser", 400, func(b *browser, q url.Values) *authn.Request {
			for range maxFlows {
				s.pass(time.Second)
				b.begin("/y")
			}
			return b.back(q)
		}},
		{"an older login's cookie with a newer one's state", 400, func(b *browser, _ url.Values) *authn.Request {
			older := slices.Collect(keys(b.jar))[0]
			q := b.begin("/y")
			for k := range b.jar {
				if k != older {
					b.jar[k] = b.jar[older]
				}
			}
			return b.back(q)
		}},
		{"access_denied", 400, func(b *browser, q url.Values) *authn.Request { return b.back(q, "error", "access_denied", "code", "") }},
		{"error beside a code", 400, func(b *browser, q url.Values) *authn.Request { return b.back(q, "error", "access_denied") }},
		{"provider in trouble", 503, func(b *browser, q url.Values) *authn.Request { return b.back(q, "error", "server_error") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := s.browser()
			q := b.begin("/x")
			before := len(s.idp.questions())
			r := tc.change(b, q)
			if strings.HasPrefix(tc.name, "a session") {
				before++
			}
			answer := b.at(r)
			if answer.Status != tc.status {
				t.Fatalf("answered %d: %s; want %d", answer.Status, answer.Why, tc.status)
			}
			if asked := len(s.idp.questions()); asked != before {
				t.Error("the code went to the token endpoint")
			}
			if b.in() {
				t.Error("logged in")
			}
			if strings.Contains(string(answer.Body), "state") || strings.Contains(string(answer.Body), "cookie") {
				t.Errorf("the page tells the reason: %s", answer.Body)
			}
		})
	}
}

// TestTabs: a browser with several tabs begins several logins, and each ends in its
// own page, in any order.
func TestTabs(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		s := newSetup(t, severalLogins)
		b := s.browser()
		var asked []url.Values
		for i := range 3 {
			asked = append(asked, b.begin(fmt.Sprintf("/tab/%d", i)))
		}
		for _, i := range order {
			if got := sent(t, b.at(b.back(asked[i]))).Path; got != fmt.Sprintf("/tab/%d", i) {
				t.Errorf("%v: tab %d is sent to %s", order, i, got)
			}
		}
		if len(b.jar) != 1 || !b.in() {
			t.Errorf("%v: cookies after the logins: %v", order, slices.Collect(keys(b.jar)))
		}
	}
}

// TestManyLogins: logins that nobody ends do not add up in the browser.
func TestManyLogins(t *testing.T) {
	s := newSetup(t, severalLogins)
	b := s.browser()
	b.jar["__Host-sallyport-login-login~1234"] = "1.none"
	for range 3 * maxFlows {
		s.pass(time.Second)
		b.begin("/x")
	}
	if len(b.jar) != maxFlows || b.jar["__Host-sallyport-login-login~1234"] != "" {
		t.Errorf("%d cookies: %v", len(b.jar), slices.Collect(keys(b.jar)))
	}
	if a := b.at(b.request("GET", "/oauth2/logout")); a.Status != 200 || len(b.jar) != 0 {
		t.Errorf("after a logout: %d %v", a.Status, slices.Collect(keys(b.jar)))
	}
}

// TestLongLogins: another site that has the browser ask for pages with long names
// cannot make the cookies of its requests too many.
func TestLongLogins(t *testing.T) {
	s := newSetup(t, severalLogins)
	b := s.browser()
	for range maxFlows {
		s.pass(time.Second)
		b.begin("/x?" + strings.Repeat("a", maxReturn-10))
	}
	size := 0
	for name, value := range b.jar {
		size += len(name) + len(value)
	}
	if size > 8<<10 || len(b.jar) < 2 {
		t.Errorf("%d cookies of %d bytes", len(b.jar), size)
	}
}

func severalLogins(c *Config) { c.ConcurrentLogins = maxFlows }

// TestOneLoginAtATime: unless more are allowed, a login that begins takes the place of
// the one before, whose page says what to do.
func TestOneLoginAtATime(t *testing.T) {
	s := newSetup(t, nil)
	b := s.browser()
	first := b.begin("/first")
	s.pass(time.Second)
	second := b.begin("/second")
	if len(b.jar) != 1 {
		t.Errorf("cookies of logins: %v", slices.Collect(keys(b.jar)))
	}
	if a := b.at(b.back(first)); a.Status != 400 || !strings.Contains(string(a.Body), "Begin again") {
		t.Errorf("the first login: %d %s", a.Status, a.Why)
	}
	if got := sent(t, b.at(b.back(second))).Path; got != "/second" || !b.in() {
		t.Errorf("the second login is sent to %s", got)
	}
}

// TestCallbackHappensOnce: neither the code nor the cookie is good a second time.
func TestCallbackHappensOnce(t *testing.T) {
	s := newSetup(t, nil)
	b := s.browser()
	q := b.begin("/x")
	stolen := b.request("GET", "/").Headers
	if a := b.at(b.back(q)); a.Status != 303 {
		t.Fatal(a.Why)
	}
	if a := b.at(b.back(q)); a.Status != 400 {
		t.Errorf("replayed without the cookie, which is gone: %d", a.Status)
	}
	thief := s.browser()
	r := thief.back(q)
	r.Headers = append(r.Headers, stolen[len(stolen)-1])
	if a := thief.at(r); a.Status != 400 || !strings.Contains(a.Why, "used before") {
		t.Errorf("replayed with the cookie: %d %s", a.Status, a.Why)
	}
	if n := len(s.idp.questions()); n != 1 {
		t.Errorf("token endpoint was asked %d times", n)
	}
	if !b.in() || thief.in() {
		t.Error("the wrong one is logged in")
	}
}

// TestSessionFixation: a login never goes on with a session that was there before.
func TestSessionFixation(t *testing.T) {
	s := newSetup(t, nil)
	attacker := s.browser()
	attacker.logIn("/")
	planted := attacker.jar["__Host-sallyport-login"]
	victim := s.browser()
	victim.jar["__Host-sallyport-login"] = planted
	s.pass(time.Second)
	_, id, _ := victim.get("/x")
	if id == nil {
		t.Fatal("the planted session is good before the login")
	}
	r := victim.request("GET", "/x")
	answer := s.a.begin(t.Context(), r, demand{}, "/x")
	victim.take(r)
	q := sent(t, answer).Query()
	s.idp.set(func(f *fake) { f.nonces["code-"+q.Get("state")] = q.Get("nonce") })
	if a := victim.at(victim.back(q)); a.Status != 303 {
		t.Fatal(a.Why)
	}
	if victim.jar["__Host-sallyport-login"] == planted {
		t.Error("the session is the planted one")
	}
	if attacker.in() {
		t.Error("the planted session is still good")
	}
}

// TestIDTokens: what the token endpoint may say that is no login.
func TestIDTokens(t *testing.T) {
	now := time.Now()
	rows := []struct {
		name   string
		claims map[string]any
		header map[string]string
		answer map[string]any
		ok     bool
	}{
		{name: "good", ok: true},
		{name: "good without what is optional", claims: map[string]any{"at_hash": nil, "sid": nil, "acr": nil, "auth_time": nil}, ok: true},
		{name: "good for two", claims: map[string]any{"aud": []string{"web", "x"}, "azp": "web"}, ok: true},
		{name: "good typ", header: map[string]string{"typ": "id_token+jwt"}, ok: true},
		{name: "another issuer", claims: map[string]any{"iss": "https://evil.example"}},
		{name: "no issuer", claims: map[string]any{"iss": nil}},
		{name: "another audience", claims: map[string]any{"aud": "other"}},
		{name: "no audience", claims: map[string]any{"aud": nil}},
		{name: "audience that begins alike", claims: map[string]any{"aud": "web2"}},
		{name: "two audiences, no azp", claims: map[string]any{"aud": []string{"web", "x"}}},
		{name: "another azp", claims: map[string]any{"azp": "x"}},
		{name: "azp is no text", claims: map[string]any{"azp": 1}},
		{name: "expired", claims: map[string]any{"exp": now.Add(-time.Hour).Unix()}},
		{name: "no exp", claims: map[string]any{"exp": nil}},
		{name: "exp is text", claims: map[string]any{"exp": "9999999999"}},
		{name: "no iat", claims: map[string]any{"iat": nil}},
		{name: "issued in the future", claims: map[string]any{"iat": now.Add(time.Hour).Unix()}},
		{name: "good in the future", claims: map[string]any{"nbf": now.Add(time.Hour).Unix()}},
		{name: "another nonce", claims: map[string]any{"nonce": "x"}},
		{name: "no nonce", claims: map[string]any{"nonce": nil}},
		{name: "nonce is no text", claims: map[string]any{"nonce": 7}},
		{name: "of another access token", claims: map[string]any{"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}},
		{name: "at_hash is no text", claims: map[string]any{"at_hash": 1}},
		{name: "no subject", claims: map[string]any{"sub": nil}},
		{name: "empty subject", claims: map[string]any{"sub": ""}},
		{name: "subject is a number", claims: map[string]any{"sub": 1}},
		{name: "long subject", claims: map[string]any{"sub": strings.Repeat("x", 256)}},
		{name: "an access token", header: map[string]string{"typ": "at+jwt"}},
		{name: "a logout token", header: map[string]string{"typ": "logout+jwt"}},
		{name: "a security event", claims: map[string]any{"events": map[string]any{}}},
		{name: "alg none", header: map[string]string{"alg": "none"}},
		{name: "alg HS256", header: map[string]string{"alg": "HS256"}},
		{name: "an unknown key", header: map[string]string{"kid": "k9"}},
		{name: "crit", header: map[string]string{"crit": "x"}},
		{name: "brings its key", header: map[string]string{"jku": "https://evil.example"}},
		{name: "sid is no text", claims: map[string]any{"sid": 1}},
		{name: "no ID token", answer: map[string]any{"id_token": nil}},
		{name: "ID token is garbage", answer: map[string]any{"id_token": "garbage"}},
		{name: "ID token is no text", answer: map[string]any{"id_token": 1}},
		{name: "no access token", answer: map[string]any{"access_token": nil}},
		{name: "token type", answer: map[string]any{"token_type": "DPoP"}},
		{name: "an error with 200", answer: map[string]any{"error": "invalid_grant"}},
	}
	s := newSetup(t, nil)
	for _, tc := range rows {
		t.Run(tc.name, func(t *testing.T) {
			b := s.browser()
			b.t = t
			s.idp.set(func(f *fake) { f.claims, f.header, f.answer = tc.claims, tc.header, tc.answer })
			answer := b.at(b.back(b.begin("/x")))
			if ok := answer.Status == 303; ok != tc.ok {
				t.Fatalf("answered %d: %s", answer.Status, answer.Why)
			}
			if !tc.ok && answer.Status != 403 && answer.Status != 503 {
				t.Errorf("answered %d: %s", answer.Status, answer.Why)
			}
			if b.in() != tc.ok {
				t.Errorf("logged in: %v", !tc.ok)
			}
		})
	}
}

func TestTokenEndpointFaults(t *testing.T) {
	s := newSetup(t, nil)
	for name, tc := range map[string]struct {
		status int
		token  func(http.ResponseWriter, url.Values) bool
	}{
		"refuses": {403, func(w http.ResponseWriter, _ url.Values) bool {
			http.Error(w, `{"error":"invalid_grant"}`, 400)
			return true
		}},
		"500":     {503, func(w http.ResponseWriter, _ url.Values) bool { w.WriteHeader(500); return true }},
		"429":     {503, func(w http.ResponseWriter, _ url.Values) bool { w.WriteHeader(429); return true }},
		"garbage": {503, func(w http.ResponseWriter, _ url.Values) bool { _, _ = fmt.Fprint(w, "<html>"); return true }},
		"cut off": {503, func(w http.ResponseWriter, _ url.Values) bool { w.Header().Set("Content-Length", "99"); return true }},
		"sends it away": {503, func(w http.ResponseWriter, _ url.Values) bool {
			w.Header().Set("Location", "https://evil.example/")
			w.WriteHeader(307)
			return true
		}},
	} {
		s.idp.set(func(f *fake) { f.token = tc.token })
		b := s.browser()
		if a := b.at(b.back(b.begin("/x"))); a.Status != tc.status || b.in() {
			t.Errorf("%s: answered %d: %s", name, a.Status, a.Why)
		}
	}
}

func TestMetadataRefused(t *testing.T) {
	s := newSetup(t, nil)
	for name, m := range map[string]map[string]any{
		"another issuer": {"issuer": "https://evil.example"}, "no authorization endpoint": {"authorization_endpoint": nil}, "no token endpoint": {"token_endpoint": nil},
		"http token endpoint": {"token_endpoint": "http://idp.example/token"}, "script": {"authorization_endpoint": "javascript:alert(1)"},
		"http logout": {"end_session_endpoint": "http://idp.example/logout"},
	} {
		s.idp.set(func(f *fake) { f.metadata = m })
		p, err := newProvider(s.a.config, s.now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.metadata(t.Context()); !errors.Is(err, authn.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if p.current.Load() != nil {
			t.Errorf("%s: it counts", name)
		}
		p.client.Close()
	}
}

// TestProviderIsDown: nobody logs in, and those who did go on.
func TestProviderIsDown(t *testing.T) {
	s := newSetup(t, nil)
	b := s.browser()
	b.logIn("/")
	fresh, err := New("login", s.a.config, Deps{Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	s.idp.Close()
	stranger := s.browser()
	if _, _, answer := stranger.through(fresh, stranger.request("GET", "/x")); answer == nil || answer.Status != 503 {
		t.Errorf("login with a provider that never was there: %+v", answer)
	}
	s.pass(2 * time.Minute) // the access token has ended
	for range 3 {
		r, id, _ := b.get("/x")
		if id == nil || r.Token != "" {
			t.Fatalf("identity %v, token %q; want the session without its token", id, r.Token)
		}
		s.pass(10 * time.Minute)
	}
	s.pass(12 * time.Hour)
	if b.in() {
		t.Error("the session outlived its end")
	}
}

func TestUserinfo(t *testing.T) {
	s := newSetup(t, func(c *Config) { c.Userinfo = true })
	for name, tc := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		status int
	}{
		"good": {func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer at-") {
				w.WriteHeader(401)
				return
			}
			writeJSON(w, map[string]any{"sub": "alice", "name": "Alice", "email": "other@example.com"})
		}, 303},
		"another subject": {func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, map[string]any{"sub": "bob"}) }, 403},
		"no subject":      {func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, map[string]any{"name": "Alice"}) }, 403},
		"two subjects":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, `{"sub":"bob","sub":"alice"}`) }, 503},
		"refused":         {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, 403},
		"down":            {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, 503},
		"huge": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprint(w, `{"sub":"alice","x":"`+strings.Repeat("x", maxAnswer)+`"}`)
		}, 503},
	} {
		s.idp.set(func(f *fake) { f.userinfo = tc.answer })
		b := s.browser()
		if a := b.at(b.back(b.begin("/x"))); a.Status != tc.status {
			t.Errorf("%s: answered %d: %s", name, a.Status, a.Why)
		}
		_, id, _ := b.get("/x")
		if (id != nil) != (tc.status == 303) || id != nil && (id.Claims["name"] != "Alice" || id.Claims["email"] != "alice@example.com") {
			t.Errorf("%s: identity %+v", name, id)
		}
	}
}

// TestUserinfoSaysNothingOfTheLogin: how and when somebody authenticated, and for whom,
// stands in the ID token, which is signed. The userinfo tells of a person, who may well
// write it.
func TestUserinfoSaysNothingOfTheLogin(t *testing.T) {
	s := newSetup(t, func(c *Config) { c.Userinfo = true })
	s.idp.set(func(f *fake) {
		f.claims = map[string]any{"acr": nil, "auth_time": nil, "amr": nil, "sid": nil}
		f.userinfo = func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, map[string]any{
				"sub": "alice", "name": "Alice", "acr": "gold", "auth_time": s.now().Add(time.Hour).Unix(), "amr": []string{"hwk"}, "sid": "s9",
				"azp": "web", "act": map[string]any{"sub": "root"}, "cnf": map[string]any{"jkt": "x"}, "scope": "admin", "scp": "admin", "jti": "1", "nbf": 1, "events": map[string]any{},
				"may_act": map[string]any{"sub": "root"}, "client_id": "other", "nonce": "x", "at_hash": "x", "c_hash": "x", "s_hash": "x",
			})
		}
	})
	b := s.browser()
	b.logIn("/")
	for _, when := range []string{"logged in", "renewed"} {
		_, id, _ := b.get("/x")
		if id == nil || id.Claims["name"] != "Alice" {
			t.Fatalf("%s: identity %+v", when, id)
		}
		for _, name := range slices.Sorted(maps.Keys(id.Claims)) {
			if !slices.Contains([]string{"aud", "email", "exp", "iat", "iss", "name", "sub"}, name) {
				t.Errorf("%s: the userinfo says %s", when, name)
			}
		}
		s.pass(time.Minute)
	}
	if n := len(s.idp.questions()); n != 2 {
		t.Errorf("%d questions; the session was not renewed", n)
	}
}

func TestRenewal(t *testing.T) {
	s := newSetup(t, nil)
	b := s.browser()
	b.logIn("/")
	old := b.jar["__Host-sallyport-login"]
	s.pass(time.Minute)
	s.idp.set(func(f *fake) {
		f.claims = map[string]any{"email": "new@example.com", "acr": "forged", "auth_time": s.now().Add(time.Hour).Unix()}
	})
	r, id, _ := b.get("/x")
	if id == nil || r.Token != "at-c" || id.Claims["email"] != "new@example.com" || id.Claims["acr"] != "one" {
		t.Fatalf("identity %+v, token %q", id, r.Token)
	}
	asked := s.idp.questions()[1]
	if asked.Get("grant_type") != "refresh_token" || asked.Get("refresh_token") != "rt-at-b" {
		t.Errorf("token endpoint was asked %v", asked)
	}
	if b.jar["__Host-sallyport-login"] == old {
		t.Error("the cookie is the old one")
	}
	late := s.browser() // a request that was under way with the old cookie
	late.jar["__Host-sallyport-login"] = old
	if r, id, _ := late.get("/x"); id == nil || r.Token != "at-c" || len(s.idp.questions()) != 2 {
		t.Errorf("identity %v, token %q, %d questions", id, r.Token, len(s.idp.questions()))
	}
	if r, _, _ := b.get("/x"); r.Token != "at-c" || len(s.idp.questions()) != 2 {
		t.Error("a fresh token was renewed")
	}
}

// TestRenewalHalfWay: what a renewal spent is not lost when the provider then is not
// there for the rest; who the session is of stays what it was.
func TestRenewalHalfWay(t *testing.T) {
	good := func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{"sub": "alice", "name": "Alice"})
	}
	for name, change := range map[string]func(*fake){
		"key set is down": func(f *fake) {
			f.keysDown.Store(true)
			f.header = map[string]string{"kid": "k2"}
			f.claims = map[string]any{"sub": "bob", "email": "bob@example.com"}
		},
		"key set hangs": func(f *fake) {
			f.keysHang.Store(true)
			f.header = map[string]string{"kid": "k2"}
			f.claims = map[string]any{"sub": "bob", "email": "bob@example.com"}
		},
		"userinfo is down": func(f *fake) {
			f.userinfo = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }
		},
	} {
		s := newSetup(t, func(c *Config) { c.Userinfo = true })
		s.idp.set(func(f *fake) { f.userinfo = good })
		b := s.browser()
		b.logIn("/")
		s.pass(time.Minute)
		s.idp.set(change)
		r, id, _ := b.get("/x")
		if id == nil || r.Token != "at-c" || id.Subject != "alice" || id.Claims["name"] != "Alice" || id.Claims["email"] != "alice@example.com" {
			t.Fatalf("%s: identity %+v, token %q", name, id, r.Token)
		}
		s.pass(time.Minute)
		s.idp.keysDown.Store(false)
		s.idp.keysHang.Store(false)
		s.idp.set(func(f *fake) { f.header, f.claims, f.userinfo = nil, nil, good })
		r, id, _ = b.get("/x")
		asked := s.idp.questions()
		if id == nil || r.Token != "at-d" || asked[len(asked)-1].Get("refresh_token") != "rt-at-c" {
			t.Errorf("%s: renewed then: identity %+v, token %q, asked %v", name, id, r.Token, asked[len(asked)-1])
		}
	}
}

// TestRenewalRefused: the session ends.
func TestRenewalRefused(t *testing.T) {
	for name, change := range map[string]func(*fake){
		"refused": func(f *fake) {
			f.token = func(w http.ResponseWriter, _ url.Values) bool {
				w.WriteHeader(400)
				_, _ = fmt.Fprint(w, `{"error":"invalid_grant"}`)
				return true
			}
		},
		"another subject": func(f *fake) { f.claims = map[string]any{"sub": "bob"} },
		"another session": func(f *fake) { f.claims = map[string]any{"sid": "s2"} },
		"another issuer":  func(f *fake) { f.claims = map[string]any{"iss": "https://evil.example"} },
		"forged":          func(f *fake) { f.header = map[string]string{"kid": "k1", "alg": "RS256"} },
	} {
		s := newSetup(t, nil)
		b := s.browser()
		b.logIn("/")
		copied := s.browser()
		maps.Copy(copied.jar, b.jar)
		s.pass(time.Minute)
		s.idp.set(change)
		if b.in() {
			t.Errorf("%s: the session goes on", name)
		}
		s.idp.set(func(f *fake) { f.token, f.claims, f.header = nil, nil, nil })
		s.pass(5 * time.Minute)
		if copied.in() {
			t.Errorf("%s: a copy of the cookie is still good", name)
		}
	}
}

func TestRequestsOfOtherSites(t *testing.T) {
	s := newSetup(t, nil)
	b := s.browser()
	b.logIn("/")
	for _, tc := range []struct {
		method, site string
		in           bool
	}{{"POST", "cross-site", false}, {"DELETE", "cross-site", false}, {"POST", "same-origin", true}, {"POST", "same-site", true}, {"GET", "cross-site", true}, {"POST", "", true}} {
		_, id, _ := b.through(s.a, b.request(tc.method, "/x", "sec-fetch-site", tc.site, "accept", "*/*"))
		if (id != nil) != tc.in {
			t.Errorf("%s from %q: %v", tc.method, tc.site, id)
		}
	}
}

func TestSharedStoreFailing(t *testing.T) {
	s := newSetup(t, nil)
	b := s.browser()
	b.logIn("/")
	s.a.store = brokenStore{s.a.store}
	chain, err := authn.New([]authn.Named{{Name: "login", Authenticator: s.a}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Authenticate(t.Context(), b.request("GET", "/x")); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if a := b.at(b.request("GET", "/oauth2/logout")); a.Status != 503 {
		t.Errorf("logout answered %d", a.Status)
	}
}

// brokenStore cannot be reached.
type brokenStore struct{ session.Store }

func (brokenStore) Load(context.Context, *authn.Request) (*session.Session, error) {
	return nil, errors.New("connection refused")
}

// TestLoginLink: where it leads afterwards is the sender's word.
func TestLoginLink(t *testing.T) {
	s := newSetup(t, nil)
	for to, want := range map[string]string{
		"/orders?a=b": "/orders?a=b", "": "/", "//evil.example": "/", "https://evil.example/": "/", "/\\evil.example": "/",
		"/oauth2/logout": "/", "/oauth2/login?return=/": "/",
	} {
		b := s.browser()
		r := b.request("GET", "/oauth2/login?"+url.Values{"return": {to}}.Encode())
		q := sent(t, b.at(r)).Query()
		s.idp.set(func(f *fake) { f.nonces["code-"+q.Get("state")] = q.Get("nonce") })
		if got := sent(t, b.at(b.back(q))).String(); got != "https://app.example"+want {
			t.Errorf("%q leads to %s", to, got)
		}
	}
	b := s.browser()
	for _, r := range []*authn.Request{b.request("POST", "/oauth2/login"), b.request("GET", "/oauth2/login?return=/a&return=/b")} {
		if a := b.at(r); a.Status != 400 {
			t.Errorf("%s %s: %d", r.Method, r.RawQuery, a.Status)
		}
	}
}

func TestChoice(t *testing.T) {
	s := newSetup(t, func(c *Config) { c.DisplayName = "Corp <&>" })
	c := s.a.config
	c.DisplayName, c.RedirectPath, c.LoginPath, c.LogoutPath, c.FrontChannelLogoutPath, c.BackChannelLogoutPath = "", "/partner/callback", "", "", "", ""
	partner := s.open("partner", c)
	chain, err := authn.New([]authn.Named{{Name: "login", Authenticator: s.a}, {Name: "partner", Authenticator: partner}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := s.browser()
	_, err = chain.Authenticate(t.Context(), b.request("GET", "/x?a=b"))
	var answer *authn.Answer
	if !errors.As(err, &answer) || answer.Status != 401 {
		t.Fatalf("got %v", err)
	}
	var challenges []string
	for _, h := range answer.Headers {
		if h.Name == "www-authenticate" {
			challenges = append(challenges, h.Value)
		}
	}
	if !slices.Equal(challenges, []string{`Bearer realm="sallyport"`}) { // browsers ask for a password where it says Basic
		t.Errorf("challenges %q", challenges)
	}
	for _, want := range []string{
		`<a href="/oauth2/login?return=%2Fx%3Fa%3Db">Corp &lt;&amp;&gt;</a>`, `<a href="/partner/login?return=%2Fx%3Fa%3Db">partner</a>`,
	} {
		if !strings.Contains(string(answer.Body), want) {
			t.Errorf("the page lacks %s:\n%s", want, answer.Body)
		}
	}
	b.logIn("/")
	if _, id, _ := b.through(partner, b.request("GET", "/x")); id != nil {
		t.Error("a session of one provider counts for the other")
	}
}
