package oidc

import (
	"crypto/ecdsa"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
)

// site is an authenticator that browsers and a provider reach over HTTPS.
type site struct {
	*httptest.Server
	t    *testing.T
	a    atomic.Pointer[Authenticator]
	seen atomic.Pointer[authn.Request] // the last that was let in
}

func newCertifiedSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

// use has the site log people in as c says.
func (s *site) use(issuer string, change func(*Config)) *Authenticator {
	s.t.Helper()
	c := Default()
	c.Issuer, c.ClientID, c.ClientSecretFile = issuer, "web", filepath.Join(s.t.TempDir(), "secret")
	if err := os.WriteFile(c.ClientSecretFile, []byte("a-secret-for-the-test-only\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if change != nil {
		change(&c)
	}
	a, err := New("login", c, Deps{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(a.provider.client.Close)
	if err := a.Prime(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	s.a.Store(a)
	return a
}

// serve is the least of a front: the endpoints, and a page for who is logged in.
func (s *site) serve(w http.ResponseWriter, req *http.Request) {
	a := s.a.Load()
	body, _ := io.ReadAll(io.LimitReader(req.Body, maxForm))
	r := &authn.Request{
		Now: time.Now(), ID: "r1", Method: req.Method, Scheme: "https", Host: req.Host, Path: req.URL.Path, RawQuery: req.URL.RawQuery,
		Body: form{string(body)},
	}
	for name, values := range req.Header {
		r.Headers = append(r.Headers, authz.Header{Name: strings.ToLower(name), Value: strings.Join(values, "; ")})
	}
	answer := s.judge(a, req, r)
	for _, h := range append(r.Response, answer.Headers...) {
		w.Header().Add(h.Name, h.Value)
	}
	w.WriteHeader(answer.Status)
	_, _ = w.Write(answer.Body)
}

func (s *site) judge(a *Authenticator, req *http.Request, r *authn.Request) *authn.Answer {
	for _, e := range a.Endpoints() {
		if e.Path == r.Path {
			return e.Serve(req.Context(), r)
		}
	}
	chain, err := authn.New([]authn.Named{{Name: a.name, Authenticator: a}}, nil)
	if err != nil {
		return &authn.Answer{Status: 500, Body: []byte(err.Error())}
	}
	id, err := chain.Authenticate(req.Context(), r)
	var answer *authn.Answer
	switch {
	case errors.As(err, &answer):
		return answer
	case err != nil:
		return &authn.Answer{Status: 401, Body: []byte(err.Error())}
	}
	s.seen.Store(r)
	return &authn.Answer{Status: 200, Body: []byte("hello " + id.Subject)}
}

func (s *site) visitor() *oidctest.Browser { return oidctest.NewBrowser(s.t, s.Client().Transport) }

// logIn has a browser go through the provider's pages until the site answers. It returns
// that and the address at which the browser came to the provider.
func (s *site) logIn(v *oidctest.Browser) (oidctest.Page, *url.URL) {
	s.t.Helper()
	at := v.Get(s.URL + "/x")
	if len(at.Way) == 0 {
		return at, nil
	}
	return v.LogIn(at, s.Listener.Addr().String()), at.Way[0]
}

// jwksOf is the key set by which a provider knows a client.
func jwksOf(key *ecdsa.PrivateKey, kid string) map[string]any {
	s := josetest.Signer{KeyID: kid, Algorithm: "ES256", Private: key}
	return map[string]any{"keys": []any{s.JWK()}}
}

// TestPushedWithProvider: a certified provider that requires pushed requests has people
// log in, however the gateway says who it is.
func TestPushedWithProvider(t *testing.T) {
	s := newCertifiedSite(t)
	key, file := clientKey(t)
	issuer := oidctest.StartLogin(t, s.URL, map[string]any{
		"features": map[string]any{"pushedAuthorizationRequests": map[string]any{"enabled": true, "requirePushedAuthorizationRequests": true}},
		"clients": []any{
			map[string]any{"client_id": authBasic, "token_endpoint_auth_method": authBasic},
			map[string]any{"client_id": authPost, "token_endpoint_auth_method": authPost},
			map[string]any{"client_id": authKey, "token_endpoint_auth_method": authKey, "jwks": jwksOf(key, "web-1")},
			map[string]any{"client_id": authNone, "token_endpoint_auth_method": authNone},
		},
	}).Issuer
	as := func(method string) func(*Config) {
		return func(c *Config) {
			c.ClientID, c.ClientAuth = method, method
			if method == authKey || method == authNone {
				c.ClientSecretFile = ""
			}
			if method == authKey {
				c.ClientKeyFile, c.ClientKeyID = file, "web-1"
			}
		}
	}
	for _, method := range []string{authBasic, authPost, authKey, authNone} {
		s.use(issuer, as(method))
		at, first := s.logIn(s.visitor())
		if at.Status != 200 || at.Text != "hello alice" {
			t.Errorf("%s: %s answers %d: %s", method, at.URL, at.Status, at.Text)
		}
		if q := first.Query(); len(q) != 2 || !strings.HasPrefix(q.Get("request_uri"), "urn:ietf:params:oauth:request_uri:") {
			t.Errorf("%s: the browser carries %s", method, first)
		}
	}

	a := s.use(issuer, as(authBasic))
	m, err := a.provider.metadata(t.Context())
	if err != nil || !m.pushRequired {
		t.Fatalf("the provider does not require it: %v", err)
	}
	plain := a.parameters(&flow{State: "s", Nonce: "n", Verifier: strings.Repeat("v", 43), Origin: s.URL})
	if at := s.visitor().Get(m.authorization + "?" + plain.Encode()); at.URL.Query().Get("error_description") != "Pushed Authorization Request must be used" {
		t.Errorf("plain parameters: %s answers %d: %s", at.URL, at.Status, at.Text)
	}

	wrong := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(wrong, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.use(issuer, func(c *Config) { as(authBasic)(c); c.ClientSecretFile = wrong })
	if at, _ := s.logIn(s.visitor()); at.Status != 503 || !strings.Contains(at.Text, "operator") {
		t.Errorf("with a wrong secret %s answers %d: %s", at.URL, at.Status, at.Text)
	}
}
