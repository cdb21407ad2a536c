// Package oidctest runs a certified OpenID provider, npm's oidc-provider, for a test: a
// process of its own that shares no code with the gateway. It also has the browser that
// logs in there. It knows nothing of the gateway's packages, so that the tests of each may
// use it. Nothing but tests imports it.
package oidctest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Secret is what "tester" and "web", the clients, have where a test says nothing else.
const Secret = "a-secret-for-the-test-only"

// patience is for a machine that is busy with other things.
const patience = time.Minute

// Provider is one that listens on loopback.
type Provider struct {
	Issuer  string
	Address string // its origin where it stands behind something else; of StartLogin alone

	process *Process
}

// StartLogin runs login.mjs, at which people log in. It knows a gateway at an origin, or at
// several, separated by commas. What options say stands there.
func StartLogin(t testing.TB, origins string, options map[string]any) *Provider {
	t.Helper()
	text, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	// The gateway's certificate is made for the test.
	return start(t, []string{"NODE_TLS_REJECT_UNAUTHORIZED=0", "NODE_NO_WARNINGS=1"}, "login.mjs", origins, string(text))
}

// StartMachines runs server.mjs, from which machines have access tokens. What env, of
// NAME=value, is for stands there.
func StartMachines(t testing.TB, env ...string) *Provider {
	t.Helper()
	return start(t, env, "server.mjs")
}

// StartExchange runs exchange.mjs, which exchanges access tokens (RFC 8693).
func StartExchange(t testing.TB) *Provider {
	t.Helper()
	return start(t, nil, "exchange.mjs")
}

func start(t testing.TB, env []string, script string, args ...string) *Provider {
	t.Helper()
	p := &Provider{process: Run(t, env, script, args...)}
	p.process.Read(t, p)
	return p
}

// Stop ends the provider before the test does.
func (p *Provider) Stop() { p.process.Stop() }

// Get returns the body of what the provider answers at a path.
func (p *Provider) Get(t testing.TB, path string) []byte {
	t.Helper()
	return p.ask(t, http.MethodGet, path, nil, "")
}

// Post sends a form as "tester" and returns the body of the answer.
func (p *Provider) Post(t testing.TB, path string, form url.Values) []byte {
	t.Helper()
	return p.ask(t, http.MethodPost, path, form, "")
}

func (p *Provider) ask(t testing.TB, method, path string, form url.Values, proof string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, p.Issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if proof != "" {
		req.Header.Set("DPoP", proof)
	}
	req.SetBasicAuth("tester", Secret)
	req.Close = true // no goroutine of a connection is left for goleak
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %s %v", method, path, resp.Status, body, err)
	}
	return body
}

// Token returns an access token of "tester" for a resource (RFC 8707), with scopes
// separated by spaces.
func (p *Provider) Token(t testing.TB, resource, scope string) string {
	t.Helper()
	return p.grant(t, resource, scope, "", "Bearer")
}

// BoundToken is Token of one that is bound to the key of a proof for a POST to the token
// endpoint (RFC 9449 section 5).
func (p *Provider) BoundToken(t testing.TB, resource, scope, proof string) string {
	t.Helper()
	return p.grant(t, resource, scope, proof, "DPoP")
}

// grant has the provider issue a token (RFC 6749 section 4.4).
func (p *Provider) grant(t testing.TB, resource, scope, proof, tokenType string) string {
	t.Helper()
	body := p.ask(t, http.MethodPost, "/token", url.Values{"grant_type": {"client_credentials"}, "resource": {resource}, "scope": {scope}}, proof)
	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.AccessToken == "" || answer.TokenType != tokenType {
		t.Fatalf("token answer %s: %v, want a token of type %s", body, err, tokenType)
	}
	return answer.AccessToken
}

// Revoke has the provider revoke a token of "tester" (RFC 7009).
func (p *Provider) Revoke(t testing.TB, token string) {
	t.Helper()
	p.Post(t, "/token/revocation", url.Values{"token": {token}})
}
