//go:build e2e

package e2e_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// edgeStack is a shop behind Ambassador Edge Stack: people log in, partners have API
// keys.
const edgeStack = `apiVersion: getambassador.io/v3alpha1
kind: Filter
metadata: {name: login, namespace: shop}
spec:
  OAuth2:
    authorizationURL: %[1]q
    clientID: web
    secret: a-secret-for-the-test-only
    protectedOrigins: [{origin: "https://%[2]s"}]
---
apiVersion: getambassador.io/v3alpha1
kind: Filter
metadata: {name: partners, namespace: shop}
spec:
  APIKey: {keys: [{secretName: partner-keys}]}
---
apiVersion: getambassador.io/v3alpha1
kind: Filter
metadata: {name: machines, namespace: shop}
spec:
  OAuth2: {authorizationURL: %[1]q, grantType: ClientCredentials, audience: shop}
---
apiVersion: v1
kind: Secret
metadata: {name: partner-keys, namespace: shop}
data: {acme: %[4]s}
---
apiVersion: getambassador.io/v3alpha1
kind: FilterPolicy
metadata: {name: policy, namespace: shop}
spec:
  rules:
    - {host: "*", path: /shop/account/*, filters: [{name: login, arguments: {scope: [email]}}]}
    - {host: "*", path: /shop/partners/*, filters: [{name: partners}]}
    - {host: "*", path: /shop/machines/*, filters: [{name: machines}]}
---
apiVersion: getambassador.io/v3alpha1
kind: TLSContext
metadata: {name: front, namespace: shop}
spec: {hosts: ["*"], secret: front}
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: shop, namespace: shop}
spec: {hostname: "*", prefix: /shop/, service: %[3]q}
`

// partnerKey is of a partner of the shop.
const partnerKey = "partner-key-0123456789abcdef"

// imported starts a gateway with what is imported from Edge Stack's shop, with nothing
// changed but the addresses: the files that it names are put there, and check passes.
// The provider knows the first of the origins, which are as Edge Stack has them.
func imported(t *testing.T, s *site, first, origins string) {
	t.Helper()
	issuer := identityProvider(t, first, nil).Issuer
	text := strings.Replace(edgeStack, `[{origin: "https://%[2]s"}]`, "%[2]s", 1)
	write(t, s.file("edge.yaml"), fmt.Sprintf(text, issuer, origins, s.upstream.URL, base64.StdEncoding.EncodeToString([]byte(partnerKey))))
	sallyport := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(binary(t), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("sallyport %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	said := sallyport("import", "edge-stack", "--dir", s.file("gateway"), s.file("edge.yaml"))
	for _, want := range []string{"secrets/front/tls.crt", "secrets/front/tls.key", "secrets/login/oauth2-client-secret", "secrets/login/session-key"} {
		if !strings.Contains(said, "\n  "+want+": ") {
			t.Errorf("the import does not ask for %s: %s", want, said)
		}
	}
	cert, private := s.ca.issue(t, 7)
	write(t, s.file("gateway/secrets/front/tls.crt"), cert)
	write(t, s.file("gateway/secrets/front/tls.key"), private)
	write(t, s.file("gateway/secrets/login/oauth2-client-secret"), "a-secret-for-the-test-only\n")
	write(t, s.file("gateway/secrets/login/session-key"), strings.Repeat("5e", 32)+"\n")
	config, err := os.ReadFile(s.file("gateway/sallyport.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.file("gateway/sallyport.yaml"), strings.Replace(string(config), "127.0.0.1:8080", s.addr, 1)+fmt.Sprintf("admin: {address: %s}\n", s.admin))
	sallyport("check", "-c", s.file("gateway/sallyport.yaml"))
	s.gateway = start(t, "serve", "-c", s.file("gateway/sallyport.yaml"))
	waitReady(t, s.admin)
}

// TestImportedOrigins: somebody logs in at a subdomain of what Edge Stack protected, by
// the redirect URI that the provider knew then, and is logged in at the origin itself.
func TestImportedOrigins(t *testing.T) {
	s := newSite(t, paths)
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	origin := "https://shop.test:" + port
	imported(t, s, origin, fmt.Sprintf(`[{origin: %q, includeSubdomains: true, allowedInternalOrigins: ["https://www.test:%s"]}]`, origin, port))
	p := s.named(t)
	for _, host := range []string{"a.shop.test", "shop.test"} {
		pg := p.LogIn(p.Get("https://"+host+":"+port+"/shop/account/orders?a=b"), host+":"+port)
		if path, _ := upstreamSees(t, pg); path != "/account/orders?a=b" || pg.URL.Host != host+":"+port || p.Logins != 1 {
			t.Errorf("%s: the upstream sees %s, the browser is at %s, asked for a name %d times", host, path, pg.URL, p.Logins)
		}
	}
	// A browser that gets past the gateway in front, at whose name it is not, begins a
	// login and cannot end it: cookies of shop.test are not for it.
	if pg := p.LogIn(p.Get("https://www.test:"+port+"/shop/account/orders"), "shop.test:"+port); pg.Status != 400 || pg.URL.Path != "/.ambassador/oauth2/redirection-endpoint" {
		t.Errorf("past the gateway in front: %d at %s", pg.Status, pg.URL)
	}
}

// TestImportedShop: somebody logs in at a certified provider, and a partner's key gets in.
func TestImportedShop(t *testing.T) {
	s := newSite(t, paths)
	imported(t, s, "https://"+s.addr, `[{origin: "https://`+s.addr+`"}]`)
	p := s.person(t)
	pg := p.Get("https://" + s.addr + "/shop/account/orders?a=b")
	if pg.URL.Host == s.addr {
		t.Fatalf("nobody is asked to log in: %d %s", pg.Status, pg.Text)
	}
	pg = p.LogIn(pg, s.addr)
	var echo struct {
		Path    string
		Headers map[string]string
	}
	if err := json.Unmarshal([]byte(pg.Text), &echo); err != nil || pg.Status != 200 || pg.URL.RequestURI() != "/shop/account/orders?a=b" {
		t.Fatalf("after the login %s answers %d: %s", pg.URL, pg.Status, pg.Text)
	}
	if echo.Path != "/account/orders?a=b" || !strings.HasPrefix(echo.Headers["Authorization"], "Bearer ") {
		t.Errorf("the upstream sees %s", pg.Text)
	}

	for text, want := range map[string]int{partnerKey: 200, "": 401, "partner-key-0123456789abcdeX": 401, fmt.Sprintf("%x", sha256.Sum256([]byte(partnerKey))): 401} {
		headers := map[string]string{"X-Api-Key": text}
		if text == "" {
			headers = nil
		}
		if status, seen := s.echoed(t, "/shop/partners/orders", headers); status != want || seen["X-Api-Key"] != "" {
			t.Errorf("key %q: status %d, want %d; the upstream sees %q", text, status, want, seen)
		}
	}
	if status, _ := s.echoed(t, "/shop/machines/orders", map[string]string{"X-Ambassador-Client-ID": "web", "X-Ambassador-Client-Secret": "wrong"}); status != 401 {
		t.Errorf("a machine that the provider does not know gets %d, want 401", status)
	}
	if status, _ := s.echoed(t, "/shop/machines/orders", map[string]string{"X-Api-Key": partnerKey}); status != 401 {
		t.Errorf("a partner's key gets %d where machines go, want 401", status)
	}
}
