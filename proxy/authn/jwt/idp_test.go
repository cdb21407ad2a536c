package jwt

import (
	"crypto/rand"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
)

// orders has the provider issue an access token signed with alg.
func orders(t *testing.T, p *oidctest.Provider, alg string) string {
	t.Helper()
	return p.Token(t, "https://api.example/"+alg, "orders.read")
}

// boundOrders has the provider issue an access token that is bound to the key of holder.
func boundOrders(t *testing.T, p *oidctest.Provider, holder *josetest.Signer) string {
	t.Helper()
	proof := holder.Sign(t, map[string]any{"typ": "dpop+jwt", "alg": holder.Algorithm, "jwk": holder.Public()},
		map[string]any{"jti": rand.Text(), "htm": "POST", "htu": p.Issuer + "/token", "iat": time.Now().Unix()})
	return p.BoundToken(t, "https://api.example/ES256", "orders.read", proof)
}

// TestCertifiedProviderBinds: tokens that a provider binds to a key are good with a
// proof by it, and with nothing else.
func TestCertifiedProviderBinds(t *testing.T) {
	p := oidctest.StartMachines(t)
	c := Default()
	c.Issuer, c.Audiences, c.DPoP.Required = p.Issuer, []string{"https://api.example/ES256"}, true
	a := start(t, c)
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	thief := josetest.New(t, "", "ES256")
	for _, alg := range []string{"ES256", "EdDSA", "PS256"} {
		holder := josetest.New(t, "", alg)
		token := boundOrders(t, p, holder)
		for name, tt := range map[string]struct {
			scheme string
			by     *josetest.Signer
			ok     bool
		}{
			"with a proof":           {"DPoP", holder, true},
			"with another's proof":   {"DPoP", thief, false},
			"as a bearer token":      {"Bearer", holder, false},
			"with a proof once more": {"DPoP", holder, true},
		} {
			r := proven(token, prove(t, tt.by, token, nil, map[string]any{"iat": now.Unix()}))
			r.Authorization, r.Now = tt.scheme+" "+token, now
			if _, err := a.Authenticate(t.Context(), r); (err == nil) != tt.ok || err != nil && !errors.Is(err, authn.ErrInvalid) {
				t.Errorf("%s %s: %v", alg, name, err)
			}
		}
	}
	if _, err := presentAt(t, a, orders(t, p, "ES256"), now); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("a token that is not bound: %v, want ErrInvalid", err)
	}
}

// rotate puts the named keys in force; the first signs.
func rotate(t *testing.T, p *oidctest.Provider, names string) {
	t.Helper()
	p.Post(t, "/test/keys?names="+names, nil)
}

// TestCertifiedProvider: discovery, every default algorithm, at+jwt, rotation.
func TestCertifiedProvider(t *testing.T) {
	p := oidctest.StartMachines(t)
	c := Default()
	c.Issuer, c.RefreshInterval, c.TokenTypes = p.Issuer, time.Second, []string{"at+jwt"}
	for _, alg := range c.Algorithms {
		c.Audiences = append(c.Audiences, "https://api.example/"+alg)
	}
	a := start(t, c)
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, alg := range c.Algorithms {
		id, err := presentAt(t, a, orders(t, p, alg), now)
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		if id.Subject != "tester" || !slices.Equal(id.Scopes, []string{"orders.read"}) ||
			!slices.Equal(id.Audiences, []string{"https://api.example/" + alg}) || id.TokenHeader["typ"] != "at+jwt" {
			t.Errorf("%s: identity is %+v", alg, id)
		}
	}
	if _, err := presentAt(t, a, orders(t, p, "ES256"), now.Add(10*time.Minute)); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("ten minutes later: got %v, want ErrInvalid", err)
	}

	old := orders(t, p, "ES256")
	if _, err := presentAt(t, a, old, now); err != nil {
		t.Fatal(err)
	}
	rotate(t, p, "second,first")
	fresh := orders(t, p, "ES256")
	begin := time.Now()
	if _, err := presentAt(t, a, fresh, now); err != nil || time.Since(begin) > time.Second {
		t.Errorf("after the rotation: %v after %s", err, time.Since(begin))
	}
	if _, err := presentAt(t, a, old, now); err != nil {
		t.Errorf("the old key is still published: %v", err)
	}
	rotate(t, p, "second")
	if !eventually(t, 4*time.Second, func() bool { _, err := presentAt(t, a, old, now); return errors.Is(err, authn.ErrInvalid) }) {
		t.Error("a token of the removed key is still accepted")
	}
	if _, err := presentAt(t, a, fresh, now); err != nil {
		t.Errorf("a token of the key that stays: %v", err)
	}
}
