//go:build e2e

package e2e_test

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const machinePolicy = `package gateway

default decision := {"allow": false}

decision := {"allow": true} if input.request.path == "/open"

decision := {"allow": true, "upstream": {"set_headers": {"x-user": input.identity.subject}}} if {
	input.identity.kind == "client_credentials"
	not contains(json.marshal(input), "a-secret-for-the-test-only")
	not contains(json.marshal(input), "client-assertion")
}
`

// echoed sends a request with headers and returns the status and, of 200, what the
// upstream saw.
func (s *site) echoed(t *testing.T, path string, headers map[string]string) (status int, seen map[string]string) {
	t.Helper()
	c := oneConnection(s.ca.pool)()
	defer c.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodGet, "https://"+s.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var echo struct{ Headers map[string]string }
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(&echo); err != nil {
			t.Fatal(err)
		}
	}
	return resp.StatusCode, echo.Headers
}

// assertion is what the client machine-secret signs with its secret (RFC 7523).
func assertion(issuer string) string {
	encode := base64.RawURLEncoding.EncodeToString
	now := time.Now()
	claims := fmt.Sprintf(`{"iss": "machine-secret", "sub": "machine-secret", "aud": %q, "jti": %q, "iat": %d, "exp": %d}`,
		issuer, rand.Text(), now.Unix(), now.Add(time.Minute).Unix())
	input := encode([]byte(`{"alg":"HS256"}`)) + "." + encode([]byte(claims))
	mac := hmac.New(sha256.New, []byte("a secret of 32 bytes, or somewhat more"))
	mac.Write([]byte(input))
	return input + "." + encode(mac.Sum(nil))
}

// TestClientCredentials: a machine without a token of its own calls with its client
// identifier and secret, or with a JWT that it signed. The upstream gets the token; what
// the machine sent gets nowhere, neither to an upstream, on whatever route, nor to the
// policy or a log.
func TestClientCredentials(t *testing.T) {
	p := startIDP(t)
	s := newSite(t, paths)
	write(t, s.file("policies/gateway.rego"), machinePolicy)
	text := s.config(0, fromPaths)
	begin, end := strings.Index(text, "routes:\n")+len("routes:\n"), strings.Index(text, "policy:\n")
	text = text[:begin] + `  - {name: token, match: {path: "/token"}, authenticate: [machines], upstream: api, upstream_authorization: token}
  - {name: all, match: {path: "/all"}, authenticate: [machines], upstream: api, forward_credentials: true}
  - {name: open, match: {path: "/open"}, authenticate: [anyone], upstream: api, forward_credentials: true}
` + text[end:]
	text = strings.Replace(text, "authenticators:\n", fmt.Sprintf(`authenticators:
  anyone: {anonymous: {}}
  machines:
    client_credentials:
      issuer: %q
      audiences: ["https://api.example/ES256"]
      scopes: [orders.read]
      parameters: {resource: "https://api.example/ES256"}
      client_id_header: X-Ambassador-Client-ID
      client_secret_header: X-Ambassador-Client-Secret
      client_assertion_header: X-Ambassador-Client-Assertion
`, p.Issuer), 1)
	write(t, s.file("sallyport.yaml"), text)
	s.start(t)

	const secret = "a-secret-for-the-test-only"
	signed := assertion(p.Issuer)
	for client, machine := range map[string]map[string]string{
		"tester":         {"X-Ambassador-Client-ID": "tester", "X-Ambassador-Client-Secret": secret},
		"machine-secret": {"X-Ambassador-Client-Assertion": signed},
	} {
		for _, path := range []string{"/token", "/all", "/open"} {
			status, seen := s.echoed(t, path, machine)
			if status != 200 {
				t.Errorf("%s: status %d", path, status)
				continue
			}
			for name, value := range seen {
				if strings.Contains(strings.ToLower(name), "client-") || strings.Contains(value, secret) || strings.Contains(value, signed) {
					t.Errorf("%s: the upstream sees %s", path, name)
				}
			}
			if bearer := strings.HasPrefix(seen["Authorization"], "Bearer ey"); bearer != (path == "/token") {
				t.Errorf("%s: the upstream sees Authorization %.12q", path, seen["Authorization"])
			}
			if user := seen["X-User"]; (user == client) != (path != "/open") {
				t.Errorf("%s: the upstream sees X-User %q", path, user)
			}
		}
	}
	for _, bad := range []map[string]string{
		nil,
		{"X-Ambassador-Client-ID": "tester"},
		{"X-Ambassador-Client-ID": "tester", "X-Ambassador-Client-Secret": "wrong-secret"},
		{"X-Ambassador-Client-Assertion": signed, "X-Ambassador-Client-Secret": secret},
		{"X-Ambassador-Client-Assertion": signed + "AAAA"},
	} {
		if status, _ := s.echoed(t, "/token", bad); status != 401 {
			t.Errorf("%v: status %d, want 401", bad, status)
		}
	}
	s.gateway.stop(t)
	decisions := s.gateway.stdout.String()
	if !strings.Contains(decisions, `"tester"`) {
		t.Errorf("decision log: %s", decisions)
	}
	for _, word := range []string{secret, "wrong-secret", signed, signed[len(signed)-40:]} {
		if strings.Contains(decisions+s.gateway.stderr.String(), word) {
			t.Errorf("%q is in a log", word)
		}
	}
}
