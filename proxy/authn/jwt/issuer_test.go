package jwt

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// configOf returns the configuration for the issuer's tokens.
func configOf(is *josetest.Issuer) Config {
	c := Default()
	c.Issuer, c.Audiences, c.JWKSURL = is.URL, []string{"orders-api"}, is.URL+"/keys"
	return c
}

const testIssuer = "https://idp.example"

// testNow is the time that tokens are judged at.
var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// claims returns good claims of issuer iss, changed by change; nil removes one.
func claims(iss string, change map[string]any) map[string]any {
	c := map[string]any{
		"iss": iss, "aud": "orders-api", "sub": "alice", "scope": "orders.read orders.write",
		"iat": testNow.Add(-time.Minute).Unix(), "exp": testNow.Add(5 * time.Minute).Unix(),
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// newFromFile makes an authenticator of testIssuer with the keys in a file.
func newFromFile(t testing.TB, change func(*Config), signers ...*josetest.Signer) *Authenticator {
	t.Helper()
	return newWith(t, Deps{}, change, signers...)
}

func newWith(t testing.TB, deps Deps, change func(*Config), signers ...*josetest.Signer) *Authenticator {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, []byte(josetest.JWKS(t, signers...)), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Default()
	c.Issuer, c.Audiences, c.JWKSFile = testIssuer, []string{"orders-api"}, file
	if change != nil {
		change(&c)
	}
	a, err := New("corp", c, deps)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// present sends token as a request's only credential.
func present(t testing.TB, a authn.Authenticator, token string) (*authz.Identity, error) {
	t.Helper()
	return presentAt(t, a, token, testNow)
}

func presentAt(t testing.TB, a authn.Authenticator, token string, now time.Time) (*authz.Identity, error) {
	t.Helper()
	return a.Authenticate(t.Context(), &authn.Request{Authorization: "Bearer " + token, Now: now})
}
