//go:build e2e

package e2e_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
)

// holder is a client with a key, a process of its own.
type holder struct {
	*oidctest.Process
	t *testing.T
}

// call is a request with a proof; what is left out is right.
type call struct {
	Do      string            `json:"do"`
	URL     string            `json:"url"`
	Token   string            `json:"token"`
	Scheme  string            `json:"scheme,omitempty"`
	Key     string            `json:"key,omitempty"`
	Claims  map[string]any    `json:"claims,omitempty"`
	Proof   string            `json:"proof,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
}

// reply is what came of it.
type reply struct {
	Status                         int
	Nonce, Challenge, Proof, Error string
}

func startHolder(t *testing.T, ca *authority) *holder {
	t.Helper()
	nodeFor(t)
	trust := filepath.Join(t.TempDir(), "ca.pem")
	write(t, trust, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})))
	return &holder{oidctest.Run(t, []string{"NODE_EXTRA_CA_CERTS=" + trust}, "dpop.mjs"), t}
}

func (h *holder) ask(question, answer any) {
	h.t.Helper()
	if err := json.NewEncoder(h.In).Encode(question); err != nil {
		h.t.Fatal(err)
	}
	h.Read(h.t, answer)
}

// token has the provider issue a token that is bound to the client's key.
func (h *holder) token(p *idp, resource string) string {
	h.t.Helper()
	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
	}
	h.ask(map[string]string{"do": "token", "issuer": p.Issuer, "resource": resource}, &answer)
	if answer.AccessToken == "" || answer.TokenType != "DPoP" {
		h.t.Fatalf("the provider issued %+v", answer)
	}
	return answer.AccessToken
}

func (h *holder) call(c call) reply {
	h.t.Helper()
	c.Do = "call"
	var a reply
	if h.ask(c, &a); a.Error != "" {
		h.t.Fatalf("%+v: %s", c, a.Error)
	}
	return a
}

const dpopConfig = `version: v1
listeners:
  - {name: public, address: %[1]s, tls: {cert_file: server.pem, key_file: server.key}}
  - {name: behind, address: %[2]s, trusted_proxies: [127.0.0.1/32]}
  - {name: alone, address: %[3]s}
admin: {address: %[4]s}
authenticators:
  corp: {jwt: {issuer: %[5]q, audiences: ["https://api.example/ES256"], dpop: {nonce: true}, realm: %[6]q}}
  opaque:
    introspection:
      {url: %[5]q, client_id: gateway, client_secret_file: secret, audiences: ["https://api.example/opaque"], dpop: {nonce: true}, realm: %[6]q}
upstreams:
  api: {endpoints: [%[7]s]}
routes:
  - {name: all, match: {path: "/**"}, authenticate: [corp, opaque], upstream: api}
policy:
  entrypoint: gateway/decision
  paths: [policies]
`

// TestDPoP: a client of its own, with tokens of a certified provider, proves that it has
// their key through TLS; nothing else opens, and a proof opens once, also when the
// configuration of its authenticator was changed meanwhile.
func TestDPoP(t *testing.T) {
	p, api := startIDP(t), newService(t)
	s := newSite(t, paths)
	behind, alone := freeAddress(t), freeAddress(t)
	configured := func(realm string) string {
		text := fmt.Sprintf(dpopConfig, s.addr, behind, alone, s.admin, p.Issuer, realm, api.URL)
		return strings.Replace(text, fmt.Sprintf("{url: %q", p.Issuer), fmt.Sprintf("{url: %q", p.Issuer+"/token/introspection"), 1)
	}
	write(t, s.file("policies/gateway.rego"), `package gateway

decision := {"allow": input.identity.claims.client_id == "tester"}
`)
	write(t, s.file("secret"), "a secret: with % and +\n")
	write(t, s.file("sallyport.yaml"), configured("first"))
	s.start(t)
	h := startHolder(t, s.ca)
	url := "https://" + s.addr + "/v1/orders/42"
	used := map[string]call{}
	for _, resource := range []string{"ES256", "opaque"} {
		token := h.token(p, "https://api.example/"+resource)
		first := h.call(call{URL: url, Token: token})
		if first.Status != http.StatusUnauthorized || first.Nonce == "" || !strings.Contains(first.Challenge, `DPoP realm="first"`) || !strings.Contains(first.Challenge, `error="use_dpop_nonce"`) {
			t.Fatalf("%s without a nonce: %+v", resource, first)
		}
		with := func(claims map[string]any) map[string]any {
			out := map[string]any{"nonce": first.Nonce}
			maps.Copy(out, claims)
			return out
		}
		opened := h.call(call{URL: url + "?page=2", Token: token, Claims: with(map[string]any{"htu": url})})
		if opened.Status != http.StatusNoContent {
			t.Fatalf("%s with the nonce: %+v", resource, opened)
		}
		if head := api.head(); strings.Contains(head, opened.Proof) || strings.Contains(head, token) {
			t.Errorf("%s: the proof or the token reached the upstream: %s", resource, head)
		}
		ended := map[string]string{"x-forwarded-proto": "https"}
		renamed := map[string]string{"x-forwarded-proto": "https", "x-forwarded-host": "API.example:443"}
		byName := with(map[string]any{"htu": "https://api.example/v1/orders/42"})
		outside := func(address string) map[string]any {
			return with(map[string]any{"htu": "https://" + address + "/v1/orders/42"})
		}
		for _, tt := range []struct {
			name string
			call call
			want int
			says string
		}{
			{"the same proof again", call{URL: url, Token: token, Proof: opened.Proof}, 401, "invalid_dpop_proof"},
			{"another key", call{URL: url, Token: token, Key: "other", Claims: with(nil)}, 401, "invalid_dpop_proof"},
			{"a made-up nonce", call{URL: url, Token: token, Claims: map[string]any{"nonce": "made-up"}}, 401, "use_dpop_nonce"},
			{"http for https", call{URL: url, Token: token, Claims: with(map[string]any{"htu": "http://" + s.addr + "/v1/orders/42"})}, 401, "invalid_dpop_proof"},
			{"another path", call{URL: url, Token: token, Claims: with(map[string]any{"htu": url + "3"})}, 401, "invalid_dpop_proof"},
			{"another method", call{URL: url, Token: token, Claims: with(map[string]any{"htm": "POST"})}, 401, "invalid_dpop_proof"},
			{"no hash of the token", call{URL: url, Token: token, Claims: with(map[string]any{"ath": nil})}, 401, "invalid_dpop_proof"},
			{"an old proof", call{URL: url, Token: token, Claims: with(map[string]any{"iat": time.Now().Unix() - 3600})}, 401, "invalid_dpop_proof"},
			{"as a bearer token", call{URL: url, Token: token, Scheme: "Bearer", Claims: with(nil)}, 401, "invalid_token"},
			{"another token", call{URL: url, Token: "made-up", Claims: with(nil)}, 401, "invalid_token"},
			{"behind a proxy that ends TLS", call{URL: "http://" + behind + "/v1/orders/42", Token: token, Headers: ended, Claims: outside(behind)}, 204, ""},
			{"behind one that changes the host", call{URL: "http://" + behind + "/v1/orders/42?page=2", Token: token, Headers: renamed, Claims: byName}, 204, ""},
			{"for the host behind it", call{URL: "http://" + behind + "/v1/orders/42", Token: token, Headers: renamed, Claims: outside(behind)}, 401, "invalid_dpop_proof"},
			{"who says to be one that changes the host", call{URL: "http://" + alone + "/v1/orders/42", Token: token, Headers: renamed, Claims: byName}, 401, "invalid_dpop_proof"},
			{"who says to be such a proxy", call{URL: "http://" + alone + "/v1/orders/42", Token: token, Headers: ended, Claims: outside(alone)}, 401, "invalid_dpop_proof"},
			{"a good proof after all these", call{URL: url, Token: token, Claims: with(nil)}, 204, ""},
		} {
			if got := h.call(tt.call); got.Status != tt.want || !strings.Contains(got.Challenge, tt.says) {
				t.Errorf("%s, %s: %+v, want %d %s", resource, tt.name, got, tt.want, tt.says)
			}
		}
		used[resource] = call{URL: url, Token: token, Proof: opened.Proof, Claims: with(nil)}
	}
	write(t, s.file("sallyport.yaml"), configured("next"))
	eventually(t, 20*time.Second, "the new configuration is in force", func() bool {
		got := h.call(call{URL: url, Token: "made-up"})
		return strings.Contains(got.Challenge, `realm="next"`)
	})
	for resource, c := range used {
		if got := h.call(c); got.Status != http.StatusUnauthorized || !strings.Contains(got.Challenge, "invalid_dpop_proof") {
			t.Errorf("%s, the first proof after a reload: %+v", resource, got)
		}
		c.Proof = ""
		if got := h.call(c); got.Status != http.StatusNoContent {
			t.Errorf("%s, a new proof with the old nonce after a reload: %+v", resource, got)
		}
	}
}

// head returns what the upstream was sent last.
func (s *service) head() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}
