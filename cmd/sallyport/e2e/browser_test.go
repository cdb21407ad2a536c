//go:build e2e

package e2e_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const browserPolicy = `package gateway

default decision := {"allow": false}

decision := {"allow": true} if startswith(input.request.path, "/public/")

decision := answer if {
	input.identity.authenticated
	not startswith(input.request.path, "/public/")
}

answer := {"allow": false, "challenge": {"acr_values": "mfa"}} if {
	startswith(input.request.path, "/app/secure")
	object.get(input.identity.claims, "acr", "") != "mfa"
} else := {"allow": true, "upstream": {"set_headers": {"x-user": input.identity.subject}}}
`

// chromium returns the browser's path. It may be absent on somebody's own machine.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("there is no Chromium; `.ci/deps e2e` installs it")
	}
	t.Skip("there is no Chromium; `.ci/deps e2e` installs it")
	return ""
}

var appPage = template.Must(template.New("app").Parse(`<!doctype html>
<html lang="en"><title>app</title>
<p id="user">{{.User}}</p><p id="query">{{.Query}}</p><p id="cookies">{{.Cookies}}</p>
<p><a href="/oauth2/logout">Log out</a></p>
<button id="out">Log out by script</button>
<script>
document.getElementById('out').onclick = async () => {
  const { token } = await (await fetch('/oauth2/logout', { headers: { accept: 'application/json' } })).json();
  const form = Object.assign(document.createElement('form'), { method: 'post', action: '/oauth2/logout' });
  form.append(Object.assign(document.createElement('input'), { name: 'token', value: token }));
  document.body.append(form);
  form.submit();
};
</script>
{{range .Pictures}}<img src="/app/picture?{{.}}" alt="">{{end}}
</html>`))

// app is the upstream: a page that shows what it was sent, and one of many parts.
func app(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/app/picture" {
		w.Header().Set("Content-Type", "image/svg+xml")
		_, _ = w.Write([]byte(`<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>`))
		return
	}
	data := struct {
		User, Query, Cookies string
		Pictures             []int
	}{User: r.Header.Get("X-User"), Query: r.URL.RawQuery, Cookies: r.Header.Get("Cookie")}
	if r.URL.Path == "/app/many" {
		for i := range 30 {
			data.Pictures = append(data.Pictures, i)
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = appPage.Execute(w, data) // the browser sees what is missing
}

// acmeStyle is what an operator adds: a rule, and a picture.
const acmeStyle = `h1 { text-transform: uppercase }
body::after { content: url("data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='7' height='7'/%3E") }
`

// guestsPage is a template with what the gateway's content security policy forbids.
const guestsPage = `<!doctype html>
<html lang="{{.Language}}">
<head><meta charset="utf-8"><title>{{.Title}}</title><link rel="icon" href="data:,">{{.Style}}
<script>document.title = 'a script ran'</script></head>
<body onload="document.title = 'a handler ran'"><main><h1 style="color: red">{{.Title}}</h1><p>{{.Body}}</p>
{{range .Choices}}<p><a href="{{.Link}}">{{.Label}}</a></p>{{end}}
{{if .Action}}<form method="post" action="{{.Action}}"><input type="hidden" name="token" value="{{.Token}}"><button>{{.Button}}</button></form>{{end}}
</main></body></html>
`

// browserSite is what a scenario is told.
type browserSite struct {
	Chromium  string   `json:"chromium"`
	Origin    string   `json:"origin"`
	Key       string   `json:"key"`       // of the gateway's certificate: base64 of its SHA-256
	Providers []string `json:"providers"` // issuers
	TTL       int      `json:"ttl"`       // of the first one's access tokens, in seconds
	Bye       string   `json:"bye"`       // where the second one has browsers go after a logout
	Shop      string   `json:"shop"`      // an origin that shares a login with its subdomains
}

// newBrowserSite is a gateway with two providers, which browsers know by a name that
// is not loopback's: what they allow loopback must not matter.
func newBrowserSite(t *testing.T) browserSite {
	t.Helper()
	out := browserSite{Chromium: chromium(t), TTL: 11}
	s := newSite(t, paths)
	upstream := httptest.NewServer(http.HandlerFunc(app))
	t.Cleanup(upstream.Close)
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	out.Origin = "https://app.test:" + port
	out.Bye = "https://www.test:" + port + "/public/bye"
	corp := identityProvider(t, out.Origin, map[string]any{"tells": "https://" + s.addr, "ttl": out.TTL, "rotates": true}).Issuer
	partner := identityProvider(t, out.Origin, map[string]any{"under": "/partner", "tells": "https://" + s.addr, "bye": out.Bye, "asks": false}).Issuer
	out.Shop = "https://shop.test:" + port
	shared := identityProvider(t, out.Shop, map[string]any{"under": "/shared", "tells": "https://" + s.addr, "ttl": 600}).Issuer
	out.Providers = []string{corp, partner, shared}
	write(t, s.file("secret"), "a-secret-for-the-test-only\n")
	write(t, s.file("key"), strings.Repeat("5e", 32)+"\n")
	write(t, s.file("policies/gateway.rego"), browserPolicy)
	write(t, s.file("logo.svg"), `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" width="9" height="9"><circle cx="4" cy="4" r="4"/></svg>`)
	write(t, s.file("acme.css"), acmeStyle)
	write(t, s.file("page.html"), guestsPage)
	write(t, s.file("sallyport.yaml"), fmt.Sprintf(`version: v1
listeners:
  - name: public
    address: %s
    tls: {cert_file: server.pem, key_file: server.key}
admin: {address: %s}
authenticators:
  anyone: {anonymous: {}}
  corp:
    oidc: {issuer: %q, client_id: web, client_secret_file: secret, display_name: Staff, concurrent_logins: 5, pushed_authorization_requests: "off", post_logout_redirect: /public/bye, session: {keys_files: [key]}}
  partner:
    oidc:
      issuer: %q
      client_id: web
      client_secret_file: secret
      redirect_path: /partner/callback
      display_name: Partners & guests of the Donaudampfschifffahrtsgesellschaftskapitänswitwenrentenauszahlungsstelle
      post_logout_redirect: %s
      session: {keys_files: [key]}
      pages:
        title: Acme & Söhne
        logo_file: logo.svg
        style_file: acme.css
        footer: "Hilfe: Durchwahl 42"
        language: de
        texts: {choose_title: Anmelden, choose_body: "Wo möchten Sie sich anmelden?"}
  guests:
    oidc:
      issuer: %q
      client_id: web
      client_secret_file: secret
      redirect_path: /guests/callback
      session: {keys_files: [key]}
      pages: {template_file: page.html}
  shared:
    oidc:
      issuer: %q
      client_id: web
      client_secret_file: secret
      redirect_path: /shared/callback
      origins: [%q, %q]
      redirect_origin: %[8]q
      post_logout_redirect: %[8]s/public/bye
      session: {keys_files: [key], cookie_domain: shop.test}
upstreams:
  app: {endpoints: [%[10]s]}
routes:
  - {name: public, match: {path: "/public/**"}, authenticate: [anyone], upstream: app}
  - {name: shop, match: {hosts: [shop.test, "*.shop.test"], path: "/**"}, authenticate: [shared], upstream: app}
  - {name: choice, match: {path: "/choice/**"}, authenticate: [corp, partner], upstream: app}
  - {name: themed, match: {path: "/themed/**"}, authenticate: [partner, corp], upstream: app}
  - {name: templated, match: {path: "/templated/**"}, authenticate: [guests, corp], upstream: app}
  - {name: partners, match: {path: "/partners/**"}, authenticate: [partner], upstream: app}
  - {name: app, match: {path: "/**"}, authenticate: [corp], upstream: app}
policy:
  entrypoint: gateway/decision
  paths: [policies]
`, s.addr, s.admin, corp, partner, out.Bye, partner, shared, out.Shop, strings.Replace(out.Shop, "//", "//*.", 1), upstream.URL))
	out.Key = publicKey(t, s.file("server.pem"))
	s.start(t)
	return out
}

// publicKey returns the base64 of the SHA-256 of a certificate's public key.
func publicKey(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("%s is not PEM", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// TestBrowser has a real browser log in and out: each scenario is a script of
// testdata/browser, which says what has to hold.
func TestBrowser(t *testing.T) {
	site := newBrowserSite(t)
	node := nodeFor(t)
	text, err := json.Marshal(site)
	if err != nil {
		t.Fatal(err)
	}
	for _, scenario := range []string{"login", "refresh", "stepup", "logout", "tabs", "pages", "subdomains"} {
		t.Run(scenario, func(t *testing.T) {
			begin := time.Now()
			cmd := exec.CommandContext(t.Context(), node, scenario+".mjs")
			cmd.Dir = filepath.Join("testdata", "browser")
			cmd.Env = append(os.Environ(), "SITE="+string(text))
			var stderr output
			cmd.Stderr = &stderr
			stdout, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, stderr.String())
			}
			var said struct{ Assertions int }
			if err := json.Unmarshal(stdout, &said); err != nil || said.Assertions == 0 {
				t.Fatalf("the scenario said %q: %v", stdout, err)
			}
			t.Logf("%d assertions in %v", said.Assertions, time.Since(begin).Round(time.Millisecond))
		})
	}
}
