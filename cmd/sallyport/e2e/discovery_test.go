//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

var challengeParameter = regexp.MustCompile(`(\w+)="([^"]*)"`)

// parameters returns those of the Bearer challenge of an answer.
func parameters(t *testing.T, resp *http.Response) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, value := range resp.Header.Values("WWW-Authenticate") {
		if !strings.HasPrefix(value, "Bearer ") {
			continue
		}
		for _, m := range challengeParameter.FindAllStringSubmatch(value, -1) {
			out[m[1]] = m[2]
		}
		return out
	}
	t.Fatalf("status %d without a Bearer challenge: %v", resp.StatusCode, resp.Header)
	return nil
}

// document gets a JSON object.
func document(t *testing.T, c *http.Client, address string) map[string]any {
	t.Helper()
	resp, err := c.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	var out map[string]any
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(body, &out) != nil {
		t.Fatalf("GET %s: %s %s %v", address, resp.Status, body, err)
	}
	return out
}

// TestDiscovery is a client that knows the address of an API and nothing else, as MCP
// clients do: the challenge leads to the resource's metadata (RFC 9728), that to the
// authorization server's, and this to a token for this resource (RFC 8707).
func TestDiscovery(t *testing.T) {
	p := startIDP(t)
	s := newSite(t, paths)
	api := "https://" + s.addr + "/ES256" // the provider signs tokens for it with this algorithm
	text := s.config(0, fromPaths)
	text = strings.Replace(text, "authenticators:\n", fmt.Sprintf("protected_resources:\n  - {resource: %q, authorization_servers: [%q], scopes_supported: [orders.read, orders.write]}\n"+
		"authenticators:\n  corp: {jwt: {issuer: %q, audiences: [%q], token_types: [at+jwt]}}\n", api, p.Issuer, p.Issuer, api), 1)
	text = strings.Replace(text, "authenticate: [dev]\n", "authenticate: [corp]\n    require: {scopes: [orders.read]}\n", 1)
	write(t, s.file("sallyport.yaml"), text)
	write(t, s.file("policies/gateway.rego"), "package gateway\n\ndecision := {\"allow\": input.identity.claims.client_id == \"tester\"}\n")
	s.start(t)
	c := oneConnection(s.ca.pool)()
	defer c.CloseIdleConnections()
	call := func(token string) *http.Response {
		req, err := http.NewRequest(http.MethodPost, api, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"initialize"}`))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp
	}

	refused := call("")
	challenge := parameters(t, refused)
	if want := "https://" + s.addr + "/.well-known/oauth-protected-resource/ES256"; refused.StatusCode != 401 || challenge["resource_metadata"] != want || challenge["error"] != "" {
		t.Fatalf("status %d, challenge %v, want 401 that names %s", refused.StatusCode, challenge, want)
	}
	resource := document(t, c, challenge["resource_metadata"])
	if resource["resource"] != api { // what is not of this resource must not be used (RFC 9728 section 3.3)
		t.Fatalf("metadata %v is not of %s", resource, api)
	}
	issuer, _ := resource["authorization_servers"].([]any)[0].(string)
	server := document(t, http.DefaultClient, issuer+"/.well-known/openid-configuration")
	if server["issuer"] != issuer {
		t.Fatalf("metadata of %v, want %s", server["issuer"], issuer)
	}
	token := func(scope, resource string) string {
		endpoint, _ := server["token_endpoint"].(string)
		var answer struct {
			AccessToken string `json:"access_token"`
		}
		body := p.Post(t, strings.TrimPrefix(endpoint, p.Issuer), url.Values{"grant_type": {"client_credentials"}, "resource": {resource}, "scope": {scope}})
		if err := json.Unmarshal(body, &answer); err != nil {
			t.Fatal(err)
		}
		return answer.AccessToken
	}

	if resp := call(token(challenge["scope"], api)); resp.StatusCode != 200 {
		t.Errorf("with a token for this resource: status %d", resp.StatusCode)
	}
	if resp := call(token(challenge["scope"], "https://other.example/ES256")); resp.StatusCode != 401 || parameters(t, resp)["error"] != "invalid_token" {
		t.Errorf("with a token for another resource: status %d, challenge %v", resp.StatusCode, parameters(t, resp))
	}
	resp := call(token("orders.write", api))
	if got := parameters(t, resp); resp.StatusCode != 403 || got["error"] != "insufficient_scope" || got["scope"] != "orders.read" || got["resource_metadata"] != challenge["resource_metadata"] {
		t.Errorf("without the scope: status %d, challenge %v", resp.StatusCode, got)
	}
}
