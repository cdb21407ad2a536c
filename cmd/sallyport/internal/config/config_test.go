package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/config/strictyaml"
)

func none(string) (string, bool) { return "", false }

// whole has every section, with values unlike the defaults.
const whole = `version: v1
gateway: {name: edge, labels: {zone: eu}}
listeners:
  - name: public
    address: 127.0.0.1:8080
    tls: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, client_auth: optional, crl_files: [clients.crl]}
    trusted_proxies: [10.0.0.0/8]
    limits: {max_header_bytes: 16KiB, max_body_bytes: 1MiB, header_timeout: 2s, request_timeout: 30s, idle_timeout: 90s}
admin: {address: 127.0.0.1:9902}
authenticators:
  corp:
    jwt:
      issuer: https://idp.example
      audiences: [orders-api]
      jwks_url: https://idp.example/keys
      algorithms: [RS256]
      leeway: 10s
      required_claims: {tenant: [acme]}
  mesh: {mtls: {allowed_sans: ["spiffe://example.org/**"]}}
  anyone: {anonymous: {}}
upstreams:
  orders: {endpoints: [http://127.0.0.1:9000]}
routes:
  - name: orders
    match: {hosts: [api.example.com], path: "/v1/orders/**", methods: [GET, POST], headers: {x-tenant: acme}}
    authenticate: [corp, mesh, anyone]
    upstream: orders
    rewrite: {strip_prefix: /v1}
    entrypoint: orders/decision
    labels: {team: orders}
policy:
  entrypoint: gateway/decision
  dialect: sallyport
  paths: [./policies]
`

func TestParse(t *testing.T) {
	c, err := config.Parse("/etc/gw/sallyport.yaml", []byte(whole), none)
	if err != nil {
		t.Fatal(err)
	}
	l := c.Listeners[0]
	got := map[string]any{
		"paths":      c.Policy.Sources.Paths[0],
		"cert":       l.TLS.CertFile,
		"crl":        l.TLS.CRLFiles[0],
		"header":     int(l.Limits.MaxHeaderBytes),
		"idle":       l.Limits.IdleTimeout,
		"leeway":     c.Authenticators["corp"].JWT.Leeway,
		"cache":      c.Authenticators["corp"].JWT.CacheSize, // not in the file: its default
		"connect":    c.Upstreams["orders"].ConnectTimeout,   // likewise
		"decision":   c.Policy.Engine.DecisionTimeout,
		"entrypoint": c.Routes[0].Entrypoint,
		"admin":      c.Admin.Address,
	}
	want := map[string]any{
		"paths": "/etc/gw/policies", "cert": "/etc/gw/server.pem", "crl": "/etc/gw/clients.crl", "header": 16 << 10, "idle": 90 * time.Second,
		"leeway": 10 * time.Second, "cache": 65536, "connect": 5 * time.Second, "decision": 50 * time.Millisecond,
		"entrypoint": "orders/decision", "admin": "127.0.0.1:9902",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestSecretsComeFromTheEnvironmentAndNeverPrint(t *testing.T) {
	text := strings.Replace(whole, "  paths: [./policies]", `  opa: {services: {s: {url: "https://bundles.example", credentials: {bearer: {token: "${TOKEN}"}}}}, bundles: {b: {service: s}}}`+"\ntelemetry: {log: {level: noisy}}", 1)
	env := func(name string) (string, bool) { return "s3cret-" + name, true }
	_, err := config.Parse("c.yaml", []byte(text), env)
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("error %v; want one about the level and without the secret", err)
	}
	c, err := config.Parse("c.yaml", []byte(strings.Replace(text, "noisy", "warn", 1)), env)
	if err != nil {
		t.Fatal(err)
	}
	services := c.Policy.Sources.OPA["services"].(map[string]any)
	token := services["s"].(map[string]any)["credentials"].(map[string]any)["bearer"].(map[string]any)["token"]
	if token != "s3cret-TOKEN" {
		t.Errorf("token %v, want the variable's value", token)
	}
	if strings.Contains(string(c.Text), "s3cret") {
		t.Error("the text of the file holds the secret")
	}
}

// TestMistakesAcrossSections: each section is right by itself.
func TestMistakesAcrossSections(t *testing.T) {
	for name, c := range map[string]struct{ old, next, want string }{
		"port":                {"127.0.0.1:8080", "127.0.0.1:80800", `c.yaml:5: listeners[0].address: "127.0.0.1:80800" has no port between 0 and 65535`},
		"admin port":          {"127.0.0.1:9902", "127.0.0.1:-1", `c.yaml:9: admin.address: "127.0.0.1:-1" has no port between 0 and 65535`},
		"no policy":           {"  paths: [./policies]\n", "", "c.yaml:31: policy: has neither paths nor opa: every request would be answered with 503"},
		"nobody is asked for": {", client_ca_file: ca.pem, client_auth: optional, crl_files: [clients.crl]", "", "c.yaml:19: authenticators.mesh.mtls: no listener asks for client certificates: set tls.client_auth and tls.client_ca_file of one"},
	} {
		_, err := config.Parse("c.yaml", []byte(strings.Replace(whole, c.old, c.next, 1)), none)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

// TestUnreadableFileIsOneProblem: nothing is said of values that nobody could read.
func TestUnreadableFileIsOneProblem(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "the file is empty",
		"version: v1\nlisteners: [\n": "not valid YAML",
	} {
		if _, err := config.Parse("c.yaml", []byte(text), none); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %v, want %s alone", text, err, want)
		}
	}
}

// TestDocumentation decodes every piece of configuration in the documentation:
// whole files must be valid, pieces must have no key that is not known.
func TestDocumentation(t *testing.T) {
	pages, err := filepath.Glob("../../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, page := range append(pages, "../../../../README.md") {
		if filepath.Base(page) == "run-on-kubernetes.md" {
			continue // its pieces are values of the chart, which has tests of its own
		}
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, piece := range strings.Split(string(data), "```yaml\n")[1:] {
			n++
			piece, _, _ = strings.Cut(piece, "```")
			check(t, filepath.Base(page), piece)
		}
	}
	if n < 5 {
		t.Errorf("found %d pieces of configuration; the search is wrong", n)
	}
}

func check(t *testing.T, page, piece string) {
	t.Helper()
	env := func(string) (string, bool) { return "x", true }
	_, err := config.Parse(page, []byte(piece), env)
	if strings.HasPrefix(piece, "version:") && err != nil {
		t.Errorf("%v", err)
	}
	var c config.Config
	if _, err := strictyaml.Decode(page, []byte(piece), env, &c); err != nil {
		t.Errorf("%v in:\n%s", err, piece)
	}
}

func TestOutboundProblems(t *testing.T) {
	text := strings.Replace(whole, "    labels: {team: orders}\n", `    upstream_headers:
      - {name: X-Good, value: "{{ .token.Claims.sub }}"}
      - {name: X-Bad, value: "{{ .token"}
      - name: x-gateway
        value: a
    identity_token: {}
    error_response:
      body_template: |
        {{ nosuch }}
`, 1) + `identity_token: {header: X-Gateway}
`
	_, err := config.Parse("gw.yaml", []byte(text), none)
	var got []string
	for line := range strings.Lines(err.Error()) {
		got = append(got, strings.TrimSpace(line))
	}
	want := []string{
		`gw.yaml:32: routes[0].upstream_headers[1].value: 1: unclosed action`,
		`gw.yaml:37: routes[0].error_response.body_template: 1: function "nosuch" not defined`,
		`gw.yaml:43: identity_token.issuer: is missing: it is what upstreams know the gateway by`,
		`gw.yaml:33: routes[0].upstream_headers[2].name: x-gateway is what identity_token sets`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	text = strings.Replace(whole, "    labels: {team: orders}\n", "    identity_token: {}\n", 1)
	if _, err = config.Parse("gw.yaml", []byte(text), none); err == nil || !strings.Contains(err.Error(), "routes[0].identity_token: needs the section identity_token") {
		t.Errorf("got %v", err)
	}
	for change, want := range map[string]string{
		"    upstream_authorization: exchange\n":                                             "upstream_authorization: exchange needs token_exchange",
		"    upstream_authorization: client_credentials\n":                                   "upstream_authorization: client_credentials needs the key client_credentials",
		"    upstream_authorization: all\n":                                                  `upstream_authorization: "all" is not known`,
		"    upstream_authorization: token\n    forward_credentials: true\n":                 "upstream_authorization: token and forward_credentials: true say two things",
		"    token_exchange: nobody\n":                                                       `token_exchange: no exchange of token_exchanges is named "nobody"`,
		"    client_credentials: nobody\n":                                                   `client_credentials: no entry of client_credentials is named "nobody"`,
		"    upstream_authorization: token\n    upstream_headers: [{name: Authorization}]\n": "upstream_headers[0].name: authorization is what upstream_authorization sets",
	} {
		text := strings.Replace(whole, "    labels: {team: orders}\n", change, 1)
		if _, err := config.Parse("gw.yaml", []byte(text), none); err == nil || !strings.Contains(err.Error(), "routes[0]."+want) {
			t.Errorf("%s: got %v", change, err)
		}
	}
	_, err = config.Parse("gw.yaml", []byte(whole+"token_exchanges: {sts: {url: 'http://idp.example', client_id: a, client_secret_file: none}}\n"), none)
	for _, want := range []string{"gw.yaml:35: token_exchanges.sts.url: is http to a host", "gw.yaml:35: token_exchanges.sts.client_secret_file: read client secret"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
