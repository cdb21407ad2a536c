package jwt

import (
	"errors"
	"maps"
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

// TestUnsignedWithout: an unsigned token may lack the claims that are listed, what it
// has must hold, and a signed one lacks nothing.
func TestUnsignedWithout(t *testing.T) {
	k := josetest.New(t, "k1", "RS256")
	with := func(change map[string]any) map[string]any {
		c := map[string]any{"sub": "1234567890", "iat": 1516239022}
		maps.Copy(c, change)
		return c
	}
	loose := newFromFile(t, func(c *Config) {
		c.InsecureAllowUnsigned, c.InsecureOptionalClaims = true, []string{"iss", "aud", "exp"}
	}, k)
	noAudience := newFromFile(t, func(c *Config) {
		c.InsecureAllowUnsigned, c.InsecureOptionalClaims = true, []string{"aud"}
	}, k)
	signed := claims(testIssuer, nil)
	delete(signed, "exp")
	withoutIssuer := claims(testIssuer, nil)
	delete(withoutIssuer, "iss")
	withoutAudience := claims(testIssuer, nil)
	delete(withoutAudience, "aud")
	for name, c := range map[string]struct {
		a     *Authenticator
		token string
		want  error // nil: accepted
	}{
		"none of them":            {loose, unsignedToken(t, "none", with(nil)), nil},
		"another issuer":          {loose, unsignedToken(t, "none", with(map[string]any{"iss": "https://other.example"})), authn.ErrForeign},
		"an issuer of no type":    {loose, unsignedToken(t, "none", with(map[string]any{"iss": 1})), authn.ErrInvalid},
		"another audience":        {loose, unsignedToken(t, "none", with(map[string]any{"aud": "other"})), authn.ErrInvalid},
		"no audience at all":      {loose, unsignedToken(t, "none", with(map[string]any{"aud": []string{}})), authn.ErrInvalid},
		"audience null":           {loose, unsignedToken(t, "none", with(map[string]any{"aud": nil})), authn.ErrInvalid},
		"expired":                 {loose, unsignedToken(t, "none", with(map[string]any{"exp": 1516239023})), authn.ErrExpired},
		"exp 0":                   {loose, unsignedToken(t, "none", with(map[string]any{"exp": 0})), authn.ErrInvalid},
		"not yet":                 {loose, unsignedToken(t, "none", with(map[string]any{"nbf": testNow.Add(time.Hour).Unix()})), authn.ErrNotYetValid},
		"signed, no exp":          {loose, k.Sign(t, k.Header(), signed), authn.ErrInvalid},
		"signed, no iss":          {loose, k.Sign(t, k.Header(), withoutIssuer), authn.ErrInvalid},
		"signed, no aud":          {loose, k.Sign(t, k.Header(), withoutAudience), authn.ErrInvalid},
		"what is not listed":      {noAudience, unsignedToken(t, "none", with(nil)), authn.ErrInvalid},
		"listed, and the others":  {noAudience, unsignedToken(t, "none", withoutAudience), nil},
		"RS256 and not signed":    {loose, unsignedToken(t, "RS256", with(nil)), authn.ErrInvalid},
		"a signature beside none": {loose, unsignedToken(t, "none", with(nil)) + "c2ln", authn.ErrInvalid},
	} {
		for _, again := range []string{"", ", again"} {
			id, err := present(t, c.a, c.token)
			if !errors.Is(err, c.want) || (c.want == nil) != (id != nil && id.Authenticated) {
				t.Errorf("%s%s: got %v, %v; want %v", name, again, id, err, c.want)
			}
		}
	}
	if err := (&Config{Issuer: testIssuer, Audiences: []string{"a"}, InsecureOptionalClaims: []string{"aud"}}).Validate(); err == nil {
		t.Error("claims of signed tokens can be made optional")
	}
	if err := (&Config{Issuer: testIssuer, Audiences: []string{"a"}, InsecureAllowUnsigned: true, InsecureOptionalClaims: []string{"sub"}}).Validate(); err == nil {
		t.Error("a claim that is never required can be made optional")
	}
}

// TestUnsignedIsSaid: the start warns.
func TestUnsignedIsSaid(t *testing.T) {
	if got := (&Config{}).Insecure(); len(got) != 0 {
		t.Errorf("a safe configuration warns: %v", got)
	}
	got := (&Config{InsecureAllowUnsigned: true, InsecureOptionalClaims: []string{"exp"}, InsecureHTTP: true}).Insecure()
	if got["insecure_allow_unsigned"] == "" || got["insecure_optional_claims"] == "" || got["insecure_http"] == "" {
		t.Errorf("not all is said: %v", got)
	}
}
