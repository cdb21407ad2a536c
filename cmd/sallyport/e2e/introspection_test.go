//go:build e2e

package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
)

// idp is the certified OpenID provider from which machines have tokens.
type idp struct{ *oidctest.Provider }

func startIDP(t *testing.T, env ...string) *idp {
	t.Helper()
	nodeFor(t)
	return &idp{oidctest.StartMachines(t, env...)}
}

// opaque has the provider issue an access token that says nothing by itself.
func (p *idp) opaque(t *testing.T) string {
	t.Helper()
	token := p.Token(t, "https://api.example/opaque", "orders.read")
	if strings.Contains(token, ".") {
		t.Fatalf("the token says something: %s", token)
	}
	return token
}

// gatewayKey writes a private key and returns the set of its public one.
func gatewayKey(t *testing.T, file string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	set, err := json.Marshal(map[string]any{"keys": []any{map[string]any{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "x": b64(point[1:33]), "y": b64(point[33:])}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(set)
}

const opaquePolicy = `package gateway

default decision := {"allow": false}

decision := {"allow": true, "response": {"set_headers": {"x-by": input.identity.authenticator}}} if {
	input.identity.kind == "introspection"
	input.identity.claims.client_id == "tester"
	input.identity.audiences == ["https://api.example/opaque"]
	input.identity.scopes == ["orders.read"]
}

decision := {"allow": true, "response": {"set_headers": {"x-by": input.identity.authenticator}}} if input.identity.kind == "jwt"
`

// opaqueSite is a gateway with a route for each authenticator, all of which also take
// the JWTs of "dev", and routes below /writers and /billing with requirements that the
// tokens do not meet.
func opaqueSite(t *testing.T, authenticators string, names ...string) *site {
	t.Helper()
	s := newSite(t, paths)
	write(t, s.file("policies/gateway.rego"), opaquePolicy)
	var routes strings.Builder
	for _, name := range names {
		for _, r := range [][2]string{ // the first that matches counts
			{"/writers", "{scopes: [orders.write]}"}, {"/billing", "{audiences: [billing]}"}, {"", "{audiences: [\"https://api.example/opaque\", demo]}"},
		} {
			path, require := r[0], r[1]
			fmt.Fprintf(&routes, "  - name: %q\n    match: {path: \"/%s%s/**\"}\n    authenticate: [dev%s]\n    upstream: api\n    require: %s\n",
				name+path, name, path, strings.TrimSuffix(", "+name, ", dev"), require)
		}
	}
	text := s.config(0, fromPaths)
	begin, end := strings.Index(text, "routes:\n")+len("routes:\n"), strings.Index(text, "policy:\n")
	text = text[:begin] + routes.String() + text[end:]
	text = strings.Replace(text, "authenticators:\n", "authenticators:\n"+authenticators, 1)
	write(t, s.file("sallyport.yaml"), text)
	return s
}

func (s *site) get(t *testing.T, c *http.Client, path, token string) (status int, by string) {
	t.Helper()
	req := s.request()
	req.URL.Path = path
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // only the head counts
	return resp.StatusCode, resp.Header.Get("X-By")
}

// TestOpaqueTokens takes opaque tokens of a certified provider, by its plain and by
// its signed answer, and sees that a revoked one is refused once its answer has aged.
func TestOpaqueTokens(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "gateway.key")
	p := startIDP(t, "GATEWAY_JWKS="+gatewayKey(t, keys))
	s := opaqueSite(t, fmt.Sprintf(`  plain: {introspection: {url: %[1]q, client_id: gateway, client_secret_file: secret, max_age: 500ms}}
  signed:
    introspection: {url: %[1]q, client_id: gateway-jwt, client_key_file: %[3]q, format: introspection_jwt, issuer: %[2]q, audiences: ["https://api.example/opaque"], max_age: 500ms}
`, p.Issuer+"/token/introspection", p.Issuer, keys), "plain", "signed")
	write(t, s.file("secret"), "a secret: with % and +\n")
	s.start(t)
	c := oneConnection(s.ca.pool)()
	defer c.CloseIdleConnections()
	for _, name := range []string{"plain", "signed"} {
		token := p.opaque(t)
		for range 2 { // asked, and from the cache
			for path, want := range map[string]int{"/x": 200, "/writers/x": 403, "/billing/x": 401} {
				status, by := s.get(t, c, "/"+name+path, token)
				if status != want || status == 200 && by != name {
					t.Errorf("%s%s: status %d by %q, want %d", name, path, status, by, want)
				}
			}
		}
		if status, _ := s.get(t, c, "/"+name+"/x", "made-up"); status != 401 {
			t.Errorf("%s: a made-up token got %d, want 401", name, status)
		}
		p.Revoke(t, token)
		eventually(t, 10*time.Second, name+": the revoked token is refused", func() bool {
			status, _ := s.get(t, c, "/"+name+"/x", token)
			return status == 401
		})
		if status, _ := s.get(t, c, "/"+name+"/x", p.opaque(t)); status != 200 {
			t.Errorf("%s: another token got %d, want 200", name, status)
		}
	}
	// The secret is watched.
	write(t, s.file("secret"), "wrong\n")
	eventually(t, 10*time.Second, "the new secret is used", func() bool {
		status, _ := s.get(t, c, "/plain/x", p.opaque(t))
		return status == 503
	})
}

// TestProviderThatHangs: its tokens get 503, and what does not need it is served
// meanwhile.
func TestProviderThatHangs(t *testing.T) {
	var asked atomic.Int64
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		<-release
	}))
	defer hanging.Close()
	defer close(release)
	s := opaqueSite(t, fmt.Sprintf("  slow: {introspection: {url: %q, client_id: gw, client_secret_file: secret, timeout: 3s}}\n", hanging.URL), "slow", "dev")
	write(t, s.file("secret"), "s3cret")
	s.start(t)
	l := drive(t, 8, oneConnection(s.ca.pool), func() *http.Request {
		req := s.request()
		req.URL.Path = "/dev/x"
		return req
	}, accept(http.StatusOK))
	const waiting = 100 // more than may be under way at once
	statuses := make(chan int, waiting)
	for i := range waiting {
		go func() {
			c := oneConnection(s.ca.pool)()
			defer c.CloseIdleConnections()
			req := s.request()
			req.URL.Path = "/slow/x"
			req.Header.Set("Authorization", fmt.Sprintf("Bearer token%d", i))
			resp, err := c.Do(req)
			if err != nil {
				statuses <- 0
				return
			}
			resp.Body.Close()
			statuses <- resp.StatusCode
		}()
	}
	eventually(t, 10*time.Second, "questions hang", func() bool { return asked.Load() > 0 })
	before := l.sent.Load()
	eventually(t, 10*time.Second, "the other route serves meanwhile", func() bool { return l.sent.Load() > before+100 })
	for range waiting {
		if got := <-statuses; got != http.StatusServiceUnavailable {
			t.Errorf("status %d, want 503", got)
		}
	}
	if n := asked.Load(); n > 64+10 { // and a few probes
		t.Errorf("%d questions reached the provider, which may have 64 at once", n)
	}
	l.end(t)
}
