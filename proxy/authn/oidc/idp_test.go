package oidc

import (
	"bufio"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// startCertified runs a certified OpenID provider, a process of its own that knows a
// gateway at origin; see testdata/idp/login.mjs for the options.
func startCertified(t *testing.T, origin string, options map[string]any) (issuer string) {
	t.Helper()
	dir := filepath.Join("..", "jwt", "testdata", "idp")
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		t.Skip("the OpenID provider is not installed; do it with: npm ci --prefix proxy/authn/jwt/testdata/idp")
	}
	text, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nodeOf(t, dir), "login.mjs", origin, string(text))
	// The gateway's certificate is made for the test.
	cmd.Dir, cmd.Stderr, cmd.Env = dir, os.Stderr, append(os.Environ(), "NODE_TLS_REJECT_UNAUTHORIZED=0", "NODE_NO_WARNINGS=1")
	stdin, err := cmd.StdinPipe() // closing it ends the process, also when this one dies
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
		kill.Stop()
	})
	var said struct{ Issuer string }
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err = errors.Join(err, json.Unmarshal(line, &said)); err != nil {
		t.Fatalf("the provider said %q: %v", line, err)
	}
	return said.Issuer
}

// nodeOf returns the Node.js that the provider is installed with, the system's where
// there is none for the platform.
func nodeOf(t *testing.T, dir string) string {
	t.Helper()
	if own, err := filepath.Glob(filepath.Join(dir, "node_modules", "node-*", "bin", "node")); err == nil && len(own) == 1 {
		path, err := filepath.Abs(own[0])
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	path, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed, which the OpenID provider of this test runs on")
	}
	return path
}

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

// visitor is somebody at a browser.
type visitor struct {
	t      *testing.T
	client *http.Client
}

func (s *site) visitor() *visitor {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	c := s.Client()
	return &visitor{s.t, &http.Client{Jar: jar, Transport: c.Transport, Timeout: 20 * time.Second}}
}

// view is what a browser shows.
type view struct {
	status int
	url    *url.URL
	text   string
	way    []*url.URL // where it was sent on the way
}

func (v *visitor) do(method, to string, form url.Values) view {
	v.t.Helper()
	out := view{}
	v.client.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		out.way = append(out.way, req.URL)
		return nil
	}
	req, err := http.NewRequestWithContext(v.t.Context(), method, to, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html,*/*;q=0.8")
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", req.URL.Scheme+"://"+req.URL.Host)
	}
	resp, err := v.client.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	out.status, out.url, out.text = resp.StatusCode, resp.Request.URL, string(body)
	return out
}

var (
	formTag  = regexp.MustCompile(`(?s)<form[^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	inputTag = regexp.MustCompile(`<(?:input|button)[^>]*>`)
	attrs    = regexp.MustCompile(`(name|value)="([^"]*)"`)
)

// submit fills in the form of a page and sends it.
func (v *visitor) submit(at view, fill map[string]string) view {
	v.t.Helper()
	f := formTag.FindStringSubmatch(at.text)
	if f == nil {
		v.t.Fatalf("%s has no form: %d %s", at.url, at.status, at.text)
	}
	values := url.Values{}
	for _, tag := range inputTag.FindAllString(f[2], -1) {
		found := map[string]string{}
		for _, a := range attrs.FindAllStringSubmatch(tag, -1) {
			found[a[1]] = html.UnescapeString(a[2])
		}
		if found["name"] != "" {
			values.Set(found["name"], found["value"])
		}
	}
	for name, value := range fill {
		values.Set(name, value)
	}
	to, err := at.url.Parse(html.UnescapeString(f[1]))
	if err != nil {
		v.t.Fatal(err)
	}
	return v.do(http.MethodPost, to.String(), values)
}

// logIn goes through the provider's pages until the site answers. It returns that and
// the address at which the browser came to the provider.
func (v *visitor) logIn(s *site) (view, *url.URL) {
	v.t.Helper()
	at := v.do(http.MethodGet, s.URL+"/x", nil)
	if len(at.way) == 0 {
		return at, nil
	}
	first := at.way[0]
	for range 5 {
		if at.url.Host == s.Listener.Addr().String() || at.status >= 400 {
			return at, first
		}
		at = v.submit(at, map[string]string{"login": "alice", "password": "x"})
	}
	v.t.Fatalf("still at %s: %d %s", at.url, at.status, at.text)
	return at, first
}

// jwksOf is the key set by which a provider knows a client.
func jwksOf(t *testing.T, key *ecdsa.PublicKey, kid string) map[string]any {
	t.Helper()
	point, err := key.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return map[string]any{"keys": []any{map[string]any{
		"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256",
		"x": b64(point[1:33]), "y": b64(point[33:]),
	}}}
}

// TestPushedWithProvider: a certified provider that requires pushed requests has people
// log in, however the gateway says who it is.
func TestPushedWithProvider(t *testing.T) {
	s := newCertifiedSite(t)
	key, file := clientKey(t)
	issuer := startCertified(t, s.URL, map[string]any{
		"features": map[string]any{"pushedAuthorizationRequests": map[string]any{"enabled": true, "requirePushedAuthorizationRequests": true}},
		"clients": []any{
			map[string]any{"client_id": authBasic, "token_endpoint_auth_method": authBasic},
			map[string]any{"client_id": authPost, "token_endpoint_auth_method": authPost},
			map[string]any{"client_id": authKey, "token_endpoint_auth_method": authKey, "jwks": jwksOf(t, &key.PublicKey, "web-1")},
			map[string]any{"client_id": authNone, "token_endpoint_auth_method": authNone},
		},
	})
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
		at, first := s.visitor().logIn(s)
		if at.status != 200 || at.text != "hello alice" {
			t.Errorf("%s: %s answers %d: %s", method, at.url, at.status, at.text)
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
	if at := s.visitor().do(http.MethodGet, m.authorization+"?"+plain.Encode(), nil); at.url.Query().Get("error_description") != "Pushed Authorization Request must be used" {
		t.Errorf("plain parameters: %s answers %d: %s", at.url, at.status, at.text)
	}

	wrong := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(wrong, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.use(issuer, func(c *Config) { as(authBasic)(c); c.ClientSecretFile = wrong })
	if at, _ := s.visitor().logIn(s); at.status != 503 || !strings.Contains(at.text, "operator") {
		t.Errorf("with a wrong secret %s answers %d: %s", at.url, at.status, at.text)
	}
}
