package jwt

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// TestVerifier: what is common to every use of an issuer's JWTs, and no more.
func TestVerifier(t *testing.T) {
	key, other := josetest.New(t, "k1", "ES256"), josetest.New(t, "k1", "ES256")
	is := josetest.NewIssuer(t, key)
	v, err := NewVerifier("corp", Source{Issuer: is.URL, JWKSURL: is.URL + "/keys", Algorithms: []string{"ES256"}}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer finish(t, v)
	header := key.Header()
	header["typ"] = "application/Token-Introspection+JWT"
	good := key.Sign(t, header, map[string]any{"iss": is.URL, "token_introspection": map[string]any{"active": true}})
	if _, err := v.Verify(t.Context(), good); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("without keys: got %v, want ErrUnavailable", err)
	}
	if err := v.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	token, err := v.Verify(t.Context(), good)
	if err != nil || token.Type != "token-introspection+jwt" || token.Header["kid"] != "k1" || token.Claims["iss"] != is.URL {
		t.Errorf("got %+v, %v", token, err)
	}
	for name, text := range map[string]string{
		"another issuer":    key.Sign(t, header, map[string]any{"iss": "https://other.example"}),
		"no issuer":         key.Sign(t, header, map[string]any{}),
		"forged":            other.Sign(t, header, map[string]any{"iss": is.URL}),
		"not a JWT":         "opaque",
		"alg none":          josetest.Base64([]byte(`{"alg":"none"}`)) + "." + josetest.Base64([]byte(`{"iss":"`+is.URL+`"}`)) + ".",
		"alg not accepted":  josetest.New(t, "k1", "EdDSA").Sign(t, map[string]any{"alg": "EdDSA", "kid": "k1"}, map[string]any{"iss": is.URL}),
		"duplicate members": key.SignText(t, josetest.JSON(t, header), `{"iss":"`+is.URL+`","iss":"`+is.URL+`"}`),
	} {
		if _, err := v.Verify(t.Context(), text); !errors.Is(err, authn.ErrInvalid) || errors.Is(err, authn.ErrNotMine) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	is.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	if _, err := v.Verify(t.Context(), good); err != nil {
		t.Errorf("while the issuer is down: %v", err)
	}
}

func TestVerifierRefusesSources(t *testing.T) {
	for name, s := range map[string]Source{
		"no issuer":       {JWKSURL: "https://idp.example/keys"},
		"http":            {Issuer: "https://idp.example", JWKSURL: "http://idp.example/keys"},
		"shared secret":   {Issuer: "https://idp.example", Algorithms: []string{"HS256"}},
		"two places":      {Issuer: "https://idp.example", JWKSURL: "https://idp.example/keys", JWKSFile: "keys.json"},
		"file is missing": {Issuer: "https://idp.example", JWKSFile: t.TempDir() + "/missing"},
	} {
		if _, err := NewVerifier("corp", s, Deps{}); err == nil {
			t.Errorf("%s: a verifier was made", name)
		}
	}
}

func TestCompact(t *testing.T) {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for text, want := range map[string]bool{
		part(`{"alg":"ES256"}`) + ".e30.AA":          true,
		part("{\n  \"alg\": \"ES256\"}") + ".e30.AA": true,
		part(" \r\n\t {\"alg\":\"none\"}") + ".e30.": true,
		part(`{"alg":"ES256"}`) + ".e30":             false,
		part(`{"alg":"dir"}`) + "..AA.AA.AA":         false, // encrypted: nobody here can read it
		"mF_9.B5f-4.1JqM":                            false,
		"c2VjcmV0":                                   false,
		"":                                           false,
		"..":                                         false,
		"eyJ":                                        false,
		part(`["alg"]`) + ".e30.AA":                  false,
		part(strings.Repeat(" ", 60)+`{"alg":1}`) + ".e30.AA": false, // nobody writes that, and it stays a bad token either way
	} {
		if got := jose.Compact(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	token := part(`{"alg":"ES256"}`) + ".e30.AA"
	if n := testing.AllocsPerRun(100, func() { jose.Compact(token) }); n != 0 {
		t.Errorf("Compact allocates %v times", n)
	}
}
