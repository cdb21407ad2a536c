package identitytoken

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
)

// clock is a time that stands until a test moves it.
type clock struct {
	t       time.Time
	metrics *meter.Registry
}

func (c *clock) now() time.Time { return c.t }

func start() *clock { return &clock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), meter.New()} }

func (c *clock) issuer(t *testing.T, old *Issuer, change func(*Config)) *Issuer {
	t.Helper()
	cfg := Config{Issuer: "https://gateway.example"}
	if change != nil {
		change(&cfg)
	}
	i, err := New(cfg, old, Deps{Now: c.now, Metrics: c.metrics})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func (c *clock) alice() *authz.Identity {
	return &authz.Identity{
		Authenticated: true, Authenticator: "corp", Subject: "alice", Issuer: "https://idp.example", Scopes: []string{"read", "write"},
		Claims: map[string]any{"email": "a@example.com", "secret": "x", "iss": "https://idp.example", "level": json.Number("7")}, ExpiresAt: c.t.Add(time.Hour),
	}
}

func token(t *testing.T, i *Issuer, id *authz.Identity, audience string) string {
	t.Helper()
	out, err := i.Token(id, audience)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func keySet(t *testing.T, i *Issuer) string {
	t.Helper()
	a := i.serve(t.Context(), &authn.Request{Method: "GET"})
	if a.Status != 200 {
		t.Fatalf("key set: %d %s", a.Status, a.Why)
	}
	return string(a.Body)
}

// verify does what an upstream does, with the gateway's own mechanism.
func verify(t *testing.T, keys, token, audience string, now time.Time) (*authz.Identity, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, []byte(keys), 0o600); err != nil {
		t.Fatal(err)
	}
	c := jwt.Default()
	c.Issuer, c.Audiences, c.JWKSFile, c.Leeway = "https://gateway.example", []string{audience}, file, 0
	a, err := jwt.New("upstream", c, jwt.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return a.Authenticate(t.Context(), &authn.Request{Authorization: "Bearer " + token, Now: now})
}

func TestUpstreamsVerifyTokens(t *testing.T) {
	for _, alg := range []string{es256, edDSA} {
		c := start()
		i := c.issuer(t, nil, func(cfg *Config) { cfg.Algorithm, cfg.Claims = alg, []string{"email", "level", "no"} })
		tok := token(t, i, c.alice(), "orders")
		id, err := verify(t, keySet(t, i), tok, "orders", c.t)
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		want := map[string]any{
			"iss": "https://gateway.example", "aud": "orders", "sub": "alice", "idp": "https://idp.example", "authenticator": "corp",
			"scope": "read write", "email": "a@example.com", "level": json.Number("7"),
			"iat": json.Number("1767323045"), "exp": json.Number("1767323105"),
		}
		if d := cmp.Diff(want, id.Claims); d != "" {
			t.Error(d)
		}
		if id.TokenHeader["alg"] != alg {
			t.Errorf("header %v", id.TokenHeader)
		}
		for name, check := range map[string]struct {
			token, audience string
			now             time.Time
		}{
			"another audience": {tok, "billing", c.t},
			"later":            {tok, "orders", c.t.Add(time.Minute)},
			"changed":          {strings.Replace(tok, ".", ".e", 1), "orders", c.t},
		} {
			if _, err := verify(t, keySet(t, i), check.token, check.audience, check.now); !errors.Is(err, authn.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		other := c.issuer(t, nil, func(cfg *Config) { cfg.Algorithm = alg })
		if _, err := verify(t, keySet(t, other), tok, "orders", c.t); !errors.Is(err, authn.ErrInvalid) {
			t.Errorf("keys of another gateway: %v", err)
		}
	}
}

func TestTokensEndWithTheirIdentity(t *testing.T) {
	c := start()
	i := c.issuer(t, nil, nil)
	id := c.alice()
	id.ExpiresAt = c.t.Add(5 * time.Second)
	tok := token(t, i, id, "orders")
	if got := claimsOf(t, tok)["exp"]; got != json.Number("1767323050") {
		t.Errorf("exp %v", got)
	}
	c.t = c.t.Add(4 * time.Second)
	if token(t, i, id, "orders") != tok {
		t.Error("signed anew for each request")
	}
	c.t = c.t.Add(2 * time.Second) // within the leeway of the authenticator
	if got := claimsOf(t, token(t, i, id, "orders"))["exp"]; got != json.Number("1767323050") {
		t.Errorf("exp %v after the identity's end", got)
	}
}

func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	if err := dec.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTokensAreShownForHalfTheirLife(t *testing.T) {
	c := start()
	i := c.issuer(t, nil, nil)
	id := c.alice()
	first := token(t, i, id, "orders")
	c.t = c.t.Add(29 * time.Second)
	if token(t, i, id, "orders") != first {
		t.Error("a fresh one was signed before half of the time")
	}
	if token(t, i, id, "billing") == first || token(t, i, c.alice(), "orders") == first {
		t.Error("a token was shown for another identity or audience")
	}
	c.t = c.t.Add(time.Second)
	if token(t, i, id, "orders") == first {
		t.Error("the same one after half of the time")
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	c := start()
	k := newCache(time.Minute)
	for range 3*maxTokens + 10 {
		k.put(cacheKey{&authz.Identity{}, "a"}, "t", c.t.Add(time.Second), c.t)
	}
	if n := len(k.young) + len(k.old); n > 2*maxTokens {
		t.Errorf("%d tokens are kept", n)
	}
}

// TestRotation walks through days of rotation as an upstream sees it that keeps a
// key set as long as it may: no fresh token is without a key, and none that is
// still valid either.
func TestRotation(t *testing.T) {
	c := start()
	i := c.issuer(t, nil, func(cfg *Config) { cfg.RotateInterval = 30 * time.Minute })
	type seen struct {
		at   time.Time
		text string
	}
	var sets, tokens []seen
	kids := map[any]bool{}
	for range 24 * 12 {
		c.t = c.t.Add(20 * time.Second)
		tok := token(t, i, c.alice(), "orders")
		kid := kidOf(t, tok)
		kids[kid] = true
		sets, tokens = append(sets, seen{c.t, keySet(t, i)}), append(tokens, seen{c.t, kid})
		for _, s := range sets {
			if c.t.Sub(s.at) <= i.config.PublishAhead && !strings.Contains(s.text, kid) {
				t.Fatalf("%v: the key of a fresh token is not in the set of %v", c.t, s.at)
			}
		}
		for _, s := range tokens {
			if c.t.Sub(s.at) <= i.config.Lifetime+maxSkew/2 && !strings.Contains(keySet(t, i), s.text) {
				t.Fatalf("%v: the key of a token of %v is not in the set any more", c.t, s.at)
			}
		}
		if n := strings.Count(keySet(t, i), `"kid"`); n > 3 {
			t.Fatalf("%d keys are published", n)
		}
	}
	if len(kids) < 3 {
		t.Errorf("%d keys signed in %v", len(kids), 24*12*20*time.Second)
	}
}

func kidOf(t *testing.T, token string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	if err != nil {
		t.Fatal(err)
	}
	var h struct{ Kid string }
	if err := json.Unmarshal(raw, &h); err != nil {
		t.Fatal(err)
	}
	return h.Kid
}

// keyFile writes keys in PEM and returns their ids.
func keyFile(t *testing.T, file string, keys ...any) (ids []string) {
	t.Helper()
	var text []byte
	for _, k := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
		made, err := newKey(k)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, made.id)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return ids
}

func ec(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ed(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysOfAFile(t *testing.T) {
	c := start()
	file := filepath.Join(t.TempDir(), "keys.pem")
	a, b := ec(t), ed(t)
	ids := keyFile(t, file, a, b)
	one := c.issuer(t, nil, func(cfg *Config) { cfg.KeyFile = file })
	two := c.issuer(t, nil, func(cfg *Config) { cfg.KeyFile = file })
	tok := token(t, one, c.alice(), "orders")
	if kidOf(t, tok) != ids[0] {
		t.Error("the first does not sign")
	}
	if _, err := verify(t, keySet(t, two), tok, "orders", c.t); err != nil {
		t.Errorf("another replica: %v", err)
	}

	// Another key in its place is published and does not sign until upstreams know it.
	next := keyFile(t, file, ec(t))
	if err := one.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := keySet(t, two)
	for _, step := range []struct {
		after time.Duration
		kid   string
		old   bool // the key before is published
	}{
		{0, ids[0], true},
		{one.config.PublishAhead - time.Second, ids[0], true},
		{time.Second, next[0], true},
		{one.config.Lifetime + maxSkew - time.Second, next[0], true},
		{time.Second, next[0], false},
	} {
		c.t = c.t.Add(step.after)
		tok := token(t, one, c.alice(), "orders")
		if kidOf(t, tok) != step.kid || strings.Contains(keySet(t, one), ids[0]) != step.old || !strings.Contains(keySet(t, one), next[0]) {
			t.Errorf("after %v: signed by %s, set %s", step.after, kidOf(t, tok), keySet(t, one))
		}
		if _, err := verify(t, before, tok, "orders", c.t); (err == nil) != (step.kid == ids[0]) {
			t.Errorf("after %v: with the set from before: %v", step.after, err)
		}
	}
	if strings.Contains(keySet(t, one), ids[1]) {
		t.Error("a key that never signed and is not in the file is published")
	}

	// The way by hand: the next key stands second for a while, and then first.
	c.t = c.t.Add(time.Hour)
	k1, k2 := ec(t), ec(t)
	keyFile(t, file, k1, k2)
	three := c.issuer(t, nil, func(cfg *Config) { cfg.KeyFile = file })
	set := keySet(t, three)
	c.t = c.t.Add(three.config.PublishAhead)
	ids = keyFile(t, file, k2, k1)
	if err := three.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	tok = token(t, three, c.alice(), "orders")
	if _, err := verify(t, set, tok, "orders", c.t); err != nil || kidOf(t, tok) != ids[0] {
		t.Errorf("the second key did not take over: %v", err)
	}
}

func TestABrokenKeyFileLeavesTheKeys(t *testing.T) {
	c := start()
	file := filepath.Join(t.TempDir(), "keys.pem")
	ids := keyFile(t, file, ec(t))
	i := c.issuer(t, nil, func(cfg *Config) { cfg.KeyFile = file })
	if err := os.WriteFile(file, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := i.Reload(t.Context()); err == nil {
		t.Error("a broken file is no error")
	}
	if kidOf(t, token(t, i, c.alice(), "orders")) != ids[0] {
		t.Error("the key is gone")
	}
}

func TestKeyFilesThatAreRefused(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(k any) string {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	for name, text := range map[string]string{
		"empty": "", "no PEM": "secret", "P-384": pkcs8(p384), "RSA": pkcs8(rsaKey),
		"a certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"encrypted":     "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
		"too many":      strings.Repeat(pkcs8(ec(t)), maxKeys+1),
		"second broken": pkcs8(ec(t)) + "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
	} {
		file := filepath.Join(t.TempDir(), "keys.pem")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{Issuer: "g", KeyFile: file}, nil, Deps{}); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Config{Issuer: "g", KeyFile: "no such file"}, nil, Deps{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if der, err := x509.MarshalECPrivateKey(ec(t)); err != nil {
		t.Fatal(err)
	} else if _, err := parseKey(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}); err != nil {
		t.Errorf("SEC 1: %v", err)
	}
}

// TestReloadsOfTheConfiguration: whatever changes, tokens that are around verify,
// and so do fresh ones with a key set from before.
func TestReloadsOfTheConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.pem")
	keyFile(t, file, ec(t))
	kinds := map[string]func(*Config){
		"made ES256": func(c *Config) { c.Algorithm = es256 },
		"made EdDSA": func(c *Config) { c.Algorithm = edDSA },
		"file":       func(c *Config) { c.KeyFile = file },
		"claims":     func(c *Config) { c.Claims = []string{"email"} },
	}
	for from, a := range kinds {
		for to, b := range kinds {
			c := start()
			old := c.issuer(t, nil, a)
			set, tok := keySet(t, old), token(t, old, c.alice(), "orders")
			next := c.issuer(t, old, b)
			if _, err := verify(t, keySet(t, next), tok, "orders", c.t); err != nil {
				t.Errorf("%s to %s: a token from before: %v", from, to, err)
			}
			if _, err := verify(t, set, token(t, next, c.alice(), "orders"), "orders", c.t); err != nil {
				t.Errorf("%s to %s: a fresh token with the set from before: %v", from, to, err)
			}
			set = keySet(t, next)
			c.t = c.t.Add(next.config.PublishAhead)
			if _, err := verify(t, set, token(t, next, c.alice(), "orders"), "orders", c.t); err != nil {
				t.Errorf("%s to %s: later: %v", from, to, err)
			}
		}
	}
}

func TestTheKeySetIsServed(t *testing.T) {
	c := start()
	i := c.issuer(t, nil, nil)
	e := i.Endpoints()
	if len(e) != 1 || e[0].Path != "/.well-known/sallyport/jwks.json" || len(e[0].Hosts) != 0 {
		t.Fatalf("endpoints %+v", e)
	}
	if a := e[0].Serve(t.Context(), &authn.Request{Method: "POST"}); a.Status != 405 {
		t.Errorf("POST: %d", a.Status)
	}
	a := e[0].Serve(t.Context(), &authn.Request{Method: "HEAD"})
	want := []authz.Header{{Name: "content-type", Value: "application/jwk-set+json"}, {Name: "cache-control", Value: "public, max-age=300"}}
	if d := cmp.Diff(want, a.Headers); d != "" {
		t.Error(d)
	}
	if strings.Contains(string(a.Body), `"d"`) || strings.Count(string(a.Body), `"kid"`) != 2 {
		t.Errorf("key set %s", a.Body)
	}
}

func TestConfigsThatAreRefused(t *testing.T) {
	for key, change := range map[string]func(*Config){
		"issuer":          func(c *Config) { c.Issuer = "" },
		"header":          func(c *Config) { c.Header = "x identity" },
		"lifetime":        func(c *Config) { c.Lifetime = 2 * time.Hour },
		"algorithm":       func(c *Config) { c.Algorithm = "none" },
		"publish_ahead":   func(c *Config) { c.PublishAhead = -1 },
		"rotate_interval": func(c *Config) { c.RotateInterval = time.Minute },
		"jwks_path":       func(c *Config) { c.JWKSPath = "/a/../b" },
		"claims":          func(c *Config) { c.Claims = []string{"sub"} },
	} {
		c := Config{Issuer: "g"}
		change(&c)
		if p := setting.Problems(c.Validate()); len(p) != 1 || p[0].Key != key {
			t.Errorf("%s: %v", key, p)
		}
	}
}

// TestHeadersThatHaveAnotherUse: a token in one would frame the message, end on the way,
// or be taken for what another gateway saw.
func TestHeadersThatHaveAnotherUse(t *testing.T) {
	for header, want := range map[string]bool{
		"x-identity-token": true, "X-Goog-IAP-JWT-Assertion": true, "x-forwarded": true,
		"Host": false, "content-length": false, "Transfer-Encoding": false, "connection": false, "keep-alive": false, "te": false, "trailer": false, "upgrade": false,
		"expect": false, "http2-settings": false, "proxy-connection": false, "proxy-authenticate": false, "proxy-authorization": false, "authorization": false,
		"cookie": false, "forwarded": false, "x-forwarded-for": false, "X-Forwarded-Client-Cert": false, "x-request-id": false,
	} {
		if err := (Config{Issuer: "g", Header: header}).Validate(); (err == nil) != want {
			t.Errorf("%s: %v", header, err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.pem")
	keyFile(t, file, ec(t), ed(t))
	i, err := New(Config{Issuer: "g", KeyFile: file}, nil, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ids := []*authz.Identity{{Subject: "a"}, {Subject: "b"}}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for range 50 {
				id := ids[n%2]
				if got, err := i.Token(id, "x"); err != nil || claimsOf(t, got)["sub"] != id.Subject {
					t.Errorf("%s, %v", got, err)
				}
				if err := i.Reload(t.Context()); err != nil {
					t.Error(err)
				}
				_ = keySet(t, i)
			}
		})
	}
	wg.Wait()
}

// TestSignaturesAreCounted: those that were made, and not the tokens that were kept.
func TestSignaturesAreCounted(t *testing.T) {
	c := start()
	i, alice := c.issuer(t, nil, nil), c.alice()
	for range 3 {
		for _, audience := range []string{"orders", "billing"} {
			if _, err := i.Token(alice, audience); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := metertest.Counts(c.metrics)["sallyport.identity.token.signatures outcome=ok"]; got != 2 {
		t.Errorf("%d signatures, want 2", got)
	}
}
