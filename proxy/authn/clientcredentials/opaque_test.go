package clientcredentials

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/introspection"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

const opaque = "https://api.example/opaque"

// opaqueConfig is for clients of m whose tokens say nothing by themselves.
func opaqueConfig(t *testing.T, m *middle) Config {
	t.Helper()
	c := testConfig(m)
	c.Audiences, c.Parameters = []string{opaque}, map[string]string{"resource": opaque}
	i := introspection.Default()
	i.URL, i.ClientID, i.ClientSecretFile = m.issuer+"/token/introspection", "gateway", filepath.Join(t.TempDir(), "secret")
	certstest.Write(t, i.ClientSecretFile, []byte("a secret: with % and +\n"))
	c.Introspection = &i
	return c
}

// TestOpaqueTokens: a certified provider is asked about the tokens that it gives, and
// the identity is as of tokens that say it themselves.
func TestOpaqueTokens(t *testing.T) {
	m := startProvider(t)
	a := newTest(t, opaqueConfig(t, m))
	now := time.Now()
	for range 3 {
		r := with(now, testID, testSecret)
		id := try(t, a, r, nil)
		if id.Subject != testID || id.Kind != Kind || id.Authenticator != "machines" || id.Issuer != m.issuer ||
			!slices.Equal(id.Scopes, []string{"orders.read"}) || !slices.Equal(id.Audiences, []string{opaque}) || id.Claims["client_id"] != testID {
			t.Errorf("identity is %+v", id)
		}
		if r.Token == "" || strings.Contains(r.Token, ".") {
			t.Errorf("token that stands for the caller is %q", r.Token)
		}
	}
	if n := m.questions(); n != 1 {
		t.Errorf("%d tokens for one client, want 1", n)
	}
	try(t, a, with(now, testID, "wrong"), authn.ErrInvalid)
}

// TestOpaqueTokenIsTakenBack: one that was revoked at the provider is replaced as soon as
// what it said about it has aged.
func TestOpaqueTokenIsTakenBack(t *testing.T) {
	m := startProvider(t)
	a := newTest(t, opaqueConfig(t, m))
	now := time.Now()
	first := with(now, testID, testSecret)
	try(t, a, first, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, m.issuer+"/token/revocation", strings.NewReader(url.Values{"token": {first.Token}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(testID, testSecret)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("revoke: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
	second := with(now.Add(a.config.Introspection.MaxAge), testID, testSecret)
	try(t, a, second, nil)
	if n := m.questions(); n != 2 || second.Token == first.Token {
		t.Errorf("%d tokens, and the second is the first: %v", n, second.Token == first.Token)
	}
}

// TestOpaqueTokenMustHold: the token must be one for us by the provider's word, and no
// word means closed.
func TestOpaqueTokenMustHold(t *testing.T) {
	m := startProvider(t)
	said := func(answer string) func(*Config) {
		return func(c *Config) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, answer)
			}))
			t.Cleanup(s.Close)
			c.Introspection.URL = s.URL
		}
	}
	const good = `"active": true, "client_id": "tester", "aud": "https://api.example/opaque", "token_type": "Bearer"`
	for name, tt := range map[string]struct {
		change  func(*Config)
		want    error
		subject string
	}{
		"good":                     {said(`{` + good + `}`), nil, testID},
		"with a subject":           {said(`{` + good + `, "sub": "alice"}`), nil, "alice"},
		"another audience":         {func(c *Config) { c.Audiences = []string{"https://billing.example"} }, authn.ErrAudience, ""},
		"an audience of its own":   {func(c *Config) { c.Introspection.Audiences = []string{"https://billing.example"} }, authn.ErrAudience, ""},
		"another issuer":           {said(`{` + good + `, "iss": "https://other.example"}`), authn.ErrIssuer, ""},
		"not active":               {said(`{"active": false}`), authn.ErrInvalid, ""},
		"a refresh token":          {said(`{` + good + `, "token_use": "refresh_token"}`), authn.ErrInvalid, ""},
		"bound to a key":           {said(`{` + good + `, "cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`), authn.ErrInvalid, ""},
		"no answer":                {said(`<html>`), authn.ErrUnavailable, ""},
		"nobody there":             {func(c *Config) { c.Introspection.URL = "http://127.0.0.1:1" }, authn.ErrUnavailable, ""},
		"the gateway is not known": {func(c *Config) { c.Introspection.ClientID = "nobody" }, authn.ErrUnavailable, ""},
	} {
		c := opaqueConfig(t, m)
		tt.change(&c)
		a := newTest(t, c)
		id, err := a.Authenticate(t.Context(), with(time.Now(), testID, testSecret))
		if !errors.Is(err, tt.want) || (err == nil) != (id != nil) || errors.Is(err, authn.ErrNotMine) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
		if id != nil && (id.Subject != tt.subject || id.Issuer != m.issuer) {
			t.Errorf("%s: subject %q of %q", name, id.Subject, id.Issuer)
		}
	}
}

// TestPhantomToken: the JWT that the provider answers with stands for the caller.
func TestPhantomToken(t *testing.T) {
	m := startProvider(t)
	c := opaqueConfig(t, m)
	c.Introspection.Format, c.Introspection.Issuer, c.Introspection.JWKSURL = "jwt", m.issuer, m.issuer+"/jwks"
	a := newTest(t, c)
	for range 2 {
		r := with(time.Now(), testID, testSecret)
		if id := try(t, a, r, nil); id.Subject != testID || !jose.Compact(r.Token) {
			t.Errorf("subject %q, and %.20q stands for the caller", id.Subject, r.Token)
		}
	}
}

// TestIntrospectionKeys: rules that nobody would look at are refused, and those of the
// question are named.
func TestIntrospectionKeys(t *testing.T) {
	m := newMiddle(t, "http://127.0.0.1:1")
	for want, change := range map[string]func(*Config){
		"introspection.client_id: is missing":                          func(c *Config) { c.Introspection.ClientID = "" },
		"introspection.max_age: 2h0m0s is not between":                 func(c *Config) { c.Introspection.MaxAge = 2 * time.Hour },
		"introspection.all_tokens: is not used":                        func(c *Config) { c.Introspection.AllTokens = true },
		"audiences: is missing":                                        func(c *Config) { c.Audiences = nil },
		"jwks_url: is not used":                                        func(c *Config) { c.JWKSURL = "https://idp.example/keys" },
		"algorithms: is not used":                                      func(c *Config) { c.Algorithms = []string{"RS256"} },
		"token_types: is not used":                                     func(c *Config) { c.TokenTypes = []string{"JWT"} },
		"required_claims: is not used":                                 func(c *Config) { c.RequiredClaims = map[string][]string{"a": {"b"}} },
		"scope_claims: is not used":                                    func(c *Config) { c.ScopeClaims = []string{"scp"} },
		"client_assertion_header: \"x y\" is not":                      func(c *Config) { c.ClientAssertionHeader = "x y" },
		"client_assertion_header: \"dpop\" belongs":                    func(c *Config) { c.ClientAssertionHeader = "DPoP" },
		"client_assertion_header: is the same":                         func(c *Config) { c.ClientAssertionHeader = "X-Sallyport-Client-Secret" },
		"parameters.client_assertion: is set by":                       func(c *Config) { c.Parameters = map[string]string{"client_assertion": "x"} },
		"introspection.url: is http to a host that is not loopback; u": func(c *Config) { c.Introspection.URL = "http://idp.example" },
	} {
		c := opaqueConfig(t, m)
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("got %v, want the one problem %q", err, want)
		}
	}
	c := opaqueConfig(t, m)
	c.InsecureHTTP, c.Introspection.InsecureHTTP = true, true
	if got := slices.Sorted(maps.Keys(c.Insecure())); !slices.Equal(got, []string{"insecure_http", "introspection.insecure_http"}) {
		t.Errorf("insecure are %q", got)
	}
	a := newTest(t, opaqueConfig(t, m))
	if got := a.Files(); len(got) != 1 || filepath.Base(got[0]) != "secret" {
		t.Errorf("files are %q", got)
	}
}

// TestMetrics: how each question ended is counted, and nothing that was not asked.
func TestMetrics(t *testing.T) {
	m := startProvider(t)
	metrics := meter.New()
	c := testConfig(m)
	c.MaxConcurrent, c.MaxWait = 1, 0
	a := start(t, c, Deps{Metrics: metrics})
	now := time.Now()
	for range 3 {
		try(t, a, with(now, testID, testSecret), nil)
		try(t, a, with(now, testID, "wrong"), authn.ErrInvalid)
	}
	try(t, a, with(now, testID, strings.Repeat("x", maxSecret+1)), authn.ErrInvalid)
	if err := a.provider.slots.Take(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	try(t, a, with(now, testID, "busy"), authn.ErrUnavailable)
	a.provider.slots.Give()
	m.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	for i := range 2 {
		try(t, a, with(now, testID, fmt.Sprint(i)), authn.ErrUnavailable)
	}
	m.answers(nil)
	c.Audiences = []string{"https://billing.example"}
	try(t, start(t, c, Deps{Metrics: metrics}), with(now, testID, testSecret), authn.ErrInvalid)
	want := map[string]int64{}
	for outcome, n := range map[string]int64{"granted": 1, "refused": 1, "unacceptable": 1, "busy": 1, "error": 2} {
		want["sallyport.client.credentials.questions authenticator=machines,outcome="+outcome] = n
	}
	if diff := cmp.Diff(want, metertest.Counts(metrics)); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}
