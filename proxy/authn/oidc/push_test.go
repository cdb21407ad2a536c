package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// servePush takes an authorization request (RFC 9126). Its address is in the metadata
// of those tests that say so.
func (f *fake) servePush(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pushed, f.basic = append(f.pushed, r.PostForm), r.Header.Get("Authorization")
	if f.push != nil && f.push(w, r.PostForm) {
		return
	}
	w.WriteHeader(http.StatusCreated)
	writeJSON(w, map[string]any{"request_uri": fmt.Sprintf("urn:ietf:params:oauth:request_uri:%d", len(f.pushed)), "expires_in": 60})
}

// resolve returns the parameters that a reference in an address stands for.
func (f *fake) resolve(q url.Values) url.Values {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n int
	if _, err := fmt.Sscanf(q.Get("request_uri"), "urn:ietf:params:oauth:request_uri:%d", &n); err == nil && n <= len(f.pushed) {
		return f.pushed[n-1]
	}
	return q
}

// offering is a setup whose provider says more of itself.
func offering(t *testing.T, metadata map[string]any, change func(*Config)) *setup {
	t.Helper()
	s := newSetup(t, change)
	for name, v := range metadata {
		if path, ok := v.(string); ok && strings.HasPrefix(path, "/") {
			metadata[name] = s.idp.URL + path
		}
	}
	s.idp.set(func(f *fake) { f.metadata = metadata })
	s.pass(metadataAge)
	if _, err := s.a.provider.refresh(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	return s
}

const pushEndpoint = "pushed_authorization_request_endpoint"

// TestPushedRequests: which parameters the browser carries, by what the provider says
// and what the operator wants.
func TestPushedRequests(t *testing.T) {
	for _, tc := range []struct {
		mode             string
		offers, requires bool
		status, pushes   int
	}{
		{"", false, false, 302, 0},
		{"", true, false, 302, 1},
		{"", true, true, 302, 1},
		{"", false, true, 503, 0},
		{"auto", true, false, 302, 1},
		{"required", true, false, 302, 1},
		{"required", false, false, 503, 0},
		{"off", true, false, 302, 0},
		{"off", true, true, 302, 1},
		{"off", false, true, 503, 0},
		{"off", false, false, 302, 0},
	} {
		t.Run(fmt.Sprintf("%q %v %v", tc.mode, tc.offers, tc.requires), func(t *testing.T) {
			metadata := map[string]any{"require_pushed_authorization_requests": tc.requires}
			if tc.offers {
				metadata[pushEndpoint] = "/par"
			}
			s := offering(t, metadata, func(c *Config) { c.PushedAuthorizationRequests = tc.mode })
			b := s.browser()
			_, _, answer := b.get("/x")
			if answer.Status != tc.status || len(s.idp.pushed) != tc.pushes {
				t.Fatalf("answered %d with %d pushes: %s", answer.Status, len(s.idp.pushed), answer.Why)
			}
			if tc.status != 302 {
				if len(b.jar) != 0 || !strings.Contains(string(answer.Body), "operator") {
					t.Errorf("a login has begun: %v %s", b.jar, answer.Body)
				}
				return
			}
			q := sent(t, answer).Query()
			if plain := q.Has("state"); plain == (tc.pushes == 1) {
				t.Errorf("the browser carries %v", q)
			}
		})
	}
}

// TestPushedLogin goes the whole way: everything goes to the provider directly, and
// nothing but the reference through the browser.
func TestPushedLogin(t *testing.T) {
	s := offering(t, map[string]any{pushEndpoint: "/par"}, func(c *Config) { c.AuthorizationParameters = map[string]string{"audience": "orders"} })
	b := s.browser()
	_, _, answer := b.get("/v1/orders?a=b")
	u := sent(t, answer)
	if q := u.Query(); len(q) != 2 || q.Get("client_id") != "web" || q.Get("request_uri") != "urn:ietf:params:oauth:request_uri:1" || u.Path != "/authorize" {
		t.Errorf("the browser carries %v", u)
	}
	got := s.idp.pushed[0]
	for name, want := range map[string]string{
		"response_type": "code", "client_id": "web", "redirect_uri": "https://app.example/oauth2/callback", "scope": "openid email",
		"code_challenge_method": "S256", "audience": "orders",
	} {
		if got.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, got.Get(name), want)
		}
	}
	if len(got.Get("state")) < 43 || len(got.Get("nonce")) < 43 || len(got.Get("code_challenge")) != 43 || got.Has("code_verifier") {
		t.Errorf("pushed are %v", got)
	}
	s.idp.set(func(f *fake) { f.nonces["code-"+got.Get("state")] = got.Get("nonce") })
	if to := sent(t, b.at(b.back(got))); to.String() != "https://app.example/v1/orders?a=b" || !b.in() {
		t.Errorf("sent to %s", to)
	}
}

// TestPushFails: nobody is sent to log in, with the parameters in the open or not, and
// the browser is told whether to try again.
func TestPushFails(t *testing.T) {
	say := func(status int, body string) func(http.ResponseWriter, url.Values) bool {
		return func(w http.ResponseWriter, _ url.Values) bool {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, body)
			return true
		}
	}
	good := `{"request_uri":"urn:x:1","expires_in":60}`
	for _, mode := range []string{pushAuto, pushRequired} {
		s := offering(t, map[string]any{pushEndpoint: "/par"}, func(c *Config) { c.PushedAuthorizationRequests = mode })
		for name, tc := range map[string]struct {
			push func(http.ResponseWriter, url.Values) bool
			mend bool // by the operator
		}{
			"refused":              {say(400, `{"error":"invalid_request","error_description":"redirect_uri is not registered"}`), true},
			"client unknown":       {say(401, `{"error":"invalid_client"}`), true},
			"forbidden":            {say(403, ""), true},
			"not there":            {say(404, "<html>"), true},
			"method not allowed":   {say(405, ""), true},
			"too large":            {say(413, ""), true},
			"200":                  {say(200, good), true},
			"202":                  {say(202, good), true},
			"204":                  {say(204, ""), true},
			"slow down":            {say(429, ""), false},
			"500":                  {say(500, ""), false},
			"503":                  {say(503, good), false},
			"for a while":          {say(400, `{"error":"temporarily_unavailable"}`), false},
			"garbage":              {say(201, "<html>"), true},
			"no object":            {say(201, `"urn:x:1"`), true},
			"no reference":         {say(201, `{"expires_in":60}`), true},
			"empty reference":      {say(201, `{"request_uri":"","expires_in":60}`), true},
			"reference no text":    {say(201, `{"request_uri":1,"expires_in":60}`), true},
			"reference no URI":     {say(201, `{"request_uri":"x","expires_in":60}`), true},
			"reference with break": {say(201, `{"request_uri":"urn:x:\r\n1","expires_in":60}`), true},
			"reference with space": {say(201, `{"request_uri":"urn:x: 1","expires_in":60}`), true},
			"two references":       {say(201, `{"request_uri":"urn:x:1","request_uri":"urn:x:2","expires_in":60}`), true},
			"long reference":       {say(201, `{"request_uri":"urn:x:`+strings.Repeat("1", maxReference)+`","expires_in":60}`), true},
			"ended already":        {say(201, `{"request_uri":"urn:x:1","expires_in":0}`), true},
			"ended before":         {say(201, `{"request_uri":"urn:x:1","expires_in":-1}`), true},
			"no end":               {say(201, `{"request_uri":"urn:x:1"}`), true},
			"end is no number":     {say(201, `{"request_uri":"urn:x:1","expires_in":"60"}`), true},
			"huge":                 {say(201, `{"request_uri":"urn:x:1","expires_in":60,"x":"`+strings.Repeat("x", maxReply)+`"}`), false},
			"cut off": {func(w http.ResponseWriter, _ url.Values) bool {
				w.Header().Set("Content-Length", "99")
				w.WriteHeader(201)
				_, _ = fmt.Fprint(w, good)
				return true
			}, false},
			"sends it away": {func(w http.ResponseWriter, _ url.Values) bool {
				w.Header().Set("Location", s.idp.URL+"/elsewhere")
				w.WriteHeader(307)
				return true
			}, false},
		} {
			s.idp.set(func(f *fake) { f.push = tc.push })
			b := s.browser()
			_, _, answer := b.get("/x")
			if answer.Status != 503 || len(b.jar) != 0 || slices.ContainsFunc(answer.Headers, func(h authz.Header) bool { return h.Name == "location" }) {
				t.Errorf("%s, %s: answered %d: %s; cookies %v", mode, name, answer.Status, answer.Why, b.jar)
			}
			if mend := strings.Contains(string(answer.Body), "operator"); mend != tc.mend {
				t.Errorf("%s, %s: the page says %s", mode, name, answer.Body)
			}
			if strings.Contains(string(answer.Body), "redirect_uri") {
				t.Errorf("%s, %s: the page tells the reason", mode, name)
			}
			if name == "refused" && !strings.Contains(answer.Why, `400 "invalid_request" ("redirect_uri is not registered")`) {
				t.Errorf("the log says %s", answer.Why)
			}
		}
		s.idp.set(func(f *fake) { f.push = nil })
		s.browser().logIn("/")
		s.idp.Close()
		if _, _, answer := s.browser().get("/x"); answer.Status != 503 {
			t.Errorf("%s: a provider that is gone: %d", mode, answer.Status)
		}
	}
}

// TestPushesAreBounded: so many at a time, and the next one waits for its turn.
func TestPushesAreBounded(t *testing.T) {
	s := offering(t, map[string]any{pushEndpoint: "/par"}, nil)
	if !s.a.client.pushing.TryAcquire(maxPushes) {
		t.Fatal("a push is under way")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := s.browser()
	if answer := s.a.begin(ctx, b.request("GET", "/x"), demand{}, "/x"); answer.Status != 503 || len(s.idp.pushed) != 0 {
		t.Errorf("answered %d with %d pushes: %s", answer.Status, len(s.idp.pushed), answer.Why)
	}
	s.a.client.pushing.Release(maxPushes)
	b.logIn("/")
}

// TestPushSaysWhoAsks: as at the token endpoint.
func TestPushSaysWhoAsks(t *testing.T) {
	key, file := clientKey(t)
	for _, method := range []string{authBasic, authPost, authKey, authNone} {
		s := offering(t, map[string]any{pushEndpoint: "/par"}, func(c *Config) {
			c.ClientID, c.ClientAuth = "a web:1", method
			if method == authKey || method == authNone {
				c.ClientSecretFile = ""
			}
			if method == authKey {
				c.ClientKeyFile, c.ClientKeyID = file, "web-1"
			}
		})
		b := s.browser()
		b.begin("/x")
		q, basic := s.idp.pushed[0], s.idp.basic
		if q.Get("client_id") != "a web:1" || q.Has("client_secret") != (method == authPost) || q.Has("client_assertion") != (method == authKey) || (basic != "") != (method == authBasic) {
			t.Errorf("%s: %v, %q", method, q, basic)
		}
		switch method {
		case authBasic:
			req := http.Request{Header: http.Header{"Authorization": {basic}}}
			if user, secret, _ := req.BasicAuth(); user != "a+web%3A1" || secret != "s3cret%2F%2B" {
				t.Errorf("Basic %q %q", user, secret)
			}
		case authPost:
			if q.Get("client_secret") != "s3cret/+" {
				t.Errorf("secret %q", q.Get("client_secret"))
			}
		case authKey:
			checkAssertion(t, &key.PublicKey, q.Get("client_assertion"), "a web:1", s.idp.URL)
		}
	}
}

// TestPushEndpointIsChecked: it is where the parameters and the secret go.
func TestPushEndpointIsChecked(t *testing.T) {
	s := newSetup(t, nil)
	for _, address := range []string{"http://idp.example/par", "javascript:alert(1)", "/par", "https://user:x@idp.example/par", "https://idp.example/par#x"} {
		s.idp.set(func(f *fake) { f.metadata = map[string]any{pushEndpoint: address} })
		p, err := newProvider(s.a.config, s.now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.metadata(t.Context()); !errors.Is(err, authn.ErrUnavailable) || !strings.Contains(err.Error(), pushEndpoint) {
			t.Errorf("%s: %v", address, err)
		}
		p.client.Close()
	}
}
