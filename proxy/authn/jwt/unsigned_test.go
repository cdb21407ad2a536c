package jwt

import (
	"errors"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// unsignedToken is a token that anybody can write.
func unsignedToken(t *testing.T, alg string, claims any) string {
	t.Helper()
	return josetest.Base64([]byte(josetest.JSON(t, map[string]any{"alg": alg, "typ": "JWT"}))) + "." + josetest.Base64([]byte(josetest.JSON(t, claims))) + "."
}

// TestUnsigned: with the switch a token needs no signature, and everything else as
// before; without it, nothing changes.
func TestUnsigned(t *testing.T) {
	k := josetest.New(t, "k1", "RS256")
	good := claims(testIssuer, nil)
	without := func(name string) map[string]any {
		c := claims(testIssuer, nil)
		delete(c, name)
		return c
	}
	open := newFromFile(t, func(c *Config) { c.InsecureAllowUnsigned = true }, k)
	closed := newFromFile(t, nil, k)
	for name, c := range map[string]struct {
		a     *Authenticator
		token string
		want  error // nil: accepted
	}{
		"unsigned":                {open, unsignedToken(t, "none", good), nil},
		"signed":                  {open, k.Sign(t, k.Header(), good), nil},
		"without the switch":      {closed, unsignedToken(t, "none", good), authn.ErrInvalid},
		"None":                    {open, unsignedToken(t, "None", good), authn.ErrInvalid},
		"empty alg":               {open, unsignedToken(t, "", good), authn.ErrInvalid},
		"RS256 without signature": {open, unsignedToken(t, "RS256", good), authn.ErrInvalid},
		"none with a signature":   {open, unsignedToken(t, "none", good) + "c2ln", authn.ErrInvalid},
		"no exp":                  {open, unsignedToken(t, "none", without("exp")), authn.ErrInvalid},
		"no aud":                  {open, unsignedToken(t, "none", without("aud")), authn.ErrInvalid},
		"no iss":                  {open, unsignedToken(t, "none", without("iss")), authn.ErrInvalid},
		"another issuer":          {open, unsignedToken(t, "none", claims("https://other.example", nil)), authn.ErrForeign},
		"another audience":        {open, unsignedToken(t, "none", claims(testIssuer, map[string]any{"aud": "other"})), authn.ErrInvalid},
		"expired":                 {open, unsignedToken(t, "none", claims(testIssuer, map[string]any{"exp": 1})), authn.ErrExpired},
		"bound to a certificate":  {open, unsignedToken(t, "none", claims(testIssuer, map[string]any{"cnf": map[string]any{"x5t#S256": "x"}})), authn.ErrInvalid},
	} {
		for _, again := range []string{"", ", again"} {
			id, err := present(t, c.a, c.token)
			if !errors.Is(err, c.want) || (c.want == nil) != (id != nil && id.Authenticated) {
				t.Errorf("%s%s: got %v, %v; want %v", name, again, id, err, c.want)
			}
		}
	}
}

// TestUnsignedEnds: what is remembered of an unsigned token ends with its lifetime.
func TestUnsignedEnds(t *testing.T) {
	a := newFromFile(t, func(c *Config) { c.InsecureAllowUnsigned = true }, josetest.New(t, "k1", "RS256"))
	token := unsignedToken(t, "none", claims(testIssuer, nil))
	if _, err := presentAt(t, a, token, testNow); err != nil {
		t.Fatal(err)
	}
	if _, err := presentAt(t, a, token, testNow.Add(1000*time.Hour)); !errors.Is(err, authn.ErrExpired) {
		t.Errorf("after its lifetime: %v, want %v", err, authn.ErrExpired)
	}
}

// TestUnsignedIsSaid: the start warns.
func TestUnsignedIsSaid(t *testing.T) {
	if got := (&Config{}).Insecure(); len(got) != 0 {
		t.Errorf("a safe configuration warns: %v", got)
	}
	got := (&Config{InsecureAllowUnsigned: true, InsecureHTTP: true}).Insecure()
	if got["insecure_allow_unsigned"] == "" || got["insecure_http"] == "" {
		t.Errorf("not all is said: %v", got)
	}
}
