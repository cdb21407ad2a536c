package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/rego"
	"go.yaml.in/yaml/v3"

	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

const providersDir = "../../docs/providers"

// providerPage is what a page about an identity provider tells its reader to use.
type providerPage struct {
	text   string
	config map[string]any   // the whole file
	pieces []map[string]any // parts of another
	policy string
	claims map[string]any // of the token that is shown
}

// blocks returns what a page has of one language.
func blocks(text, language string) []string {
	pieces := strings.Split(text, "```"+language+"\n")[1:]
	for i, p := range pieces {
		pieces[i], _, _ = strings.Cut(p, "```")
	}
	return pieces
}

func readPage(t *testing.T, name string) *providerPage {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(providersDir, name+".md"))
	if err != nil {
		t.Fatal(err)
	}
	p := &providerPage{text: string(data)}
	for _, b := range blocks(p.text, "yaml") {
		var c map[string]any
		if err := yaml.Unmarshal([]byte(b), &c); err != nil {
			t.Fatal(err)
		}
		if c["version"] != nil {
			p.config = c
		} else {
			p.pieces = append(p.pieces, c)
		}
	}
	policies, tokens := blocks(p.text, "rego"), blocks(p.text, "json")
	if p.config == nil || len(policies) != 1 || len(tokens) != 1 {
		t.Fatalf("%s has %d policies and %d tokens, want one each, and a whole configuration", name, len(policies), len(tokens))
	}
	p.policy = policies[0]
	if err := json.Unmarshal([]byte(tokens[0]), &p.claims); err != nil {
		t.Fatal(err)
	}
	return p
}

// add puts the authenticators of a piece beside the others.
func (p *providerPage) add(piece map[string]any) {
	maps.Copy(p.config["authenticators"].(map[string]any), piece["authenticators"].(map[string]any))
}

// write makes the folder that the reader of a page would have.
func (p *providerPage) write(t *testing.T, config map[string]any, jwks []byte) (file string) {
	t.Helper()
	dir := t.TempDir()
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"sallyport.yaml": text, "policies/gateway.rego": []byte(p.policy), "jwks.json": jwks,
		"client-secret": []byte("a-secret\n"), "session.key": []byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)) + "\n"),
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	own := certstest.NewCA(t, "gateway").Issue(t, "gateway", nil)
	certstest.WritePair(t, own, filepath.Join(dir, "gateway.pem"), filepath.Join(dir, "gateway.key"))
	return filepath.Join(dir, "sallyport.yaml")
}

// sallyport runs a verb and returns what it prints.
func sallyport(t *testing.T, args ...string) string {
	t.Helper()
	out, problems := tryVerb(t, args...)
	if problems != "" {
		t.Fatalf("sallyport %s: %s", strings.Join(args, " "), problems)
	}
	return out
}

// tryVerb runs a verb and returns what it prints, and what it ended with if that is
// an error.
func tryVerb(t *testing.T, args ...string) (out, problems string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := root()
	cmd.SetArgs(args)
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		problems = err.Error() + "\n" + stderr.String()
	}
	return stdout.String(), problems
}

func providerNames(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob(filepath.Join(providersDir, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, page := range pages {
		if name := strings.TrimSuffix(filepath.Base(page), ".md"); name != "README" {
			names = append(names, name)
		}
	}
	if len(names) < 6 {
		t.Fatalf("found pages of %v alone; the search is wrong", names)
	}
	return names
}

// TestProviderPages: what the pages about providers have of configuration and policy
// is what check has nothing to say against.
func TestProviderPages(t *testing.T) {
	for _, name := range providerNames(t) {
		t.Run(name, func(t *testing.T) {
			p := readPage(t, name)
			sallyport(t, "check", "-c", p.write(t, p.config, nil))
			for _, piece := range p.pieces {
				p.add(piece)
				sallyport(t, "check", "-c", p.write(t, p.config, nil))
			}
		})
	}
}

var providerKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func providerKeys(t *testing.T) []byte {
	t.Helper()
	k := providerKey()
	return encode(t, map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "kid": "test", "alg": "RS256", "use": "sig", "n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes()),
	}}})
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// signed is the token with these claims, good now. A typ of "" leaves it out.
func signed(t *testing.T, typ string, claims map[string]any) string {
	t.Helper()
	head := map[string]any{"alg": "RS256", "kid": "test", "typ": typ}
	if typ == "" {
		delete(head, "typ")
	}
	text := b64(encode(t, head)) + "." + b64(encode(t, claims))
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, providerKey(), crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(sig)
}

// withKeys is the page's configuration with keys of the test in place of those that the
// provider publishes. Nobody logs in, so that no provider is asked.
func (p *providerPage) withKeys(t *testing.T) map[string]any {
	t.Helper()
	tokens, route := map[string]any{}, []any{}
	for name, a := range p.config["authenticators"].(map[string]any) {
		settings, is := a.(map[string]any)["jwt"].(map[string]any)
		if !is {
			continue
		}
		settings = maps.Clone(settings)
		settings["jwks_file"] = "jwks.json"
		delete(settings, "jwks_url")
		tokens[name] = map[string]any{"jwt": settings}
		route = append(route, name)
	}
	config := maps.Clone(p.config)
	first := maps.Clone(config["routes"].([]any)[0].(map[string]any))
	first["authenticate"] = route
	config["authenticators"], config["routes"] = tokens, []any{first}
	// What is judged here is the answer, not the time that a busy machine takes for it.
	config["policy"] = map[string]any{"paths": []any{"policies"}, "decision_timeout": "10s"}
	return config
}

type change = map[string]any

// without is the claim left out.
var without = struct{}{}

func changed(claims map[string]any, by change) map[string]any {
	out := maps.Clone(claims)
	now := time.Now().Unix()
	for name, at := range map[string]int64{"iat": now - 60, "nbf": now - 60, "exp": now + 600, "auth_time": now - 120} {
		if _, there := out[name]; there {
			out[name] = at
		}
	}
	for name, value := range by {
		if out[name] = value; value == without {
			delete(out, name)
		}
	}
	return out
}

// TestProviderTokens sends tokens like the one that a page shows through its
// configuration and its policy.
func TestProviderTokens(t *testing.T) {
	type words = []any
	for _, tc := range []struct {
		page, name, typ, method string
		change                  change
		want                    string // outcome
		says                    string // of the reason, which the page quotes
	}{
		{"keycloak", "reader", "JWT", "GET", nil, "allowed", ""},
		{"keycloak", "reader, RFC 9068", "at+jwt", "GET", nil, "allowed", ""},
		{"keycloak", "reader writes", "JWT", "POST", nil, "denied", ""},
		{"keycloak", "writer", "JWT", "POST", change{"resource_access": change{"orders-api": change{"roles": words{"writer"}}}}, "allowed", ""},
		{"keycloak", "writer of another client", "JWT", "POST", change{"resource_access": change{"web": change{"roles": words{"writer"}}}}, "denied", ""},
		{"keycloak", "writer of the realm", "JWT", "POST", change{"realm_access": change{"roles": words{"writer"}}}, "denied", ""},
		{"keycloak", "no roles", "JWT", "GET", change{"resource_access": without}, "denied", ""},
		{"keycloak", "no mapper", "JWT", "GET", change{"aud": "account"}, "unauthenticated", "token is for audience"},
		{"keycloak", "ID token", "JWT", "GET", change{"aud": "web", "at_hash": "x"}, "unauthenticated", ""},

		{"okta", "scope and group", "JWT", "GET", change{"groups": words{"Everyone", "Orders"}}, "allowed", ""},
		{"okta", "scope alone", "JWT", "GET", change{"groups": words{"Everyone"}}, "denied", ""},
		{"okta", "group alone", "JWT", "POST", nil, "denied", ""},
		{"okta", "program", "JWT", "GET", change{"cid": "0oabatch0000000000h7", "groups": without, "scp": words{"orders.read"}}, "allowed", ""},
		{"okta", "program without the scope", "JWT", "POST", change{"cid": "0oabatch0000000000h7", "groups": without, "scp": words{"orders.read"}}, "denied", ""},
		{"okta", "another program", "JWT", "GET", change{"cid": "0oaother0000000000h7", "groups": without, "scp": words{"orders.read"}}, "denied", ""},
		{"okta", "org server", "JWT", "GET", change{"iss": "https://acme.okta.com", "aud": "https://acme.okta.com"}, "unauthenticated", ""},
		{"okta", "default audience", "JWT", "GET", change{"aud": "api://default"}, "unauthenticated", ""},

		{"auth0", "permission", "JWT", "GET", nil, "allowed", ""},
		{"auth0", "RFC 9068 profile", "at+jwt", "GET", change{"azp": without, "client_id": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja", "jti": "73WakrfVbNJBaAmhQtEeDv"}, "allowed", ""},
		{"auth0", "permission to read writes", "JWT", "POST", nil, "denied", ""},
		{"auth0", "scope without permission", "JWT", "POST", change{"scope": "openid write:orders"}, "denied", ""},
		{"auth0", "no RBAC", "JWT", "GET", change{"permissions": without}, "denied", ""},
		{"auth0", "for userinfo alone", "JWT", "GET", change{"aud": "https://acme.eu.auth0.com/userinfo"}, "unauthenticated", ""},
		{"auth0", "issuer without the slash", "JWT", "GET", change{"iss": "https://acme.eu.auth0.com"}, "unauthenticated", ""},

		{"entra-id", "user reads", "JWT", "GET", nil, "allowed", ""},
		{"entra-id", "user reads without the scope", "JWT", "GET", change{"scp": "User.Read"}, "denied", ""},
		{"entra-id", "user writes", "JWT", "POST", nil, "denied", ""},
		{"entra-id", "writer whose client may read", "JWT", "POST", change{"roles": words{"Orders.Writer"}}, "denied", ""},
		{"entra-id", "writer", "JWT", "POST", change{"roles": words{"Orders.Writer"}, "scp": "orders.read orders.write"}, "allowed", ""},
		{"entra-id", "program", "JWT", "POST", change{"roles": words{"Orders.Writer"}, "scp": without}, "allowed", ""},
		{"entra-id", "program without a role", "JWT", "GET", change{"roles": without, "scp": without}, "denied", ""},
		{"entra-id", "group", "JWT", "POST", change{"roles": without, "scp": "orders.write", "groups": words{"a0b1c2d3-0000-4444-8888-111122223333"}}, "allowed", ""},
		{
			"entra-id", "too many groups", "JWT", "POST", change{
				"roles": without, "scp": "orders.write", "_claim_names": change{"groups": "src1"}, "_claim_sources": change{"src1": change{"endpoint": "https://graph.windows.net/x"}},
			}, "denied", "has too many groups for a token",
		},
		{
			"entra-id", "too many groups, and a role", "JWT", "POST", change{
				"roles": words{"Orders.Writer"}, "scp": "orders.write", "_claim_names": change{"groups": "src1"}, "_claim_sources": change{"src1": change{"endpoint": "https://graph.windows.net/x"}},
			}, "allowed", "",
		},
		{"entra-id", "version 1", "JWT", "GET", change{"iss": "https://sts.windows.net/8eaef023-2b34-4da1-9baa-8bc8c9d6a490/", "ver": "1.0"}, "unauthenticated", ""},
		{"entra-id", "another tenant", "JWT", "GET", change{"iss": "https://login.microsoftonline.com/82229342-1101-4ab6-817b-70c0747630f3/v2.0"}, "unauthenticated", ""},
		{"entra-id", "for Graph", "JWT", "GET", change{"aud": "00000003-0000-0000-c000-000000000000"}, "unauthenticated", ""},

		{"google", "service account", "JWT", "GET", nil, "allowed", ""},
		{"google", "service account that may not write", "JWT", "POST", nil, "denied", ""},
		{"google", "service account that may", "JWT", "POST", change{"email": "import@shop.iam.gserviceaccount.com"}, "allowed", ""},
		{"google", "somebody's service account", "JWT", "GET", change{"email": "batch@evil.iam.gserviceaccount.com"}, "denied", ""},
		{"google", "no mail", "JWT", "GET", change{"email": without, "email_verified": without}, "denied", ""},
		{"google", "mail not verified", "JWT", "GET", change{"email_verified": false}, "denied", ""},
		{"google", "for another service", "JWT", "GET", change{"aud": "https://other.example.com"}, "unauthenticated", ""},
		{"google", "of a login", "JWT", "GET", change{"at_hash": "x"}, "unauthenticated", `claim "at_hash" shows that this is not an access token`},
		{"google", "old issuer", "JWT", "GET", change{"iss": "accounts.google.com"}, "unauthenticated", ""},

		{"dex", "both groups write", "", "POST", nil, "allowed", ""},
		{"dex", "developer reads", "", "GET", change{"groups": words{"developers"}}, "allowed", ""},
		{"dex", "developer writes", "", "POST", change{"groups": words{"developers"}}, "denied", ""},
		{"dex", "no groups", "", "GET", change{"groups": without}, "denied", ""},
		{"dex", "of a login at another client", "", "GET", change{"aud": "web"}, "unauthenticated", "token is for audience"},
		{"dex", "logout token", "", "GET", change{"events": change{}}, "unauthenticated", ""},
	} {
		t.Run(tc.page+"/"+tc.name, func(t *testing.T) {
			p := readPage(t, tc.page)
			outcome, all := p.judge(t, tc.method, signed(t, tc.typ, changed(p.claims, tc.change)))
			if outcome != tc.want || !strings.Contains(all, strings.ReplaceAll(tc.says, `"`, `\"`)) {
				t.Errorf("%s, want %s and %q:\n%s", outcome, tc.want, tc.says, all)
			}
		})
	}
}

// judge returns what becomes of a request with the token, and all that is said of it.
func (p *providerPage) judge(t *testing.T, method, token string) (outcome, all string) {
	t.Helper()
	file := p.write(t, p.withKeys(t), providerKeys(t))
	all = sallyport(t, "explain", "-c", file, "--format", "json", "--token", token, method, "http://127.0.0.1:8080/orders/1")
	var e explained
	if err := json.Unmarshal([]byte(all), &e); err != nil {
		t.Fatal(err)
	}
	return string(e.Outcome), all
}

// TestEntraVersions: with the page's piece for v1.0, tokens of both versions are taken,
// each with the audience and the issuer of its own.
func TestEntraVersions(t *testing.T) {
	const v1, uri = "https://sts.windows.net/8eaef023-2b34-4da1-9baa-8bc8c9d6a490/", "api://00001111-aaaa-2222-bbbb-3333cccc4444"
	for _, tc := range []struct {
		name   string
		change change
		want   string
	}{
		{"2.0", nil, "allowed"},
		{"1.0", change{"iss": v1, "aud": uri, "ver": "1.0", "azp": without, "appid": "11112222-bbbb-3333-cccc-4444dddd5555"}, "allowed"},
		{"1.0 for another API", change{"iss": v1, "aud": "api://other", "ver": "1.0"}, "unauthenticated"},
		{"2.0 with the audience of 1.0", change{"aud": uri}, "unauthenticated"},
		{"1.0 without the slash", change{"iss": strings.TrimSuffix(v1, "/"), "aud": uri}, "unauthenticated"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := readPage(t, "entra-id")
			for _, piece := range p.pieces {
				p.add(piece)
			}
			if outcome, all := p.judge(t, "GET", signed(t, "JWT", changed(p.claims, tc.change))); outcome != tc.want {
				t.Errorf("%s, want %s:\n%s", outcome, tc.want, all)
			}
		})
	}
}

// TestProviderLogins asks the policies about people who logged in: their claims are
// those of the ID token, which are others than those of access tokens.
func TestProviderLogins(t *testing.T) {
	type words = []any
	for _, tc := range []struct {
		page, name, method string
		claims             change
		want               bool
	}{
		{"keycloak", "roles added to the ID token", "GET", change{"sub": "a", "resource_access": change{"orders-api": change{"roles": words{"reader"}}}}, true},
		{"keycloak", "roles not added", "GET", change{"sub": "a"}, false},
		{"okta", "group", "POST", change{"sub": "00u", "groups": words{"Everyone", "Orders"}}, true},
		{"okta", "no group", "GET", change{"sub": "00u", "groups": words{"Everyone"}}, false},
		{"auth0", "role", "POST", change{"sub": "auth0|1", "https://app.example.com/roles": words{"writer"}}, true},
		{"auth0", "role to read", "POST", change{"sub": "auth0|1", "https://app.example.com/roles": words{"reader"}}, false},
		{"auth0", "role without namespace", "GET", change{"sub": "auth0|1", "roles": words{"writer"}}, false},
		{"auth0", "permissions are of access tokens", "GET", change{"sub": "auth0|1", "permissions": words{"read:orders"}}, false},
		{"entra-id", "app role", "POST", change{"sub": "x", "oid": "y", "tid": "z", "roles": words{"Orders.Writer"}}, true},
		{"entra-id", "app role to read", "POST", change{"sub": "x", "oid": "y", "tid": "z", "roles": words{"Orders.Reader"}}, false},
		{"entra-id", "none", "GET", change{"sub": "x", "oid": "y", "tid": "z"}, false},
		{"google", "domain", "GET", change{"sub": "1", "email": "bob@example.com", "email_verified": true, "hd": "example.com"}, true},
		{"google", "domain, may write", "POST", change{"sub": "1", "email": "alice@example.com", "email_verified": true, "hd": "example.com"}, true},
		{"google", "domain, may not write", "POST", change{"sub": "1", "email": "bob@example.com", "email_verified": true, "hd": "example.com"}, false},
		{"google", "mail of the domain, account of none", "GET", change{"sub": "1", "email": "alice@example.com", "email_verified": true}, false},
		{"google", "another domain", "GET", change{"sub": "1", "email": "a@evil.example", "email_verified": true, "hd": "evil.example"}, false},
		{"google", "a listed program's mail by login", "GET", change{"sub": "1", "email": "batch@shop.iam.gserviceaccount.com", "email_verified": true}, false},
		{"dex", "group", "POST", change{"sub": "Cg", "groups": words{"orders"}}, true},
		{"dex", "groups not asked for", "GET", change{"sub": "Cg"}, false},
	} {
		t.Run(tc.page+"/"+tc.name, func(t *testing.T) {
			input := map[string]any{
				"request": change{"method": tc.method, "path": "/orders/1"},
				"identity": change{
					"authenticated": true, "authenticator": "login", "kind": "oidc", "scopes": words{"openid", "email"}, "claims": tc.claims,
				},
			}
			rs, err := rego.New(rego.Query("data.gateway.decision"), rego.Module("gateway.rego", readPage(t, tc.page).policy), rego.Input(input)).Eval(t.Context())
			if err != nil || len(rs) != 1 {
				t.Fatalf("%d results: %v", len(rs), err)
			}
			d, _ := rs[0].Expressions[0].Value.(map[string]any)
			if diff := cmp.Diff(tc.want, d["allow"]); diff != "" {
				t.Errorf("decision %v: %s", d, diff)
			}
		})
	}
}

// TestProviderSources: each page names where its facts are written.
func TestProviderSources(t *testing.T) {
	for _, name := range providerNames(t) {
		_, sources, found := strings.Cut(readPage(t, name).text, "\n## Where it is written\n")
		if n := strings.Count(sources, "](https://"); !found || n < 4 {
			t.Errorf("%s names %d sources", name, n)
		}
	}
}
