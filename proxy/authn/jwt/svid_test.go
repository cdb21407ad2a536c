package jwt

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// bundle returns a SPIFFE trust bundle: these keys for jwt-svid, and one for x509-svid
// that says nothing about tokens.
func bundle(t testing.TB, signers ...*josetest.Signer) string {
	t.Helper()
	keys := []any{map[string]any{"kty": "EC", "crv": "P-256", "use": "x509-svid", "x": "AA", "y": "AA", "x5c": []string{"AA=="}}}
	for _, s := range signers {
		k := s.JWK()
		k["use"] = "jwt-svid"
		delete(k, "alg") // as SPIRE writes it
		keys = append(keys, k)
	}
	return josetest.JSON(t, map[string]any{"keys": keys, "spiffe_sequence": 1, "spiffe_refresh_hint": 300})
}

const caller = "spiffe://example.org/ns/shop/sa/cart"

// svid returns the claims of an SVID, changed by change.
func svid(change map[string]any) map[string]any {
	c := claims("", map[string]any{"iss": nil, "sub": caller, "scope": nil, "iat": nil})
	for k, v := range change {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	return c
}

func svidHeader(s *josetest.Signer) map[string]any {
	return map[string]any{"alg": s.Algorithm, "kid": s.KeyID, "typ": "JWT"}
}

func newSVID(t testing.TB, change func(*Config), signers ...*josetest.Signer) (*Authenticator, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bundle.json")
	if err := os.WriteFile(file, []byte(bundle(t, signers...)), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Default()
	c.TrustDomain, c.Audiences, c.JWKSFile = "example.org", []string{"orders-api"}, file
	if change != nil {
		change(&c)
	}
	a, err := New("mesh", c, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return a, file
}

// TestSVID is the table of what a JWT-SVID must be like.
func TestSVID(t *testing.T) {
	es, rs, ps := josetest.New(t, "es", "ES256"), josetest.New(t, "rs", "RS256"), josetest.New(t, "ps", "PS512")
	ed, other := josetest.New(t, "ed", "EdDSA"), josetest.New(t, "es", "ES256")
	a, _ := newSVID(t, nil, es, rs, ps, ed)
	with := func(change map[string]any) string { return es.Sign(t, svidHeader(es), svid(change)) }
	typ := func(v any) string {
		h := svidHeader(es)
		if h["typ"] = v; v == nil {
			delete(h, "typ")
		}
		return es.Sign(t, h, svid(nil))
	}
	for name, tt := range map[string]struct {
		token string
		want  error // nil: accepted
	}{
		"plain":                      {with(nil), nil},
		"RS256":                      {rs.Sign(t, svidHeader(rs), svid(nil)), nil},
		"PS512":                      {ps.Sign(t, svidHeader(ps), svid(nil)), nil},
		"with an iss":                {with(map[string]any{"iss": "https://anybody.example"}), nil},
		"JOSE":                       {typ("JOSE"), nil},
		"no typ":                     {typ(nil), nil},
		"at+jwt":                     {typ("at+jwt"), authn.ErrInvalid},
		"dpop+jwt":                   {typ("dpop+jwt"), authn.ErrInvalid},
		"EdDSA":                      {ed.Sign(t, svidHeader(ed), svid(nil)), authn.ErrInvalid},
		"another's key":              {other.Sign(t, svidHeader(other), svid(nil)), authn.ErrInvalid},
		"no aud":                     {with(map[string]any{"aud": nil}), authn.ErrAudience},
		"another aud":                {with(map[string]any{"aud": []string{"billing"}}), authn.ErrAudience},
		"no exp":                     {with(map[string]any{"exp": nil}), authn.ErrInvalid},
		"expired":                    {with(map[string]any{"exp": testNow.Add(-2 * maxLeeway).Unix()}), authn.ErrExpired},
		"no sub":                     {with(map[string]any{"sub": nil}), authn.ErrForeign},
		"another trust domain":       {with(map[string]any{"sub": "spiffe://example.com/ns/shop/sa/cart"}), authn.ErrForeign},
		"longer trust domain":        {with(map[string]any{"sub": "spiffe://example.org.evil/sa"}), authn.ErrForeign},
		"trust domain and a port":    {with(map[string]any{"sub": "spiffe://example.org:443/sa"}), authn.ErrForeign},
		"trust domain as user":       {with(map[string]any{"sub": "spiffe://example.org@evil.example/sa"}), authn.ErrForeign},
		"trust domain in capitals":   {with(map[string]any{"sub": "spiffe://EXAMPLE.org/sa"}), authn.ErrForeign},
		"scheme in capitals":         {with(map[string]any{"sub": "SPIFFE://example.org/sa"}), authn.ErrForeign},
		"no SPIFFE ID":               {with(map[string]any{"sub": "alice"}), authn.ErrForeign},
		"dot segment":                {with(map[string]any{"sub": "spiffe://example.org/a/../b"}), authn.ErrInvalid},
		"empty segment":              {with(map[string]any{"sub": "spiffe://example.org//a"}), authn.ErrInvalid},
		"trailing slash":             {with(map[string]any{"sub": "spiffe://example.org/a/"}), authn.ErrInvalid},
		"escape":                     {with(map[string]any{"sub": "spiffe://example.org/%61"}), authn.ErrInvalid},
		"query":                      {with(map[string]any{"sub": "spiffe://example.org/a?b"}), authn.ErrInvalid},
		"fragment":                   {with(map[string]any{"sub": "spiffe://example.org/a#b"}), authn.ErrInvalid},
		"key that comes with it":     {es.Sign(t, map[string]any{"alg": "ES256", "typ": "JWT", "jwk": es.JWK()}, svid(nil)), authn.ErrInvalid},
		"no signature":               {strings.TrimRight(with(nil), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"), authn.ErrInvalid},
		"no kid, of a key that fits": {es.Sign(t, map[string]any{"alg": "ES256"}, svid(nil)), nil},
	} {
		id, err := present(t, a, tt.token)
		if !errors.Is(err, tt.want) || errors.Is(err, authn.ErrForeign) != errors.Is(tt.want, authn.ErrForeign) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if tt.want == nil && err == nil && (id.Subject != caller || id.Issuer != "spiffe://example.org" || id.Kind != "jwt") {
			t.Errorf("%s: subject %q issuer %q kind %q", name, id.Subject, id.Issuer, id.Kind)
		}
	}
}

// TestSVIDIssuer: where an issuer is set, it must be the token's.
func TestSVIDIssuer(t *testing.T) {
	es := josetest.New(t, "es", "ES256")
	a, _ := newSVID(t, func(c *Config) { c.Issuer = testIssuer }, es)
	for iss, want := range map[any]error{testIssuer: nil, "https://other.example": authn.ErrForeign, nil: authn.ErrInvalid} {
		if _, err := present(t, a, es.Sign(t, svidHeader(es), svid(map[string]any{"iss": iss}))); !errors.Is(err, want) {
			t.Errorf("iss %v: %v, want %v", iss, err, want)
		}
	}
}

// TestSVIDKeys: of a bundle only the keys for jwt-svid count, and a key set that is
// none has none.
func TestSVIDKeys(t *testing.T) {
	es := josetest.New(t, "es", "ES256")
	token := es.Sign(t, svidHeader(es), svid(nil))
	for name, change := range map[string]func(map[string]any){
		"for jwt-svid":  func(map[string]any) {},
		"for x509-svid": func(k map[string]any) { k["use"] = "x509-svid" },
		"for sig":       func(k map[string]any) { k["use"] = "sig" },
		"without use":   func(k map[string]any) { delete(k, "use") },
		"without kid":   func(k map[string]any) { delete(k, "kid") },
	} {
		a, file := newSVID(t, nil, es)
		k := es.JWK()
		k["use"] = "jwt-svid"
		change(k)
		if err := os.WriteFile(file, []byte(josetest.JSON(t, map[string]any{"keys": []any{k}})), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := a.Reload(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := present(t, a, token); (err == nil) != (name == "for jwt-svid") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSVIDRotation: a bundle that changes counts at once, for tokens that were verified
// before too; one that cannot be read leaves the last.
func TestSVIDRotation(t *testing.T) {
	first, second := josetest.New(t, "first", "ES256"), josetest.New(t, "second", "ES384")
	a, file := newSVID(t, nil, first)
	old, fresh := first.Sign(t, svidHeader(first), svid(nil)), second.Sign(t, svidHeader(second), svid(nil))
	put := func(text string, ok bool) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := a.Reload(t.Context()); (err == nil) != ok {
			t.Errorf("reload: %v", err)
		}
	}
	see := func(what string, oldIn, freshIn bool) {
		t.Helper()
		_, errOld := present(t, a, old)
		_, errFresh := present(t, a, fresh)
		if (errOld == nil) != oldIn || (errFresh == nil) != freshIn {
			t.Errorf("%s: old %v, new %v", what, errOld, errFresh)
		}
	}
	see("first", true, false)
	put(bundle(t, first, second), true)
	see("both", true, true)
	put(bundle(t, second), true)
	see("second", false, true)
	put("{", false)
	see("a broken file", false, true)
	put(`{"keys": {}}`, false)
	see("no bundle", false, true)
	put(`{"keys": [], "spiffe_sequence": 9}`, true)
	see("all keys taken back", false, false)
}

// TestSVIDBundleEndpoint fetches the bundle.
func TestSVIDBundleEndpoint(t *testing.T) {
	es := josetest.New(t, "es", "ES256")
	is := josetest.NewIssuer(t)
	is.Answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, bundle(t, es)) })
	c := Default()
	c.TrustDomain, c.Audiences, c.JWKSURL = "example.org", []string{"orders-api"}, is.URL+"/keys"
	a, err := New("mesh", c, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := present(t, a, es.Sign(t, svidHeader(es), svid(nil))); err != nil {
		t.Error(err)
	}
}

func TestSVIDConfig(t *testing.T) {
	good := Default()
	good.TrustDomain, good.Audiences, good.JWKSFile = "example.org", []string{"orders-api"}, "bundle.json"
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		key    string
		change func(*Config)
	}{
		{"trust_domain", func(c *Config) { c.TrustDomain = "spiffe://example.org" }},
		{"trust_domain", func(c *Config) { c.TrustDomain = "Example.org" }},
		{"trust_domain", func(c *Config) { c.JWKSFile = "" }},
		{"algorithms", func(c *Config) { c.Algorithms = []string{"EdDSA"} }},
		{"algorithms", func(c *Config) { c.Algorithms = []string{"ES256", "HS256"} }},
		{"token_types", func(c *Config) { c.TokenTypes = []string{"at+jwt"} }},
		{"audiences", func(c *Config) { c.Audiences = nil }},
		{"insecure_allow_unsigned", func(c *Config) { c.InsecureAllowUnsigned = true }},
	} {
		c := good
		tt.change(&c)
		if problems := setting.Problems(c.Validate()); len(problems) != 1 || problems[0].Key != tt.key {
			t.Errorf("%s: problems are %v", tt.key, problems)
		}
	}
}
