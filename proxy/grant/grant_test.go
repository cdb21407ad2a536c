package grant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/problem"
)

// clock is a time that stands until a test moves it.
type clock struct{ nanos atomic.Int64 }

func (c *clock) now() time.Time           { return time.Unix(1767323045, c.nanos.Load()) }
func (c *clock) forward(by time.Duration) { c.nanos.Add(int64(by)) }

// endpoint is a token endpoint that answers as a test says.
type endpoint struct {
	*httptest.Server
	clock   clock
	metrics *meter.Registry
	secret  string
	mu      sync.Mutex
	asked   []url.Values
	users   []string
	answer  func(w http.ResponseWriter, form url.Values, n int)
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{metrics: meter.New(), secret: filepath.Join(t.TempDir(), "secret")}
	if err := os.WriteFile(e.secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.answer = func(w http.ResponseWriter, form url.Values, n int) {
		say(w, 200, map[string]any{
			"access_token": fmt.Sprintf("%s-%s-%d", form.Get("subject_token"), form.Get("audience"), n), "token_type": "Bearer",
			"expires_in": 300, "issued_token_type": typeAccess, "scope": form.Get("scope"),
		})
	}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, secret, _ := r.BasicAuth()
		e.mu.Lock()
		_ = r.ParseForm() // a broken form has no values, which the test sees
		e.asked, e.users = append(e.asked, r.PostForm), append(e.users, user+":"+secret)
		n, answer := len(e.asked), e.answer
		e.mu.Unlock()
		answer(w, r.PostForm, n)
	}))
	t.Cleanup(e.Close)
	return e
}

func say(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that went away is not the test's concern
}

func (e *endpoint) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.asked)
}

func (e *endpoint) says(f func(w http.ResponseWriter, form url.Values, n int)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = f
}

func (e *endpoint) config() Endpoint {
	return Endpoint{URL: e.URL + "/token", ClientID: "gate way", ClientSecretFile: e.secret}
}

func (e *endpoint) exchanger(t *testing.T, change func(*ExchangeConfig)) *Exchanger {
	t.Helper()
	c := ExchangeConfig{Endpoint: e.config(), Audience: "orders", Audiences: []string{"billing"}}
	if change != nil {
		change(&c)
	}
	x, err := NewExchanger(c, Deps{Name: "sts", Now: e.clock.now, Metrics: e.metrics})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (e *endpoint) alice(scopes ...string) *authz.Identity {
	return &authz.Identity{Authenticated: true, Subject: "alice", Scopes: scopes, ExpiresAt: e.clock.now().Add(time.Hour)}
}

func TestExchangeAsksByTheBook(t *testing.T) {
	e := newEndpoint(t)
	x := e.exchanger(t, func(c *ExchangeConfig) {
		c.Scopes, c.Parameters = []string{"write", "read", "admin"}, map[string]string{"resource": "https://orders.example"}
	})
	got, err := x.Token(t.Context(), "subject", e.alice("read", "write", "other"), nil)
	if err != nil || got != "subject-orders-1" {
		t.Fatalf("%q, %v", got, err)
	}
	want := url.Values{
		"grant_type": {grantExchange}, "subject_token": {"subject"}, "subject_token_type": {typeAccess}, "requested_token_type": {typeAccess},
		"audience": {"orders"}, "scope": {"read write"}, "resource": {"https://orders.example"},
	}
	if d := cmp.Diff(want, e.asked[0]); d != "" {
		t.Error(d)
	}
	if e.users[0] != "gate+way:s3cret" {
		t.Errorf("authenticated as %q", e.users[0])
	}
	if err := os.WriteFile(e.secret, []byte("rotated"), 0o600); err != nil {
		t.Fatal(err)
	}
	x = e.exchanger(t, func(c *ExchangeConfig) { c.ClientAuthentication = post })
	if _, err = x.Token(t.Context(), "subject", e.alice(), nil); err != nil || e.asked[1].Get("client_secret") != "rotated" || e.asked[1].Get("client_id") != "gate way" || e.users[1] != ":" {
		t.Errorf("%v, %v", e.asked[1], err)
	}
}

// TestExchangeIsNeverWider: what the policy asks for stays within the caller's
// token and the operator's list.
func TestExchangeIsNeverWider(t *testing.T) {
	for _, tc := range []struct {
		name     string
		held     []string
		by       *authz.TokenExchange
		scopes   []string // of the configuration
		audience string
		scope    string
		want     string // of the error
	}{
		{"nothing asked", nil, nil, nil, "orders", "", ""},
		{"empty obligation", []string{"read"}, &authz.TokenExchange{}, []string{"read"}, "orders", "read", ""},
		{"another audience", nil, &authz.TokenExchange{Audience: "billing"}, nil, "billing", "", ""},
		{"the default audience", nil, &authz.TokenExchange{Audience: "orders"}, nil, "orders", "", ""},
		{"an audience of nobody's", nil, &authz.TokenExchange{Audience: "admin"}, nil, "", "", `"admin" is none of`},
		{"a narrower scope", []string{"read", "write"}, &authz.TokenExchange{Scope: "read"}, nil, "orders", "read", ""},
		{"a wider scope", []string{"read"}, &authz.TokenExchange{Scope: "read write"}, nil, "", "", `does not have "write"`},
		{"a longer one", []string{"read"}, &authz.TokenExchange{Scope: "readwrite"}, nil, "", "", `does not have "readwrite"`},
		{"a token without scopes", nil, &authz.TokenExchange{Scope: "read"}, nil, "orders", "read", ""},
		{"some of the configured", []string{"write"}, nil, []string{"read", "write"}, "orders", "write", ""},
		{"none of the configured", []string{"x"}, nil, []string{"read"}, "", "", "scope is missing"},
		{"none asked for", []string{"read"}, &authz.TokenExchange{Scope: " "}, []string{"read"}, "", "", "names no scope"},
		{"a tab for a space", []string{"read"}, &authz.TokenExchange{Scope: "read\twrite"}, nil, "", "", `does not have "write"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := newEndpoint(t)
			x := e.exchanger(t, func(c *ExchangeConfig) { c.Scopes = tc.scopes })
			_, err := x.Token(t.Context(), "s", e.alice(tc.held...), tc.by)
			if tc.want != "" {
				fault := (*authz.Fault)(nil)
				if err == nil || !strings.Contains(err.Error(), tc.want) || errors.As(err, &fault) != (tc.by != nil) || e.count() > 0 {
					t.Errorf("%v, asked %v", err, e.asked)
				}
				return
			}
			if err != nil || e.asked[0].Get("audience") != tc.audience || e.asked[0].Get("scope") != tc.scope {
				t.Errorf("asked %v, %v", e.asked, err)
			}
		})
	}
}

// TestTokensThatSayThatTheyHaveNoScope are not those that do not speak of scopes.
func TestTokensThatSayThatTheyHaveNoScope(t *testing.T) {
	for name, tc := range map[string]struct {
		claims map[string]any
		refuse bool
	}{
		"does not say":      {map[string]any{"roles": []any{"x"}}, false},
		"empty text":        {map[string]any{"scope": ""}, true},
		"blank text":        {map[string]any{"scope": "  "}, true},
		"empty list":        {map[string]any{"scp": []any{}}, true},
		"null":              {map[string]any{"scope": nil}, true},
		"something unknown": {map[string]any{"scope": 7}, true},
	} {
		e := newEndpoint(t)
		id := e.alice()
		id.Claims = tc.claims
		for by, x := range map[*authz.TokenExchange]*Exchanger{
			nil: e.exchanger(t, func(c *ExchangeConfig) { c.Scopes = []string{"admin"} }), {Scope: "admin"}: e.exchanger(t, nil),
		} {
			if got, err := x.Token(t.Context(), "s", id, by); (err != nil) != tc.refuse {
				t.Errorf("%s, policy %v: %q, %v", name, by, got, err)
			}
		}
		if tc.refuse && e.count() > 0 {
			t.Errorf("%s: asked %v", name, e.asked)
		}
	}
}

func TestExchangeNeedsAToken(t *testing.T) {
	e := newEndpoint(t)
	x := e.exchanger(t, nil)
	for name, ask := range map[string]func() (string, error){
		"no token":  func() (string, error) { return x.Token(t.Context(), "", e.alice(), nil) },
		"anonymous": func() (string, error) { return x.Token(t.Context(), "t", &authz.Identity{}, nil) },
	} {
		if got, err := ask(); got != "" || !errors.Is(err, authn.ErrNoCredential) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if e.count() > 0 {
		t.Errorf("asked %v", e.asked)
	}
}

func TestExchangedTokensAreKept(t *testing.T) {
	e := newEndpoint(t)
	x := e.exchanger(t, nil)
	id := e.alice("a", "b")
	get := func(subject string, id *authz.Identity, by *authz.TokenExchange) string {
		t.Helper()
		got, err := x.Token(t.Context(), subject, id, by)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := get("s", id, nil)
	for what, got := range map[string]string{
		"subject":  get("s2", id, nil),
		"audience": get("s", id, &authz.TokenExchange{Audience: "billing"}),
		"scope":    get("s", id, &authz.TokenExchange{Scope: "a"}),
	} {
		if got == first {
			t.Errorf("one token for another %s", what)
		}
	}
	e.clock.forward(269 * time.Second)
	if n := e.count(); get("s", id, nil) != first || e.count() != n {
		t.Error("exchanged again while there is one")
	}
	e.clock.forward(time.Second)
	if get("s", id, nil) == first {
		t.Error("shown after its time")
	}
	short := e.alice()
	short.ExpiresAt = e.clock.now().Add(10 * time.Second)
	one := get("short", short, nil)
	e.clock.forward(10 * time.Second)
	if get("short", short, nil) == one {
		t.Error("kept beyond the caller's own token")
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick, end := time.NewTicker(time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: not so after 20 s", what)
		}
	}
}

func TestOneExchangeForAll(t *testing.T) {
	e := newEndpoint(t)
	x := e.exchanger(t, nil)
	release, usual := make(chan struct{}), e.answer
	e.says(func(w http.ResponseWriter, form url.Values, n int) { <-release; usual(w, form, n) })
	givenUp, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := x.Token(givenUp, "s", e.alice(), nil); first <- err }()
	eventually(t, "the provider is asked", func() bool { return e.count() == 1 })
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if got, err := x.Token(t.Context(), "s", e.alice(), nil); err != nil || got != "s-orders-1" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	close(release)
	wg.Wait()
	if n := e.count(); n != 1 {
		t.Errorf("%d exchanges", n)
	}
}

// TestAnswersThatClose: whatever is not a good answer gives no token, and no text of
// it gets into an error.
func TestAnswersThatClose(t *testing.T) {
	good := func(change map[string]any) func(w http.ResponseWriter, _ url.Values, _ int) {
		m := map[string]any{"access_token": "t", "token_type": "bearer", "expires_in": 60, "issued_token_type": typeJWT}
		maps.Copy(m, change)
		return func(w http.ResponseWriter, _ url.Values, _ int) { say(w, 200, m) }
	}
	refuse := func(status int, code string) func(w http.ResponseWriter, _ url.Values, _ int) {
		return func(w http.ResponseWriter, form url.Values, _ int) {
			say(w, status, map[string]any{"error": code, "error_description": "about " + form.Get("subject_token")})
		}
	}
	text := func(status int, body string) func(w http.ResponseWriter, _ url.Values, _ int) {
		return func(w http.ResponseWriter, _ url.Values, _ int) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body)) // a client that went away is not the test's concern
		}
	}
	for name, tc := range map[string]struct {
		answer func(w http.ResponseWriter, form url.Values, n int)
		want   error
	}{
		"good":             {good(nil), nil},
		"no lifetime":      {good(map[string]any{"expires_in": nil}), nil},
		"lifetime as text": {good(map[string]any{"expires_in": "60"}), nil},
		"narrower scope":   {good(map[string]any{"scope": "a"}), nil},
		"wider scope":      {good(map[string]any{"scope": "a b c"}), problem.ErrNoToken},
		"a refresh token":  {good(map[string]any{"issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}), problem.ErrNoToken},
		"N_A":              {good(map[string]any{"token_type": "N_A"}), problem.ErrNoToken},
		"DPoP":             {good(map[string]any{"token_type": "DPoP"}), problem.ErrNoToken},
		"no token":         {good(map[string]any{"access_token": ""}), problem.ErrNoToken},
		"two lines":        {good(map[string]any{"access_token": "a\r\nx-user: root"}), problem.ErrNoToken},
		"a space":          {good(map[string]any{"access_token": "a b"}), problem.ErrNoToken},
		"a huge token":     {good(map[string]any{"access_token": strings.Repeat("a", maxToken+1)}), problem.ErrNoToken},
		"a huge answer":    {text(200, `{"access_token": "`+strings.Repeat("secret-subject", 1<<17)), problem.ErrNoToken},
		"garbage":          {text(200, "<html>secret-subject"), problem.ErrNoToken},
		"500":              {text(500, "secret-subject"), problem.ErrNoToken},
		"redirect": {func(w http.ResponseWriter, _ url.Values, _ int) {
			w.Header().Set("Location", "/other")
			w.WriteHeader(307)
		}, problem.ErrNoToken},
		"subject not taken":   {refuse(400, "invalid_request"), problem.ErrTokenRefused},
		"target not taken":    {refuse(400, "invalid_target"), problem.ErrTokenRefused},
		"scope not taken":     {refuse(400, "invalid_scope"), problem.ErrTokenRefused},
		"grant not taken":     {refuse(400, "invalid_grant"), problem.ErrTokenRefused},
		"denied":              {refuse(403, "access_denied"), problem.ErrTokenRefused},
		"gateway not taken":   {refuse(401, "invalid_client"), problem.ErrNoToken},
		"gateway may not":     {refuse(400, "unauthorized_client"), problem.ErrNoToken},
		"denied by a server":  {refuse(500, "access_denied"), problem.ErrNoToken},
		"an error that lasts": {refuse(400, strings.Repeat("x", 1000)), problem.ErrNoToken},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEndpoint(t)
			x := e.exchanger(t, nil)
			e.says(tc.answer)
			got, err := x.Token(t.Context(), "secret-subject", e.alice("a", "b"), &authz.TokenExchange{Scope: "a b"})
			if !errors.Is(err, tc.want) || (got == "t") != (tc.want == nil) {
				t.Fatalf("%.20q, %v", got, err)
			}
			if err != nil && (strings.Contains(err.Error(), "secret") || len(err.Error()) > 300) {
				t.Errorf("the error says too much: %v", err)
			}
			_, _ = x.Token(t.Context(), "secret-subject", e.alice("a", "b"), &authz.TokenExchange{Scope: "a b"})
			want := 1
			if errors.Is(tc.want, problem.ErrNoToken) {
				want = 2 // it may be back
			}
			if n := e.count(); n != want && name != "redirect" {
				t.Errorf("asked %d times, want %d", n, want)
			}
			if name == "redirect" {
				for _, asked := range e.asked {
					if asked.Get("subject_token") == "" {
						t.Error("the token was sent on")
					}
				}
			}
			e.clock.forward(refusedFor)
			if _, _ = x.Token(t.Context(), "secret-subject", e.alice("a", "b"), &authz.TokenExchange{Scope: "a b"}); tc.want != nil && e.count() != want+1 {
				t.Error("a refusal is remembered too long")
			}
		})
	}
}

// TestRedirect: of an answer that sends the gateway elsewhere nothing stays open, and
// the HTTP library has nothing to complain about past the operator's log.
func TestRedirect(t *testing.T) {
	e := newEndpoint(t)
	var opened atomic.Int64
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
		if !c.Reused {
			opened.Add(1)
		}
	}})
	e.says(func(w http.ResponseWriter, _ url.Values, _ int) {
		w.Header().Set("Location", "/other")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	var said strings.Builder
	log.SetOutput(&said)
	defer log.SetOutput(os.Stderr)
	x := e.exchanger(t, nil)
	for range 3 {
		if _, err := x.Token(ctx, "subject", e.alice(), nil); !errors.Is(err, problem.ErrNoToken) {
			t.Errorf("got %v", err)
		}
	}
	if n := e.count(); n != 3 || opened.Load() != 1 || said.Len() > 0 {
		t.Errorf("%d questions over %d connections; the library said %q", n, opened.Load(), said.String())
	}
}

func TestProvidersThatAreGone(t *testing.T) {
	e := newEndpoint(t)
	x := e.exchanger(t, nil)
	if err := os.Remove(e.secret); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Token(t.Context(), "s", e.alice(), nil); !errors.Is(err, problem.ErrNoToken) || e.count() > 0 {
		t.Errorf("without a secret: %v", err)
	}
	if err := os.WriteFile(e.secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	block := make(chan struct{})
	defer close(block)
	e.says(func(http.ResponseWriter, url.Values, int) { <-block })
	slow := e.exchanger(t, func(c *ExchangeConfig) { c.Timeout = 20 * time.Millisecond })
	if _, err := slow.Token(t.Context(), "s", e.alice(), nil); !errors.Is(err, problem.ErrNoToken) {
		t.Errorf("slow: %v", err)
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	x = e.exchanger(t, func(c *ExchangeConfig) { c.URL = gone.URL })
	if _, err := x.Token(t.Context(), "secret-subject", e.alice(), nil); !errors.Is(err, problem.ErrNoToken) || strings.Contains(err.Error(), "secret-subject") {
		t.Errorf("gone: %v", err)
	}
}

func TestClientCredentials(t *testing.T) {
	e := newEndpoint(t)
	c, err := NewCredentials(CredentialsConfig{Endpoint: e.config(), Audience: "orders", Scopes: []string{"a", "b"}}, Deps{Name: "machine", Now: e.clock.now, Metrics: e.metrics})
	if err != nil {
		t.Fatal(err)
	}
	get := func() string {
		t.Helper()
		got, err := c.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for range 2 {
		if got := get(); got != "-orders-1" || e.count() != 1 {
			t.Errorf("%q, asked %v", got, e.asked)
		}
	}
	want := url.Values{"grant_type": {"client_credentials"}, "audience": {"orders"}, "scope": {"a b"}}
	if d := cmp.Diff(want, e.asked[0]); d != "" {
		t.Error(d)
	}
	e.clock.forward(270 * time.Second)
	if get() != "-orders-2" {
		t.Error("shown after its time")
	}

	// From three quarters of its life on the next one is fetched, without a request
	// that waits.
	e.clock.forward(225 * time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	eventually(t, "the next one is there", func() bool { return c.current.Load().token == "-orders-3" })
	if get() != "-orders-3" || e.count() != 3 {
		t.Errorf("asked %d times", e.count())
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}

	e.says(func(w http.ResponseWriter, _ url.Values, _ int) {
		say(w, 400, map[string]any{"error": "invalid_client"})
	})
	if get() != "-orders-3" {
		t.Error("a provider that is gone takes a good token away")
	}
	e.clock.forward(time.Hour)
	if _, err := c.Token(t.Context()); !errors.Is(err, problem.ErrNoToken) {
		t.Errorf("without a token: %v", err)
	}
}

func TestConfigsThatAreRefused(t *testing.T) {
	e := newEndpoint(t)
	for key, change := range map[string]func(*ExchangeConfig){
		"url":                   func(c *ExchangeConfig) { c.URL = "http://idp.example/token" },
		"client_id":             func(c *ExchangeConfig) { c.ClientID = "" },
		"client_secret_file":    func(c *ExchangeConfig) { c.ClientSecretFile = "no such file" },
		"client_authentication": func(c *ExchangeConfig) { c.ClientAuthentication = "none" },
		"parameters":            func(c *ExchangeConfig) { c.Parameters = map[string]string{"subject_token": "x"} },
		"timeout":               func(c *ExchangeConfig) { c.Timeout = time.Hour },
		"audiences":             func(c *ExchangeConfig) { c.Audiences = []string{""} },
		"scopes[0]":             func(c *ExchangeConfig) { c.Scopes = []string{"a b"} },
		"cache_size":            func(c *ExchangeConfig) { c.CacheSize = -1 },
	} {
		c := ExchangeConfig{Endpoint: e.config()}
		change(&c)
		if p := setting.Problems(c.Validate()); len(p) != 1 || p[0].Key != key {
			t.Errorf("%s: %v", key, p)
		}
	}
	c := ExchangeConfig{Endpoint: e.config()}
	c.CAFile = e.secret
	if _, err := NewExchanger(c, Deps{}); err == nil {
		t.Error("a CA file without certificates was taken")
	}
}
