//go:build e2e

package e2e_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/redis/redistest"
)

// keyPair signs with Ed25519.
type keyPair struct {
	public  ed25519.PublicKey
	private ed25519.PrivateKey
}

func newKeyPair(t *testing.T) keyPair {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{public, private}
}

func b64url(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// jwk is the public key (RFC 8037), with its members in the order of RFC 7638.
func (k keyPair) jwk() string { return `{"crv":"Ed25519","kty":"OKP","x":"` + b64url(k.public) + `"}` }

func (k keyPair) thumbprint() string {
	sum := sha256.Sum256([]byte(k.jwk()))
	return b64url(sum[:])
}

func (k keyPair) pem(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// jwt signs claims; header is what it has beside the algorithm.
func (k keyPair) jwt(t *testing.T, header string, claims map[string]any) string {
	t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	text := b64url([]byte(`{"alg":"EdDSA",`+header+`}`)) + "." + b64url(body)
	return text + "." + b64url(ed25519.Sign(k.private, []byte(text)))
}

const replayConfig = `version: v1
listeners:
  - {name: public, address: %[1]s, tls: {cert_file: server.pem, key_file: server.key}}
admin: {address: %[2]s}
authenticators:
  corp:
    jwt: {issuer: "https://idp.example", audiences: [orders], jwks_file: keys.json, dpop: {replay_redis: %[3]s}}
  partners:
    http_signature:
      consumers: [{subject: acme, keys: [{key_id: acme-1, public_key_file: acme.pem}]}]
      nonce: {required: true, replay_redis: %[3]s}
upstreams:
  api: {endpoints: [%[4]q]}
routes:
  - {name: orders, match: {path: "/v1/**"}, authenticate: [corp], upstream: api}
  - {name: signed, match: {path: "/signed/**"}, authenticate: [partners], upstream: api}
policy:
  entrypoint: gateway/decision
  paths: [policies]
`

// replayRights are what the documentation tells to give the gateway.
const replayRights = "~sallyport:* -@all +@connection +get +set"

// TestReplayAmongReplicas: a proof or a nonce that one gateway took, the other does not.
// Redis demands TLS and gives no more rights than the documentation asks for; while it is
// away, what would have to be told gets 503, and nothing that counted ever counts again.
func TestReplayAmongReplicas(t *testing.T) {
	if docs, err := os.ReadFile("../../../docs/accept-tokens-and-certificates.md"); err != nil || !strings.Contains(string(docs), replayRights) {
		t.Errorf("the documentation does not tell to give %s: %v", replayRights, err)
	}
	issuer, holder, acme := newKeyPair(t), newKeyPair(t), newKeyPair(t)
	a, b := newSite(t, paths), newSite(t, paths)
	b.ca = a.ca
	b.certificate(t, 101)
	dir := t.TempDir()
	cert, key := a.ca.issue(t, 102)
	write(t, dir+"/server.pem", cert)
	write(t, dir+"/server.key", key)
	redis := redistest.Start(t, dir, redistest.OverTLS+"user default off\nuser sallyport on >"+redistest.Password+" "+replayRights+"\n")
	for _, s := range []*site{a, b} {
		write(t, s.file("policies/gateway.rego"), "package gateway\n\ndecision := input.identity.authenticated\n")
		write(t, s.file("keys.json"), `{"keys":[`+issuer.jwk()+`]}`)
		write(t, s.file("acme.pem"), acme.pem(t))
		write(t, s.file("password"), redistest.Password+"\n")
		write(t, s.file("ca.pem"), s.ca.pem())
		write(t, s.file("sallyport.yaml"), fmt.Sprintf(replayConfig, s.addr, s.admin,
			"{address: "+redis.Address+", username: sallyport, password_file: password, tls: true, ca_file: ca.pem}", s.upstream.URL))
		s.start(t)
	}

	now := time.Now().Unix()
	token := issuer.jwt(t, `"typ":"at+jwt"`, map[string]any{
		"iss": "https://idp.example", "sub": "alice", "aud": "orders", "iat": now, "exp": now + 3600, "cnf": map[string]any{"jkt": holder.thumbprint()},
	})
	hash := sha256.Sum256([]byte(token))
	proof := func() map[string]string {
		return map[string]string{"Authorization": "DPoP " + token, "DPoP": holder.jwt(t, `"typ":"dpop+jwt","jwk":`+holder.jwk(), map[string]any{
			"jti": rand.Text(), "iat": time.Now().Unix(), "htm": "GET", "htu": "https://api.example/v1/orders", "ath": b64url(hash[:]),
		})}
	}
	signature := func() map[string]string {
		params := fmt.Sprintf(`("@method" "@authority" "@path" "@query");created=%d;keyid="acme-1";nonce="%s"`, time.Now().Unix(), rand.Text())
		base := "\"@method\": GET\n\"@authority\": api.example\n\"@path\": /signed/1\n\"@query\": ?\n\"@signature-params\": " + params
		value := base64.StdEncoding.EncodeToString(ed25519.Sign(acme.private, []byte(base)))
		return map[string]string{"Signature-Input": "sig1=" + params, "Signature": "sig1=:" + value + ":"}
	}
	ask := func(s *site, path string, headers map[string]string) int {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, "https://"+s.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "api.example" // as a load balancer hands it on
		for name, value := range headers {
			req.Header.Set(name, value)
		}
		c := oneConnection(s.ca.pool)()
		defer c.CloseIdleConnections()
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	kinds := map[string]func() map[string]string{"/v1/orders": proof, "/signed/1": signature}
	during := map[string]map[string]string{}
	before := map[string]map[string]string{}
	for path, fresh := range kinds {
		before[path], during[path] = fresh(), fresh()
		for i, step := range []struct {
			at   *site
			want int
		}{{a, 200}, {b, 401}, {a, 401}} {
			if got := ask(step.at, path, before[path]); got != step.want {
				t.Errorf("%s, step %d: %d, want %d", path, i, got, step.want)
			}
		}
		if got := ask(b, path, fresh()); got != 200 {
			t.Errorf("%s, another at the other: %d", path, got)
		}
	}
	redis.Kill()
	for path, fresh := range kinds {
		for _, headers := range []map[string]string{during[path], during[path], fresh()} {
			if got := ask(a, path, headers); got != 503 {
				t.Errorf("%s without Redis: %d, want 503", path, got)
			}
		}
	}
	if got := status("http://" + a.admin + "/readyz"); got != 200 {
		t.Errorf("without Redis readyz answers %d", got)
	}
	if log := a.gateway.stderr.String(); strings.Contains(log, redistest.Password) {
		t.Errorf("the log has the password:\n%s", log)
	}
	redis.Restart()
	for path := range kinds {
		eventually(t, 20*time.Second, path+" is taken again", func() bool { return ask(a, path, during[path]) == 200 })
		eventually(t, 20*time.Second, path+" is refused by the other", func() bool { return ask(b, path, during[path]) == 401 })
		if got := ask(b, path, before[path]); got != 401 {
			t.Errorf("%s, what counted before Redis died: %d, want 401", path, got)
		}
	}
}
