//go:build e2e

package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/demo"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
)

// sts is the certified OpenID provider with a token exchange.
type sts struct{ *oidctest.Provider }

// token returns an access token of "tester".
func (s sts) token(t *testing.T, scope string) string {
	t.Helper()
	return s.Token(t, "https://api.example", scope)
}

func (s sts) exchanges(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(string(s.Get(t, "/test/exchanges")))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const outboundConfig = `version: v1
listeners: [{name: public, address: %[1]s}]
admin: {address: %[2]s}
authenticators:
  corp: {jwt: {issuer: "%[3]s", audiences: ["https://api.example"]}}
  anyone: {anonymous: {}}
upstreams:
  api: {endpoints: [%[4]s]}
  secure: {endpoints: [%[5]s], tls: {ca_file: ca.pem, cert_file: gateway.pem, key_file: gateway.key}}
identity_token: {issuer: https://gateway.example, key_file: keys.pem, publish_ahead: 1s, claims: [client_id]}
token_exchanges:
  sts: {url: "%[3]s/token", client_id: gateway, client_secret_file: secret, audience: orders, audiences: [billing, unknown], scopes: [orders.read]}
client_credentials:
  machine: {url: "%[3]s/token", client_id: gateway, client_secret_file: secret, scopes: [orders.write], parameters: {resource: "https://legacy.example"}}
routes:
  - {name: exchange, match: {path: "/exchange/**"}, authenticate: [corp], upstream: api, upstream_authorization: exchange, token_exchange: sts}
  - {name: anonymous, match: {path: "/anonymous/**"}, authenticate: [corp, anyone], upstream: api, upstream_authorization: exchange, token_exchange: sts}
  - {name: chosen, match: {path: "/chosen/**"}, authenticate: [corp], upstream: api, token_exchange: sts}
  - {name: without, match: {path: "/without/**"}, authenticate: [corp], upstream: api}
  - {name: machine, match: {path: "/machine/**"}, authenticate: [corp, anyone], upstream: api, upstream_authorization: client_credentials, client_credentials: machine}
  - {name: token, match: {path: "/token/**"}, authenticate: [corp], upstream: api, upstream_authorization: token}
  - {name: secure, match: {path: "/secure/**"}, authenticate: [anyone], upstream: secure}
  - name: identity
    match: {path: "/identity/**"}
    authenticate: [corp]
    upstream: api
    identity_token: {audience: orders}
    upstream_headers:
      - {name: X-Subject, value: "{{ .token.Claims.sub }} of {{ .token.Header.typ }}"}
      - {name: X-Optional, value: "{{ if hasKey .token.Claims \"optional\" | not }}{{ doNotSet }}{{ end }}"}
    error_response:
      headers: [{name: Content-Type, value: application/json}]
      body_template: '{"code": {{ with .error.ValidationError }}{{ .Errors }}{{ else }}0{{ end }}, "id": {{ json "" .requestId }}}'
policy: {paths: [policies]}
`

const outboundPolicy = `package gateway

default decision := {"allow": true}

decision := {"allow": true, "upstream": {"token_exchange": {"audience": input.request.segments[1], "scope": input.request.segments[2]}}} if {
	input.request.segments[0] in {"chosen", "without"}
}
`

// outboundSite is a gateway between a provider and two upstreams.
type outboundSite struct {
	*site
	sts    sts
	secure *httptest.Server
}

func newOutboundSite(t *testing.T) *outboundSite {
	t.Helper()
	nodeFor(t)
	s := &outboundSite{sts: sts{oidctest.StartExchange(t)}, site: &site{dir: t.TempDir(), addr: freeAddress(t), admin: freeAddress(t), ca: newAuthority(t)}}
	s.upstream = httptest.NewServer(http.HandlerFunc(demo.Echo))
	t.Cleanup(s.upstream.Close)
	s.secure = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.TLS.PeerCertificates[0].SerialNumber) // a client that went away sees it
	}))
	cert, key := s.ca.issue(t, 1)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	s.secure.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: s.ca.pool}
	s.secure.StartTLS()
	t.Cleanup(s.secure.Close)
	write(t, s.file("ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.cert.Raw})))
	s.clientCertificate(t, 7)
	write(t, s.file("secret"), "a secret: with % and +\n")
	write(t, s.file("keys.pem"), identityKey(t))
	write(t, s.file("policies/gateway.rego"), outboundPolicy)
	write(t, s.file("sallyport.yaml"), fmt.Sprintf(outboundConfig, s.addr, s.admin, s.sts.Issuer, s.upstream.URL, s.secure.URL))
	s.start(t)
	return s
}

func (s *outboundSite) clientCertificate(t *testing.T, serial int64) {
	t.Helper()
	c := s.ca.client(t, "spiffe://example.org/gateway", serial)
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.file("gateway.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	write(t, s.file("gateway.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})))
}

func identityKey(t *testing.T) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// get returns the status, what the upstream received, or the body of another
// answer.
func (s *outboundSite) get(t *testing.T, path, token string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+s.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"X-Identity-Token": "forged", "X-Optional": "forged", "X-Subject": "forged"} {
		req.Header.Set(name, value)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var echo struct{ Headers map[string]string }
	got := http.Header{}
	if json.Unmarshal(body, &echo) == nil {
		for name, value := range echo.Headers {
			got.Set(name, value)
		}
	}
	return resp.StatusCode, got, string(body)
}

// claims are those of the bearer token that the upstream received.
func claims(t *testing.T, received http.Header) map[string]any {
	t.Helper()
	parts := strings.Split(strings.TrimPrefix(received.Get("Authorization"), "Bearer "), ".")
	if len(parts) != 3 {
		t.Fatalf("the upstream received %q", received)
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTokensForUpstreams has a real provider exchange tokens and give the gateway
// its own.
func TestTokensForUpstreams(t *testing.T) {
	s := newOutboundSite(t)
	both, read, write := s.sts.token(t, "orders.read orders.write"), s.sts.token(t, "orders.read"), s.sts.token(t, "orders.write")
	for _, c := range []struct {
		path, token              string
		status                   int
		audience, subject, scope string
	}{
		{"/exchange/1", both, 200, "orders", "tester", "orders.read"},
		{"/exchange/1", read, 200, "orders", "tester", "orders.read"},
		{"/exchange/1", write, 403, "", "", ""},
		{"/exchange/1", "", 401, "", "", ""},
		{"/anonymous/1", "", 401, "", "", ""},
		{"/chosen/billing/orders.write", both, 200, "billing", "tester", "orders.write"},
		{"/chosen/billing/orders.write", read, 403, "", "", ""},
		{"/chosen/admin/orders.read", read, 403, "", "", ""},
		{"/chosen/unknown/orders.read", read, 403, "", "", ""}, // the provider says no
		{"/without/billing/orders.read", read, 403, "", "", ""},
		{"/machine/1", read, 200, "https://legacy.example", "gateway", "orders.write"},
		{"/machine/1", "", 200, "https://legacy.example", "gateway", "orders.write"},
		{"/token/1", read, 200, "https://api.example", "tester", "orders.read"},
	} {
		status, received, body := s.get(t, c.path, c.token)
		if status != c.status {
			t.Errorf("%s: %d %s", c.path, status, body)
			continue
		}
		if status != 200 {
			continue
		}
		if got := claims(t, received); got["aud"] != c.audience || got["sub"] != c.subject || got["scope"] != c.scope {
			t.Errorf("%s: the upstream received %v", c.path, got)
		}
	}
	if _, received, _ := s.get(t, "/token/1", read); received.Get("X-Identity-Token") != "" || received.Get("X-Subject") != "" {
		t.Errorf("the client's own headers got through: %v", received)
	}

	n := s.sts.exchanges(t)
	for range 20 {
		if status, _, body := s.get(t, "/exchange/1", both); status != 200 {
			t.Errorf("%d %s", status, body)
		}
	}
	if got := s.sts.exchanges(t); got != n {
		t.Errorf("%d exchanges for requests that had their token", got-n)
	}

	fresh := s.sts.token(t, "orders.read")
	s.sts.Stop()
	if status, _, body := s.get(t, "/exchange/1", fresh); status != 503 || strings.Contains(body, "127.0.0.1") {
		t.Errorf("provider down: %d %s", status, body)
	}
	if status, _, _ := s.get(t, "/exchange/1", both); status != 200 {
		t.Errorf("provider down, and there is a token: %d", status)
	}
	if log := s.gateway.stdout.String() + s.gateway.stderr.String(); strings.Contains(log, "a secret:") || strings.Contains(log, "eyJ") {
		t.Error("the log shows a secret or a token")
	}
}

// verifyIdentity does what an upstream does with the key set that it has.
func verifyIdentity(t *testing.T, keys, token string) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "jwks.json")
	write(t, file, keys)
	c := jwt.Default()
	c.Issuer, c.Audiences, c.JWKSFile = "https://gateway.example", []string{"orders"}, file
	a, err := jwt.New("upstream", c, jwt.Deps{})
	if err != nil {
		return err
	}
	id, err := a.Authenticate(t.Context(), &authn.Request{Authorization: "Bearer " + token, Now: time.Now()})
	if err == nil && (id.Subject != "tester" || id.Claims["client_id"] != "tester" || id.Claims["authenticator"] != "corp") {
		return fmt.Errorf("claims %v", id.Claims)
	}
	return err
}

// TestIdentityTokens has an upstream verify who it is, while the gateway's key
// is replaced: with the key set from before each request, every token verifies.
func TestIdentityTokens(t *testing.T) {
	s := newOutboundSite(t)
	token := s.sts.token(t, "orders.read")
	look := func() (kid string) {
		_, _, keys := s.get(t, "/.well-known/sallyport/jwks.json", "")
		status, received, body := s.get(t, "/identity/1", s.sts.token(t, "orders.read"))
		if status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		if got := received.Get("X-Subject"); got != "tester of at+jwt" {
			t.Errorf("X-Subject: %q", got)
		}
		if got, there := received["X-Optional"]; there {
			t.Errorf("X-Optional: %q", got)
		}
		if got := received.Get("Authorization"); got != "" {
			t.Errorf("Authorization: %q", got)
		}
		if err := verifyIdentity(t, keys, received.Get("X-Identity-Token")); err != nil {
			t.Fatalf("with the keys %s: %v", keys, err)
		}
		return strings.Split(received.Get("X-Identity-Token"), ".")[0]
	}
	first := look()
	write(t, s.file("keys.pem"), identityKey(t))
	eventually(t, 20*time.Second, "another key signs", func() bool { return look() != first })

	for bad, code := range map[string]int{"opaque": 1, token[:len(token)-8] + "AAAAAAAA": 4, "": 0} {
		status, _, body := s.get(t, "/identity/1", bad)
		var answer struct {
			Code int
			ID   string
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 401 || answer.Code != code || answer.ID == "" {
			t.Errorf("%.10q: %d %s, %v", bad, status, body, err)
		}
	}
}

// TestOwnCertificateForUpstreams: the gateway shows an upstream its own certificate, and
// the next one when the files change.
func TestOwnCertificateForUpstreams(t *testing.T) {
	s := newOutboundSite(t)
	if status, _, body := s.get(t, "/secure/1", ""); status != 200 || body != "7" {
		t.Fatalf("%d %s", status, body)
	}
	s.clientCertificate(t, 8)
	eventually(t, 20*time.Second, "the next certificate", func() bool {
		_, _, body := s.get(t, "/secure/1", "")
		return body == "8"
	})
}
