//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const machinePolicy = `package gateway

default decision := {"allow": false}

decision := {"allow": true} if input.request.path == "/open"

decision := {"allow": true, "upstream": {"set_headers": {"x-user": input.identity.subject}}} if {
	input.identity.kind == "client_credentials"
	not contains(json.marshal(input), "a-secret-for-the-test-only")
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

// TestClientCredentials: a machine without a token of its own calls with its client
// identifier and secret. The upstream gets the token; the secret gets nowhere, neither
// to an upstream, on whatever route, nor to the policy or a log.
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
`, p.issuer), 1)
	write(t, s.file("sallyport.yaml"), text)
	s.start(t)

	const secret = "a-secret-for-the-test-only"
	machine := map[string]string{"X-Ambassador-Client-ID": "tester", "X-Ambassador-Client-Secret": secret}
	for _, path := range []string{"/token", "/all", "/open"} {
		status, seen := s.echoed(t, path, machine)
		if status != 200 {
			t.Errorf("%s: status %d", path, status)
			continue
		}
		for name, value := range seen {
			if strings.Contains(strings.ToLower(name), "client-") || strings.Contains(value, secret) {
				t.Errorf("%s: the upstream sees %s", path, name)
			}
		}
		if bearer := strings.HasPrefix(seen["Authorization"], "Bearer ey"); bearer != (path == "/token") {
			t.Errorf("%s: the upstream sees Authorization %.12q", path, seen["Authorization"])
		}
		if user := seen["X-User"]; (user == "tester") != (path != "/open") {
			t.Errorf("%s: the upstream sees X-User %q", path, user)
		}
	}
	for _, bad := range []map[string]string{
		nil, {"X-Ambassador-Client-ID": "tester"}, {"X-Ambassador-Client-ID": "tester", "X-Ambassador-Client-Secret": "wrong-secret"},
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
	for _, word := range []string{secret, "wrong-secret"} {
		if strings.Contains(decisions+s.gateway.stderr.String(), word) {
			t.Errorf("%q is in a log", word)
		}
	}
}
