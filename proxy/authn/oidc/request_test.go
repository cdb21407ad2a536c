package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
)

// TestRequestObject: what is signed, and what the browser carries beside it.
func TestRequestObject(t *testing.T) {
	key, file := clientKey(t)
	parameters := map[string]string{
		"audience": "orders", "claims": `{"id_token":{"acr":{"essential":true,"values":["one",2]}}}`, "authorization_details": `[{"type":"x"}]`,
	}
	for _, pushed := range []bool{false, true} {
		metadata := map[string]any{"require_signed_request_object": true}
		if pushed {
			metadata[pushEndpoint] = "/par"
		}
		s := offering(t, metadata, func(c *Config) {
			c.RequestObject, c.RequestObjectKeyFile, c.RequestObjectKeyID, c.AuthorizationParameters = true, file, "web-1", parameters
		})
		b := s.browser()
		age := 300
		answer := s.a.begin(t.Context(), b.request("GET", "/x"), demand{ACR: "two", MaxAge: &age}, "/x")
		u := sent(t, answer)
		carried := u.Query()
		q := s.idp.resolve(u.Query())
		header, claims := opened(t, &key.PublicKey, q.Get("request"))
		if header["typ"] != "oauth-authz-req+jwt" || header["alg"] != "ES256" || header["kid"] != "web-1" || len(header) != 3 {
			t.Errorf("header %v", header)
		}
		now := float64(s.now().Unix())
		for name, want := range map[string]any{
			"iss": "web", "aud": s.idp.URL, "iat": now, "nbf": now - 30, "exp": now + 120, "response_type": "code", "client_id": "web",
			"redirect_uri": "https://app.example/oauth2/callback", "scope": "openid email", "code_challenge_method": "S256", "acr_values": "two",
			"max_age": 300.0, "audience": "orders", "authorization_details": []any{map[string]any{"type": "x"}},
			"claims": map[string]any{"id_token": map[string]any{"acr": map[string]any{"essential": true, "values": []any{"one", 2.0}}}},
		} {
			if !reflect.DeepEqual(claims[name], want) {
				t.Errorf("%s is %v, want %v", name, claims[name], want)
			}
		}
		for _, name := range []string{"state", "nonce", "code_challenge", "jti"} {
			if text, _ := claims[name].(string); len(text) < 32 {
				t.Errorf("%s is %q", name, text)
			}
		}
		for _, name := range []string{"sub", "request", "request_uri", "client_secret", "client_assertion", "code_verifier"} {
			if claims[name] != nil {
				t.Errorf("%s is signed too", name)
			}
		}
		delete(q, "request")
		want := url.Values{"client_id": {"web"}, "response_type": {"code"}, "scope": {"openid email"}}
		if pushed {
			want = url.Values{"client_id": {"web"}}
			if len(carried) != 2 || carried.Get("request_uri") == "" {
				t.Errorf("the browser carries %v", carried)
			}
		}
		if !reflect.DeepEqual(q, want) {
			t.Errorf("beside the object stand %v, want %v", q, want)
		}
		_, again := opened(t, &key.PublicKey, s.idp.resolve(sent(t, s.a.begin(t.Context(), b.request("GET", "/x"), demand{}, "/x")).Query()).Get("request"))
		if again["jti"] == claims["jti"] || again["state"] == claims["state"] {
			t.Error("two requests are the same")
		}
	}
}

// TestRequestObjectKeys: the key of its own, that of private_key_jwt, and what the
// provider accepts of them.
func TestRequestObjectKeys(t *testing.T) {
	ec, ecFile := clientKey(t)
	_, otherFile := clientKey(t)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsFile := keyFile(t, rs)
	for _, tc := range []struct {
		name    string
		accepts any
		change  func(*Config)
		alg     string // empty: no login
	}{
		{"own key", nil, func(c *Config) { c.RequestObjectKeyFile = ecFile }, "ES256"},
		{"that of assertions", nil, func(c *Config) { c.ClientSecretFile, c.ClientKeyFile = "", ecFile }, "ES256"},
		{"own key before that of assertions", nil, func(c *Config) {
			c.ClientSecretFile, c.ClientKeyFile, c.RequestObjectKeyFile = "", otherFile, ecFile
		}, "ES256"},
		{"RSA", nil, func(c *Config) { c.RequestObjectKeyFile = rsFile }, "RS256"},
		{"RSA where all are accepted", []string{"none", "PS256", "RS256"}, func(c *Config) { c.RequestObjectKeyFile = rsFile }, "RS256"},
		{"RSA where PS256 is accepted", []string{"PS256", "ES256"}, func(c *Config) { c.RequestObjectKeyFile = rsFile }, "PS256"},
		{"RSA where it is not accepted", []string{"ES256"}, func(c *Config) { c.RequestObjectKeyFile = rsFile }, ""},
		{"EC where it is not accepted", []string{"none", "HS256"}, func(c *Config) { c.RequestObjectKeyFile = ecFile }, ""},
		{"list that is none", 7, func(c *Config) { c.RequestObjectKeyFile = ecFile }, "ES256"},
	} {
		s := offering(t, map[string]any{"request_object_signing_alg_values_supported": tc.accepts}, func(c *Config) {
			c.RequestObject = true
			tc.change(c)
		})
		b := s.browser()
		_, _, answer := b.get("/x")
		if tc.alg == "" {
			if answer.Status != 503 || len(b.jar) != 0 || !strings.Contains(answer.Why, "the provider accepts") {
				t.Errorf("%s: answered %d: %s", tc.name, answer.Status, answer.Why)
			}
			continue
		}
		object := sent(t, answer).Query().Get("request")
		if strings.HasPrefix(tc.alg, "ES") {
			opened(t, &ec.PublicKey, object)
			continue
		}
		input, sig := object[:strings.LastIndexByte(object, '.')], object[strings.LastIndexByte(object, '.')+1:]
		raw, err := base64.RawURLEncoding.DecodeString(sig)
		if err != nil {
			t.Fatal(err)
		}
		verify := func() error {
			return rsa.VerifyPKCS1v15(&rs.PublicKey, crypto.SHA256, digest(crypto.SHA256, []byte(input)), raw)
		}
		if tc.alg == "PS256" {
			verify = func() error {
				return rsa.VerifyPSS(&rs.PublicKey, crypto.SHA256, digest(crypto.SHA256, []byte(input)), raw, &rsa.PSSOptions{SaltLength: 32})
			}
		}
		head, _ := base64.RawURLEncoding.DecodeString(strings.SplitN(object, ".", 2)[0])
		var header map[string]string
		if err := json.Unmarshal(head, &header); err != nil || header["alg"] != tc.alg || verify() != nil {
			t.Errorf("%s: header %s, signature %v", tc.name, head, verify())
		}
	}
}

// TestRequestObjectIsRequired: a provider that would refuse the login is not asked.
func TestRequestObjectIsRequired(t *testing.T) {
	s := offering(t, map[string]any{"require_signed_request_object": true, pushEndpoint: "/par"}, nil)
	b := s.browser()
	_, _, answer := b.get("/x")
	if answer.Status != 503 || len(b.jar) != 0 || len(s.idp.pushed) != 0 || !strings.Contains(answer.Why, "set request_object") || !strings.Contains(string(answer.Body), "operator") {
		t.Errorf("answered %d: %s", answer.Status, answer.Why)
	}
}

// TestRequestObjectKeyIsReloaded: an exchanged key signs from then on, a broken file
// changes nothing.
func TestRequestObjectKeyIsReloaded(t *testing.T) {
	first, file := clientKey(t)
	second, next := clientKey(t)
	s := newSetup(t, func(c *Config) { c.RequestObject, c.RequestObjectKeyFile = true, file })
	signedBy := func(key *ecdsa.PublicKey) {
		t.Helper()
		opened(t, key, sent(t, s.a.begin(t.Context(), s.browser().request("GET", "/x"), demand{}, "/x")).Query().Get("request"))
	}
	signedBy(&first.PublicKey)
	if err := os.WriteFile(file, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.a.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "request object key of "+file) {
		t.Errorf("got %v", err)
	}
	signedBy(&first.PublicKey)
	data, err := os.ReadFile(next)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.a.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	signedBy(&second.PublicKey)
	if files := s.a.Files(); !strings.Contains(strings.Join(files, " "), file) {
		t.Errorf("watched are %v", files)
	}
}

// TestRequestObjectWithProvider: a certified provider that requires signed requests
// refuses plain parameters, changed ones and those of another key, and accepts ours,
// pushed or not.
func TestRequestObjectWithProvider(t *testing.T) {
	s := newCertifiedSite(t)
	key, file := clientKey(t)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	strange := keyFile(t, stranger)
	jwks := jwksOf(key, "web-1")
	issuer := oidctest.StartLogin(t, s.URL, map[string]any{
		"features": map[string]any{"requestObjects": map[string]any{"enabled": true, "requireSignedRequestObject": true}},
		"clients": []any{
			map[string]any{"jwks": jwks},
			map[string]any{"client_id": "with-key", "token_endpoint_auth_method": authKey, "jwks": jwks, "request_object_signing_alg": "ES256"},
		},
	}).Issuer
	own := func(c *Config) { c.RequestObject, c.RequestObjectKeyFile, c.RequestObjectKeyID = true, file, "web-1" }
	shared := func(c *Config) {
		c.ClientID, c.ClientSecretFile, c.ClientKeyFile, c.ClientKeyID, c.RequestObject = "with-key", "", file, "web-1", true
	}
	for name, change := range map[string]func(*Config){"a key of its own": own, "the key of private_key_jwt": shared} {
		for _, mode := range []string{pushOff, pushRequired} {
			s.use(issuer, func(c *Config) { change(c); c.PushedAuthorizationRequests = mode })
			at, first := s.logIn(s.visitor())
			if at.Status != 200 || at.Text != "hello alice" {
				t.Errorf("%s, push %s: %s answers %d: %s", name, mode, at.URL, at.Status, at.Text)
			}
			if q := first.Query(); q.Has("state") || q.Has("request") != (mode == pushOff) {
				t.Errorf("%s, push %s: the browser carries %s", name, mode, first)
			}
		}
	}

	a := s.use(issuer, func(c *Config) { own(c); c.PushedAuthorizationRequests = pushOff })
	m, err := a.provider.metadata(t.Context())
	if err != nil || !m.signRequired {
		t.Fatalf("the provider does not require it: %v", err)
	}
	plain := a.parameters(&flow{State: "s", Nonce: "n", Verifier: strings.Repeat("v", 43), Origin: s.URL})
	ours, err := a.signed(m, maps.Clone(plain), false)
	if err != nil {
		t.Fatal(err)
	}
	object := ours.Get("request")
	parts := strings.Split(object, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(payload), `"nonce":"n"`, `"nonce":"m"`, 1)
	if changed == string(payload) {
		t.Fatal("nothing was changed")
	}
	ask := func(q url.Values) *url.URL {
		return s.visitor().Get(m.authorization + "?" + q.Encode()).URL
	}
	for name, q := range map[string]url.Values{
		"plain":   plain,
		"changed": {"client_id": {"web"}, "request": {parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(changed)) + "." + parts[2]}, "redirect_uri": plain["redirect_uri"]},
	} {
		if at := ask(q); at.Query().Get("error") == "" {
			t.Errorf("%s: the provider takes it, at %s", name, at)
		}
	}
	if at := ask(ours); !strings.HasPrefix(at.Path, "/interaction/") {
		t.Errorf("ours leads to %s", at)
	}
	s.use(issuer, func(c *Config) { own(c); c.RequestObjectKeyFile = strange })
	if at, _ := s.logIn(s.visitor()); at.Status != 503 || !strings.Contains(at.Text, "operator") {
		t.Errorf("another key, pushed: %s answers %d: %s", at.URL, at.Status, at.Text)
	}
}
