//go:build e2e

package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
)

// service is an upstream that keeps what it was sent last.
type service struct {
	*httptest.Server
	mu   sync.Mutex
	last string // the whole head, as it came
	auth []string
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.last, s.auth = r.RequestURI+"\n"+fmt.Sprint(r.Header), r.Header.Values("Authorization")
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	return s
}

// shown returns the one token that the upstream got, and everything it got.
func (s *service) shown(t *testing.T) (token, head string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.auth) != 1 || !strings.HasPrefix(s.auth[0], "Bearer ") {
		t.Fatalf("the upstream got Authorization %q", s.auth)
	}
	return strings.TrimPrefix(s.auth[0], "Bearer "), s.last
}

const phantomConfig = `version: v1
listeners:
  - {name: public, address: %[1]s, tls: {cert_file: server.pem, key_file: server.key}}
admin: {address: %[2]s}
authenticators:
%[3]s
upstreams:
  api: {endpoints: [%[4]s]}
routes:
%[5]s
policy:
  entrypoint: gateway/decision
  paths: [policies]
`

// phantomSite is a gateway that shows its upstream the token that stands for the
// caller, with a route for each authenticator.
func phantomSite(t *testing.T, upstream, authenticators string, names ...string) *site {
	t.Helper()
	s := newSite(t, paths)
	var routes strings.Builder
	for _, name := range names {
		fmt.Fprintf(&routes, "  - {name: %[1]s, match: {path: \"/%[1]s/**\"}, authenticate: [%[1]s], upstream: api, upstream_authorization: token}\n", name)
	}
	write(t, s.file("policies/gateway.rego"), `package gateway

decision := {"allow": input.identity.claims.client_id == "tester"}
`)
	write(t, s.file("secret"), "a secret: with % and +\n")
	write(t, s.file("sallyport.yaml"), fmt.Sprintf(phantomConfig, s.addr, s.admin, authenticators, upstream, routes.String()))
	return s
}

// TestPhantomTokens: the client has an opaque token, and the upstream gets a JWT that it
// can verify with the provider's keys, and never the opaque token.
func TestPhantomTokens(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "gateway.key")
	p := startIDP(t, "GATEWAY_JWKS="+gatewayKey(t, keys))
	api := newService(t)
	s := phantomSite(t, api.URL, fmt.Sprintf(`  phantom:
    introspection: {url: %[1]q, client_id: gateway, client_secret_file: secret, format: jwt, issuer: %[2]q, audiences: ["https://api.example/opaque"]}
  signed:
    introspection: {url: %[1]q, client_id: gateway-jwt, client_key_file: %[3]q, format: introspection_jwt, issuer: %[2]q, audiences: ["https://api.example/opaque"]}
`, p.Issuer+"/token/introspection", p.Issuer, keys), "phantom", "signed")
	s.start(t)
	c := oneConnection(s.ca.pool)()
	defer c.CloseIdleConnections()
	behind, err := jwt.New("service", jwt.Config{Issuer: p.Issuer, Audiences: []string{"https://api.example/opaque"}}, jwt.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := behind.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	signed, err := jwt.NewVerifier("service", jwt.Source{Issuer: p.Issuer}, jwt.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := signed.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	check := map[string]func(token string) error{
		"phantom": func(token string) error {
			id, err := behind.Authenticate(t.Context(), &authn.Request{Authorization: "Bearer " + token, Now: time.Now()})
			if err == nil && (id.Claims["client_id"] != "tester" || len(id.Scopes) != 1) {
				err = fmt.Errorf("the upstream sees %+v", id)
			}
			return err
		},
		"signed": func(token string) error {
			v, err := signed.Verify(t.Context(), token)
			if err != nil {
				return err
			}
			about, _ := v.Claims["token_introspection"].(map[string]any)
			if v.Type != "token-introspection+jwt" || about["client_id"] != "tester" || about["active"] != true {
				return fmt.Errorf("the upstream sees %+v", v)
			}
			return nil
		},
	}
	for _, name := range []string{"phantom", "signed"} {
		token := p.opaque(t)
		for range 2 { // asked, and from the cache
			if status, _ := s.get(t, c, "/"+name+"/x", token); status != http.StatusNoContent {
				t.Fatalf("%s: status %d", name, status)
			}
			got, head := api.shown(t)
			if strings.Contains(head, token) {
				t.Errorf("%s: the opaque token reached the upstream: %s", name, head)
			}
			if err := check[name](got); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, bad := range []string{"made-up", p.opaqueRevoked(t)} {
			if status, _ := s.get(t, c, "/"+name+"/x", bad); status != http.StatusUnauthorized {
				t.Errorf("%s: %s got %d, want 401", name, bad, status)
			}
		}
	}
}

// opaqueRevoked is an opaque token that is good no more.
func (p *idp) opaqueRevoked(t *testing.T) string {
	t.Helper()
	token := p.opaque(t)
	p.Revoke(t, token)
	return token
}

// TestSplitTokens: the client has the signature of a JWT of a certified provider, and the
// upstream gets the whole, for a look-up in a minute.
func TestSplitTokens(t *testing.T) {
	p, api := startIDP(t), newService(t)
	whole := p.Token(t, "https://api.example/RS256", "orders.read")
	dot := strings.LastIndexByte(whole, '.')
	record, signature := whole[:dot], whole[dot+1:]
	hash := sha256.Sum256([]byte(signature))
	var asked atomic.Int64
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path != "/split/"+hex.EncodeToString(hash[:]) {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, record+"\n")
	}))
	defer store.Close()
	s := phantomSite(t, api.URL, fmt.Sprintf(`  split: {jwt: {issuer: %q, audiences: ["https://api.example/RS256"], split_token: {url: %q}}}
`, p.Issuer, store.URL+"/split/{hash}"), "split")
	s.start(t)
	c := oneConnection(s.ca.pool)()
	defer c.CloseIdleConnections()
	for range 3 {
		if status, _ := s.get(t, c, "/split/x", signature); status != http.StatusNoContent {
			t.Fatalf("status %d", status)
		}
		if got, _ := api.shown(t); got != whole {
			t.Errorf("the upstream got %q, want the whole JWT", got)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("%d look-ups, want 1: max_age is a minute", n)
	}
	other := "A" + signature[1:]
	if signature[0] == 'A' {
		other = "B" + signature[1:]
	}
	for range 2 {
		if status, _ := s.get(t, c, "/split/x", other); status != http.StatusUnauthorized {
			t.Errorf("another signature got %d, want 401", status)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("%d look-ups, want 2", n)
	}
	store.Close()
	if status, _ := s.get(t, c, "/split/x", "CC"+signature[2:]); status != http.StatusServiceUnavailable {
		t.Errorf("without a store: status %d, want 503", status)
	}
	if status, _ := s.get(t, c, "/split/x", signature); status != http.StatusNoContent {
		t.Errorf("what was verified, without a store: status %d", status)
	}
}
