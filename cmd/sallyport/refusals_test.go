package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// TestRefusals: the page that explains refusals has the words of the log.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"sallyport.yaml": `version: v1
listeners: [{name: public, address: "127.0.0.1:8080"}]
authenticators:
  corp: {jwt: {issuer: https://idp.example, audiences: [orders-api], jwks_file: jwks.json, algorithms: [RS256]}}
upstreams: {api: {endpoints: ["http://127.0.0.1:9000"]}}
routes:
  - {name: all, match: {path: "/**"}, authenticate: [corp], upstream: api, require: {scopes: [orders.read]}}
policy: {paths: [policies], decision_timeout: 10s}
`,
		"jwks.json": string(providerKeys(t)), "policies/gateway.rego": "package gateway\n\ndecision := true\n",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		certstest.Write(t, path, []byte(text))
	}
	good := map[string]any{"iss": "https://idp.example", "aud": "orders-api", "sub": "alice", "exp": 1, "iat": 1, "scope": "orders.read"}
	token := func(by change) string { return signed(t, "at+jwt", changed(good, by)) }
	another := token(nil)
	page, err := os.ReadFile(filepath.Join(pagesDir, "why-was-it-refused.md"))
	if err != nil {
		t.Fatal(err)
	}
	unsigned := func(header string) string {
		return b64([]byte(header)) + "." + b64(encode(t, changed(good, nil))) + "."
	}
	rows := 0
	for name, tt := range map[string]struct {
		token string
		error string // what the page has in its table, between backquotes
	}{
		"no token":                 {"", "request carries no credential"},
		"another issuer":           {token(change{"iss": "https://idp.example/"}), "it belongs to another authenticator: issuer"},
		"opaque":                   {"2YotnFZFEjr1zCsicMWpAA", "it belongs to another authenticator: malformed"},
		"another audience":         {token(change{"aud": "account"}), "token is for audience"},
		"expired":                  {token(change{"exp": time.Now().Add(-time.Hour).Unix()}), "expired at"},
		"of the future":            {token(change{"iat": time.Now().Add(time.Hour).Unix()}), "is in the future"},
		"without end":              {token(change{"exp": without}), "exp is missing"},
		"logout token":             {signed(t, "logout+jwt", changed(good, nil)), "token type"},
		"ID token":                 {signed(t, "JWT", changed(good, change{"at_hash": "x"})), "shows that this is not an access token"},
		"another algorithm":        {unsigned(`{"alg":"ES256","kid":"test"}`) + "AAAA", "is not accepted"},
		"none":                     {unsigned(`{"alg":"none"}`), "is not accepted"},
		"unknown key":              {unsigned(`{"alg":"RS256","kid":"other"}`) + "AAAA", "key set has no key for this token"},
		"changed":                  {another[:len(another)-8] + "AAAAAAAA", "signature does not match"},
		"bound to a key":           {token(change{"cnf": change{"jkt": strings.Repeat("A", 43)}}), "token is bound to a key and came with the Bearer scheme"},
		"bound to a certificate":   {token(change{"cnf": change{"x5t#S256": strings.Repeat("A", 43)}}), "token is bound to a client certificate, and the connection has none"},
		"without a required scope": {token(change{"scope": "orders.write"}), "a required scope is missing"},
	} {
		args := []string{"explain", "-c", filepath.Join(dir, "sallyport.yaml"), "GET", "http://127.0.0.1:8080/x"}
		if tt.token != "" {
			args = append(args, "--token", tt.token)
		}
		out := sallyport(t, args...)
		_, because, _ := strings.Cut(out, "\nbecause: ")
		because, _, _ = strings.Cut(because, "\n")
		if !strings.Contains(because, tt.error) {
			t.Errorf("%s: refused because of %q, want %q", name, because, tt.error)
		}
		if !strings.Contains(string(page), "`"+tt.error+"`") {
			t.Errorf("%s: the page lacks %q", name, tt.error)
		}
		rows++
	}
	_, table, _ := strings.Cut(string(page), "|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	if got := strings.Count(table, "\n") + 1; got != rows-1 { // two tokens are of one row
		t.Errorf("the page has %d rows, and %d are looked at", got, rows-1)
	}
	if out := sallyport(t, "explain", "-c", filepath.Join(dir, "sallyport.yaml"), "GET", "http://127.0.0.1:8080/x", "--token", another); !strings.HasPrefix(out, "outcome: allowed") {
		t.Errorf("the good token: %.200s", out)
	}
}
