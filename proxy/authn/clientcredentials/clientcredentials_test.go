package clientcredentials

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/asking"
	"github.com/sallyport/sallyport/proxy/authn/jose"
)

const (
	testID     = "tester"
	testSecret = "a-secret-for-the-test-only"
)

// testConfig is for the clients of m.
func testConfig(m *middle) Config {
	c := Default()
	c.Issuer, c.TokenURL = m.issuer, m.URL+"/token"
	c.Audiences, c.Scopes = []string{"https://api.example/ES256"}, []string{"orders.read"}
	c.Parameters = map[string]string{"resource": "https://api.example/ES256"}
	return c
}

func newTest(t *testing.T, c Config) *Authenticator {
	t.Helper()
	return start(t, c, Deps{})
}

func start(t *testing.T, c Config, deps Deps) *Authenticator {
	t.Helper()
	a, err := New("machines", c, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return a
}

// from makes a request with credentials; nil sends none.
func from(now time.Time, headers ...string) *authn.Request {
	r := &authn.Request{Client: "192.0.2.1", Now: now}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, authz.Header{Name: headers[i], Value: headers[i+1]})
	}
	return r
}

func with(now time.Time, id, secret string) *authn.Request {
	return from(now, "x-sallyport-client-id", id, "x-sallyport-client-secret", secret)
}

func try(t *testing.T, a *Authenticator, r *authn.Request, want error) *authz.Identity {
	t.Helper()
	id, err := a.Authenticate(t.Context(), r)
	if !errors.Is(err, want) || (err == nil) != (id != nil) {
		t.Fatalf("got %v, %v; want %v", id, err, want)
	}
	return id
}

// TestCertifiedProvider: credentials that the provider knows are an identity, asked
// once; those that it does not know are refused, asked once, too.
func TestCertifiedProvider(t *testing.T) {
	m := startProvider(t)
	a := newTest(t, testConfig(m))
	now := time.Now()
	for range 3 {
		r := with(now, testID, testSecret)
		id := try(t, a, r, nil)
		if id.Subject != testID || id.Kind != Kind || id.Authenticator != "machines" || id.Issuer != m.issuer ||
			!slices.Equal(id.Scopes, []string{"orders.read"}) || !slices.Equal(id.Audiences, []string{"https://api.example/ES256"}) {
			t.Errorf("identity is %+v", id)
		}
		if !jose.Compact(r.Token) {
			t.Errorf("token that stands for the caller is %q", r.Token)
		}
		if headers, cookies := r.Spent(); len(headers)+len(cookies) > 0 {
			t.Errorf("%q are taken, and a route could forward them", headers)
		}
	}
	if n := m.questions(); n != 1 {
		t.Errorf("%d questions for one client, want 1", n)
	}
	for range 3 {
		try(t, a, with(now, testID, "wrong"), authn.ErrInvalid)
	}
	if n := m.questions(); n != 1 {
		t.Errorf("%d questions for one wrong secret, want 1", n)
	}
	try(t, a, with(now.Add(a.config.RefusedMaxAge), testID, "wrong"), authn.ErrInvalid)
	if n := m.questions(); n != 1 {
		t.Errorf("%d questions once the refusal has aged, want 1", n)
	}
	try(t, a, with(now, "nobody", testSecret), authn.ErrInvalid)
	try(t, a, with(now, testID, testSecret), nil)
}

// TestDiscovery: without token_url the provider says where to ask.
func TestDiscovery(t *testing.T) {
	m := startProvider(t)
	c := testConfig(m)
	c.TokenURL = ""
	a := newTest(t, c)
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	try(t, a, with(time.Now(), testID, testSecret), nil)
}

// TestQuestion: what the provider is asked, and where the secret stands.
func TestQuestion(t *testing.T) {
	m := newMiddle(t, "http://127.0.0.1:1")
	for _, tt := range []struct{ auth, want string }{
		{"client_secret_basic", "a%3Ab s%25 grant_type=client_credentials&resource=https%3A%2F%2Fapi.example%2FES256&scope=orders.read"},
		{"client_secret_post", "  client_id=a%3Ab&client_secret=s%25&grant_type=client_credentials&resource=https%3A%2F%2Fapi.example%2FES256&scope=orders.read"},
	} {
		asked := make(chan string, 1)
		m.answers(func(w http.ResponseWriter, r *http.Request) {
			id, secret, _ := r.BasicAuth()
			_ = r.ParseForm() // a broken form has no values, which the test sees
			asked <- id + " " + secret + " " + r.PostForm.Encode()
			w.WriteHeader(401)
		})
		c := testConfig(m)
		c.ClientAuth = tt.auth
		try(t, newTest(t, c), with(time.Now(), "a:b", "s%"), authn.ErrInvalid)
		if got := <-asked; got != tt.want {
			t.Errorf("%s: asked %q, want %q", tt.auth, got, tt.want)
		}
	}
}

// TestTokenMustHold: the provider's word that the client is known is not enough; its
// token must be one for us.
func TestTokenMustHold(t *testing.T) {
	m := startProvider(t)
	for name, change := range map[string]func(*Config){
		"another audience":    func(c *Config) { c.Audiences = []string{"https://billing.example"} },
		"another issuer":      func(c *Config) { c.Issuer, c.JWKSURL = "http://127.0.0.1:1", m.issuer+"/jwks" },
		"an opaque token":     func(c *Config) { c.Parameters["resource"] = "https://api.example/opaque" },
		"an algorithm":        func(c *Config) { c.Algorithms = []string{"RS256"} },
		"a missing claim":     func(c *Config) { c.RequiredClaims = map[string][]string{"tenant": {"acme"}} },
		"another token type":  func(c *Config) { c.TokenTypes = []string{"JWT"} },
		"a scope it has not":  func(c *Config) { c.Scopes = []string{"openid"} },
		"no token for anyone": func(c *Config) { c.Parameters["resource"] = "nowhere" },
	} {
		c := testConfig(m)
		change(&c)
		a := newTest(t, c)
		for range 2 {
			if _, err := a.Authenticate(t.Context(), with(time.Now(), testID, testSecret)); !errors.Is(err, authn.ErrInvalid) || errors.Is(err, authn.ErrNotMine) {
				t.Errorf("%s: got %v, want ErrInvalid", name, err)
			}
		}
		if n := m.questions(); n != 1 {
			t.Errorf("%s: %d questions, want 1", name, n)
		}
	}
}

// TestHeaders: one client and one secret, or nobody is asked.
func TestHeaders(t *testing.T) {
	m := newMiddle(t, "http://127.0.0.1:1")
	a := newTest(t, testConfig(m))
	id, secret := "x-sallyport-client-id", "x-sallyport-client-secret"
	for name, tt := range map[string]struct {
		headers []string
		want    error
	}{
		"none":               {nil, authn.ErrNotMine},
		"others":             {[]string{"authorization", "Basic x", "x-client-id", "a"}, authn.ErrNotMine},
		"no secret":          {[]string{id, testID}, authn.ErrInvalid},
		"no id":              {[]string{secret, testSecret}, authn.ErrInvalid},
		"an empty secret":    {[]string{id, testID, secret, ""}, authn.ErrInvalid},
		"two ids":            {[]string{id, testID, id, testID, secret, testSecret}, authn.ErrInvalid},
		"two secrets":        {[]string{id, testID, secret, testSecret, secret, "b"}, authn.ErrInvalid},
		"not printable":      {[]string{id, "té", secret, testSecret}, authn.ErrInvalid},
		"a control":          {[]string{id, testID, secret, "a\tb"}, authn.ErrInvalid},
		"a long id":          {[]string{id, strings.Repeat("a", maxID+1), secret, testSecret}, authn.ErrInvalid},
		"a long secret":      {[]string{id, testID, secret, strings.Repeat("a", maxSecret+1)}, authn.ErrInvalid},
		"an id that is both": {[]string{id, testID + testSecret, secret, ""}, authn.ErrInvalid},
	} {
		_, err := a.Authenticate(t.Context(), from(time.Now(), tt.headers...))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	if n := m.questions(); n != 0 {
		t.Errorf("the provider was asked %d times", n)
	}
	if a.hash(credentials{id: "ab", secret: "c"}) == a.hash(credentials{id: "a", secret: "bc"}) {
		t.Error("two clients have one hash")
	}
}

// TestOneQuestion: requests that come together with the same credentials wait for one
// question.
func TestOneQuestion(t *testing.T) {
	m := startProvider(t)
	a := newTest(t, testConfig(m))
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := a.Authenticate(t.Context(), with(now, testID, testSecret)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := m.questions(); n != 1 {
		t.Errorf("%d questions for 50 requests, want 1", n)
	}
}

// TestOneGivesUp: the end of a request does not end the question of the others.
func TestOneGivesUp(t *testing.T) {
	m := newMiddle(t, "http://127.0.0.1:1")
	arrived, release := make(chan struct{}), make(chan struct{})
	m.answers(func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		w.WriteHeader(http.StatusUnauthorized)
	})
	a := newTest(t, testConfig(m))
	now := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := a.Authenticate(ctx, with(now, testID, testSecret)); first <- err }()
	<-arrived
	go func() { _, err := a.Authenticate(t.Context(), with(now, testID, testSecret)); second <- err }()
	cancel()
	if err := <-first; !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("who gave up got %v", err)
	}
	close(release)
	if err := <-second; !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("who waited got %v, want the provider's refusal", err)
	}
	if n := m.questions(); n != 1 {
		t.Errorf("%d questions, want 1", n)
	}
}

// TestHowLongATokenCounts: until max_age, and never to its end.
func TestHowLongATokenCounts(t *testing.T) {
	m := startProvider(t) // tokens last 300 seconds
	for _, tt := range []struct {
		maxAge time.Duration
		after  time.Duration
		asks   int
	}{
		{time.Minute, 59 * time.Second, 0},
		{time.Minute, time.Minute, 1},
		{time.Hour, 265 * time.Second, 0},
		{time.Hour, 275 * time.Second, 1},
		{0, 0, 1},
	} {
		c := testConfig(m)
		c.MaxAge = tt.maxAge
		a := newTest(t, c)
		now := time.Now()
		try(t, a, with(now, testID, testSecret), nil)
		m.questions()
		try(t, a, with(now.Add(tt.after), testID, testSecret), nil)
		if n := m.questions(); n != tt.asks {
			t.Errorf("max_age %s, %s later: %d questions, want %d", tt.maxAge, tt.after, n, tt.asks)
		}
	}
}

// TestTokenThatIsNotGoodAnyMore: one whose key the provider took back is replaced.
func TestTokenThatIsNotGoodAnyMore(t *testing.T) {
	m := startProvider(t)
	a := newTest(t, testConfig(m))
	now := time.Now()
	a.good.Put(a.hash(credentials{id: testID, secret: testSecret}), "e30.e30.e30", 0, now.Add(time.Minute))
	try(t, a, with(now, testID, testSecret), nil)
	if n := m.questions(); n != 1 {
		t.Errorf("%d questions, want 1", n)
	}
	try(t, a, with(now, testID, testSecret), nil)
	if n := m.questions(); n != 0 {
		t.Errorf("%d questions for the new token, want 0", n)
	}
}

// TestGuessing: a client that guesses is limited, and the provider with it; who has
// the secret passes from the same address.
func TestGuessing(t *testing.T) {
	m := startProvider(t)
	c := testConfig(m)
	c.QuestionLimit.Burst, c.QuestionLimit.Failures = 3, setting.Rate(0.001)
	a := newTest(t, c)
	now := time.Now()
	try(t, a, with(now, testID, testSecret), nil)
	m.questions()
	for i := range 3 {
		try(t, a, with(now, testID, fmt.Sprint("guess", i)), authn.ErrInvalid)
	}
	for i := range 3 {
		try(t, a, with(now, testID, fmt.Sprint("another", i)), authn.ErrTooMany)
	}
	if n := m.questions(); n != 3 {
		t.Errorf("%d questions, want 3", n)
	}
	try(t, a, with(now, testID, testSecret), nil)
	r := with(now, testID, "from elsewhere")
	r.Client = "198.51.100.7"
	try(t, a, r, authn.ErrInvalid)
}

// TestProviderIsAway: closed, whatever comes in place of an answer; who has a token
// goes on.
func TestProviderIsAway(t *testing.T) {
	m := startProvider(t)
	c := testConfig(m)
	c.Timeout, c.MaxAge = 2*time.Second, time.Hour
	release := make(chan struct{})
	defer close(release)
	for name, answer := range map[string]http.HandlerFunc{
		"500":            func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"503":            func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		"429":            func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) },
		"a closed door":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"a hang":         func(http.ResponseWriter, *http.Request) { <-release },
		"half an answer": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"access_token":"`) },
		"no JSON":        func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"no token":       func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, 200, `{"token_type":"Bearer"}`) },
		"another type": func(w http.ResponseWriter, _ *http.Request) {
			answerJSON(w, 200, `{"access_token":"a","token_type":"DPoP"}`)
		},
		"too much": func(w http.ResponseWriter, _ *http.Request) {
			answerJSON(w, 200, `{"access_token":"`+strings.Repeat("a", 2<<20))
		},
		"a bad request": func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, 400, `{"error":"invalid_request"}`) },
		"another grant": func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, 400, `{"error":"unsupported_grant_type"}`) },
		"another's answer": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, m.issuer+"/token", http.StatusTemporaryRedirect)
		},
	} {
		a := newTest(t, c)
		now := time.Now()
		try(t, a, with(now, testID, testSecret), nil)
		m.answers(answer)
		_, err := a.Authenticate(t.Context(), with(now, "other", "a-very-secret-secret"))
		if !errors.Is(err, authn.ErrUnavailable) || errors.Is(err, authn.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrUnavailable", name, err)
		}
		if strings.Contains(fmt.Sprint(err), "secret-secret") {
			t.Errorf("%s: the error has the secret: %v", name, err)
		}
		try(t, a, with(now, testID, testSecret), nil)
		m.answers(nil)
	}
}

func answerJSON(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// TestSecretIsNotRepeated: what a provider writes into its refusal stays out of
// errors, which are logged.
func TestSecretIsNotRepeated(t *testing.T) {
	m := newMiddle(t, "http://127.0.0.1:1")
	for _, status := range []int{400, 401, 500} {
		m.answers(func(w http.ResponseWriter, r *http.Request) {
			_, secret, _ := r.BasicAuth()
			answerJSON(w, status, `{"error":"invalid_client","error_description":"not `+secret+`"}`)
		})
		_, err := newTest(t, testConfig(m)).Authenticate(t.Context(), with(time.Now(), testID, "hush"))
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%d: got %v", status, err)
		}
	}
}

// TestTooManyQuestions: those that find no turn are refused without being asked, and
// after many without an answer the provider is left alone.
func TestTooManyQuestions(t *testing.T) {
	m := newMiddle(t, "http://127.0.0.1:1")
	c := testConfig(m)
	c.MaxConcurrent, c.MaxWait = 1, time.Millisecond
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	m.answers(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		w.WriteHeader(503)
	})
	a := newTest(t, c)
	now := time.Now()
	first := make(chan error, 1)
	go func() { _, err := a.Authenticate(t.Context(), with(now, "slow", "s")); first <- err }()
	<-arrived
	for i := range 20 {
		_, err := a.Authenticate(t.Context(), with(now, "busy", fmt.Sprint(i)))
		if !errors.Is(err, authn.ErrUnavailable) || !errors.Is(err, asking.ErrBusy) {
			t.Fatalf("got %v, want that it is busy", err)
		}
	}
	close(release)
	if err := <-first; !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if n := m.questions(); n != 1 {
		t.Errorf("%d questions, want 1", n)
	}
	m.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	for i := range 3 * asking.BreakAfter {
		try(t, a, with(now, "other", fmt.Sprint(i)), authn.ErrUnavailable)
	}
	if n := m.questions(); n > asking.BreakAfter+1 { // one more if a second passed meanwhile
		t.Errorf("%d questions to a provider that is down, want %d", n, asking.BreakAfter)
	}
}

func TestValidate(t *testing.T) {
	good := Default()
	good.Issuer, good.Audiences = "https://idp.example", []string{"api"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"issuer: is missing":                            func(c *Config) { c.Issuer = "" },
		"issuer: is http to a host":                     func(c *Config) { c.Issuer = "http://idp.example" },
		"issuer: must be an absolute URL":               func(c *Config) { c.Issuer, c.JWKSURL = "idp", "https://idp.example/keys" },
		"audiences: is missing":                         func(c *Config) { c.Audiences = nil },
		"token_url: is http to a host":                  func(c *Config) { c.TokenURL = "http://idp.example/token" },
		"client_auth: \"none\" is not":                  func(c *Config) { c.ClientAuth = "none" },
		"client_id_header: \"x y\" is not":              func(c *Config) { c.ClientIDHeader = "x y" },
		"client_id_header: \"authorization\" belongs":   func(c *Config) { c.ClientIDHeader = "Authorization" },
		"client_secret_header: \"x-forwarded-for\" bel": func(c *Config) { c.ClientSecretHeader = "X-Forwarded-For" },
		"client_secret_header: is the same":             func(c *Config) { c.ClientSecretHeader = c.ClientIDHeader },
		"scopes: \"a b\" is empty or has a space":       func(c *Config) { c.Scopes = []string{"a b"} },
		"parameters.grant_type: is set by":              func(c *Config) { c.Parameters = map[string]string{"grant_type": "password"} },
		"algorithms: HS256 needs jwks_file":             func(c *Config) { c.Algorithms = []string{"HS256"} },
		"leeway: 2m0s is not between":                   func(c *Config) { c.Leeway = 2 * time.Minute },
		"max_age: 2h0m0s is not between":                func(c *Config) { c.MaxAge = 2 * time.Hour },
		"refused_max_age: -1s is not":                   func(c *Config) { c.RefusedMaxAge = -time.Second },
		"timeout: 1ms is not between":                   func(c *Config) { c.Timeout = time.Millisecond },
		"max_wait: 1m0s is not between":                 func(c *Config) { c.MaxWait = time.Minute },
		"max_concurrent: -1 is not":                     func(c *Config) { c.MaxConcurrent = -1 },
		"cache_size: -1 is not between":                 func(c *Config) { c.CacheSize = -1 },
		"question_limit.burst: -1 is not":               func(c *Config) { c.QuestionLimit.Burst = -1 },
		"realm: ":                                       func(c *Config) { c.Realm = `a"b` },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("got %v, want the one problem %q", err, want)
		}
	}
}
