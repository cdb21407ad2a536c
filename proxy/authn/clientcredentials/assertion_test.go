package clientcredentials

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
)

const (
	assertionHeader = "x-sallyport-client-assertion"
	machineSecret   = "a secret of 32 bytes, or somewhat more"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keySet(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "x": %q, "y": %q}]}`, b64(point[1:33]), b64(point[33:]))
}

// claimsOf are those that RFC 7523 section 3 demands of a client's assertion, changed; a
// nil value leaves one out.
func claimsOf(client, audience string, now time.Time, change map[string]any) map[string]any {
	claims := map[string]any{
		"iss": client, "sub": client, "aud": audience, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// assertion signs claims with the standard library: with a key, or else with a secret.
func assertion(t *testing.T, key *ecdsa.PrivateKey, secret string, claims map[string]any) string {
	t.Helper()
	alg := "HS256"
	if key != nil {
		alg = "ES256"
	}
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	input := b64([]byte(`{"alg":"`+alg+`"}`)) + "." + b64(body)
	if key == nil {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(input))
		return input + "." + b64(mac.Sum(nil))
	}
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

func assertionConfig(m *middle) Config {
	c := testConfig(m)
	c.ClientAssertionHeader = "X-Sallyport-Client-Assertion"
	return c
}

// TestAssertions: a client that signs with its key, and one that signs with its secret,
// are who a certified provider says they are, asked once for an assertion. What it does
// not take is refused.
func TestAssertions(t *testing.T) {
	key := newKey(t)
	m := startProvider(t, "MACHINE_JWKS="+keySet(t, key))
	now := time.Now()
	for client, sign := range map[string]func(claims map[string]any) string{
		"machine-key":    func(claims map[string]any) string { return assertion(t, key, "", claims) },
		"machine-secret": func(claims map[string]any) string { return assertion(t, nil, machineSecret, claims) },
	} {
		a := newTest(t, assertionConfig(m))
		m.questions()
		good := sign(claimsOf(client, m.issuer, now, nil))
		for range 3 {
			r := from(now, assertionHeader, good)
			r.Token = "of another authenticator"
			id := try(t, a, r, nil)
			if id.Subject != client || id.Kind != Kind || !slices.Equal(id.Scopes, []string{"orders.read"}) || !jose.Compact(r.Token) || r.Token == good || id.ExpiresAt.Before(now) {
				t.Errorf("%s: identity %+v, and %.40q stands for it", client, id, r.Token)
			}
			if headers, cookies := r.Spent(); len(headers)+len(cookies) > 0 {
				t.Errorf("%q are taken, and a route could forward them", headers)
			}
		}
		if n := m.questions(); n != 1 {
			t.Errorf("%s: %d questions for one assertion, want 1", client, n)
		}
		try(t, a, from(now, assertionHeader, sign(claimsOf(client, m.issuer, now, nil)), "x-sallyport-client-id", client), nil)
		for name, bad := range map[string][]string{
			"for another server":   {assertionHeader, sign(claimsOf(client, "https://other.example", now, nil))},
			"of another":           {assertionHeader, sign(claimsOf(testID, m.issuer, now, nil))},
			"with another's id":    {assertionHeader, sign(claimsOf(client, m.issuer, now, nil)), "x-sallyport-client-id", testID},
			"with another key":     {assertionHeader, assertion(t, newKey(t), "", claimsOf(client, m.issuer, now, nil))},
			"with another secret":  {assertionHeader, assertion(t, nil, "another secret of 32 bytes, or more", claimsOf(client, m.issuer, now, nil))},
			"not of claims":        {assertionHeader, "eyJhbGciOiJIUzI1NiJ9.AAAA.AAAA"},
			"changed":              {assertionHeader, good[:len(good)-8] + "AAAAAAAA"},
			"in place of a secret": {"x-sallyport-client-id", client, "x-sallyport-client-secret", good},
		} {
			m.questions()
			for range 2 {
				if _, err := a.Authenticate(t.Context(), from(now, bad...)); !errors.Is(err, authn.ErrInvalid) {
					t.Errorf("%s, %s: got %v, want ErrInvalid", client, name, err)
				}
			}
			if n := m.questions(); n != 1 {
				t.Errorf("%s, %s: %d questions, want 1", client, name, n)
			}
		}
		// Elsewhere it is a replay, of which the provider keeps account.
		try(t, newTest(t, assertionConfig(m)), from(now, assertionHeader, good), authn.ErrInvalid)
	}
}

// TestAssertionQuestion: what the provider is asked (RFC 7521 section 4.2).
func TestAssertionQuestion(t *testing.T) {
	m := newMiddle(t, "http://127.0.0.1:1")
	text := assertion(t, nil, "x", claimsOf("a", "b", time.Now(), nil))
	rest := "client_assertion=" + text + "&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&"
	end := "grant_type=client_credentials&resource=https%3A%2F%2Fapi.example%2FES256&scope=orders.read"
	for _, auth := range []string{authBasic, authPost} {
		for _, tt := range []struct{ id, want string }{{"", rest + end}, {"a:b", rest + "client_id=a%3Ab&" + end}} {
			asked := make(chan string, 1)
			m.answers(func(w http.ResponseWriter, r *http.Request) {
				_ = r.ParseForm() // a broken form has no values, which the test sees
				asked <- r.Header.Get("Authorization") + r.PostForm.Encode()
				w.WriteHeader(401)
			})
			c := assertionConfig(m)
			c.ClientAuth = auth
			r := from(time.Now(), assertionHeader, text)
			if tt.id != "" {
				r = from(time.Now(), assertionHeader, text, "x-sallyport-client-id", tt.id)
			}
			_, err := newTest(t, c).Authenticate(t.Context(), r)
			if !errors.Is(err, authn.ErrInvalid) || strings.Contains(err.Error(), text[len(text)-40:]) {
				t.Errorf("got %v", err)
			}
			if got := <-asked; got != tt.want {
				t.Errorf("%s: asked %q, want %q", auth, got, tt.want)
			}
		}
	}
}

// TestAssertionHeaders: one assertion and no secret, in the form of a JWT that is not too
// long and has not ended, or nobody is asked.
func TestAssertionHeaders(t *testing.T) {
	m := newMiddle(t, "http://127.0.0.1:1")
	a := newTest(t, assertionConfig(m))
	now := time.Now()
	good := assertion(t, nil, "x", claimsOf("a", "b", now, nil))
	id, secret := "x-sallyport-client-id", "x-sallyport-client-secret"
	for name, headers := range map[string][]string{
		"two":               {assertionHeader, good, assertionHeader, good},
		"and a secret":      {assertionHeader, good, secret, testSecret},
		"an id, a secret":   {assertionHeader, good, id, testID, secret, testSecret},
		"and an empty one":  {assertionHeader, good, secret, ""},
		"an empty id":       {assertionHeader, good, id, ""},
		"a strange id":      {assertionHeader, good, id, "té"},
		"empty":             {assertionHeader, ""},
		"opaque":            {assertionHeader, "hush"},
		"encrypted":         {assertionHeader, good + ".a.b"},
		"padded":            {assertionHeader, good + "="},
		"with a space":      {assertionHeader, " " + good},
		"two in one":        {assertionHeader, good + ", " + good},
		"too long":          {assertionHeader, assertion(t, nil, "x", claimsOf("a", "b", now, map[string]any{"x": strings.Repeat("x", jose.MaxToken)}))},
		"over":              {assertionHeader, assertion(t, nil, "x", claimsOf("a", "b", now, map[string]any{"exp": now.Unix() - 31}))},
		"an id and nothing": {id, testID},
	} {
		if _, err := a.Authenticate(t.Context(), from(now, headers...)); !errors.Is(err, authn.ErrInvalid) || errors.Is(err, authn.ErrExpired) != (name == "over") {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	if n := m.questions(); n != 0 {
		t.Errorf("the provider was asked %d times", n)
	}
	try(t, a, from(now, "x-ambassador-client-assertion", good), authn.ErrNotMine)
	try(t, newTest(t, testConfig(m)), from(now, assertionHeader, good), authn.ErrNotMine)
	if a.hash(credentials{id: "a", secret: good}) == a.hash(credentials{id: "a", assertion: good}) {
		t.Error("a secret and an assertion have one hash")
	}
	if got := a.AssertedHeaders(); !slices.Equal(got, []string{id, secret, assertionHeader}) || !slices.Equal(got, a.CredentialHeaders()) {
		t.Errorf("headers are %q", got)
	}
	if got, want := a.Challenge(nil), `ClientCredentials realm="sallyport", id="`+id+`", secret="`+secret+`", assertion="`+assertionHeader+`"`; got != want {
		t.Errorf("the challenge is %s", got)
	}
}

// TestHowLongAnAssertionCounts: to its own end at most, by its own word, and for one
// question if it does not say.
func TestHowLongAnAssertionCounts(t *testing.T) {
	m := startProvider(t) // tokens last 300 seconds
	m.answers(m.asTester(t))
	now := time.Now()
	for name, tt := range map[string]struct {
		change map[string]any
		maxAge time.Duration
		after  time.Duration
		asks   int
	}{
		"before its end":     {nil, time.Hour, 58 * time.Second, 0},
		"at its end":         {nil, time.Hour, time.Minute, 1},
		"max_age":            {nil, 10 * time.Second, 10 * time.Second, 1},
		"the token's end":    {map[string]any{"exp": now.Add(time.Hour).Unix()}, time.Hour, 275 * time.Second, 1},
		"a long one":         {map[string]any{"exp": now.Add(time.Hour).Unix()}, time.Hour, 265 * time.Second, 0},
		"without an end":     {map[string]any{"exp": nil}, time.Hour, 0, 1},
		"its end is no date": {map[string]any{"exp": "soon"}, time.Hour, 0, 1},
	} {
		c := assertionConfig(m)
		c.MaxAge = tt.maxAge
		a := newTest(t, c)
		text := assertion(t, nil, "x", claimsOf("a", "b", now, tt.change))
		try(t, a, from(now, assertionHeader, text), nil)
		m.questions()
		try(t, a, from(now.Add(tt.after), assertionHeader, text), nil)
		if n := m.questions(); n != tt.asks {
			t.Errorf("%s: %d questions, want %d", name, n, tt.asks)
		}
	}
}

// asTester asks the provider with a client's secret, whatever the question says: tokens
// without an assertion that anybody verifies.
func (m *middle) asTester(t *testing.T) http.HandlerFunc {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm() // a broken form has no values, which the provider refuses
		for name := range r.PostForm {
			if strings.HasPrefix(name, "client_") {
				r.PostForm.Del(name)
			}
		}
		r.SetBasicAuth(testID, testSecret)
		body := []byte(r.PostForm.Encode())
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		m.proxy.ServeHTTP(w, r)
	}
}
