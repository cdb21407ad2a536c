package edgestack_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/edgestack"
)

var update = flag.Bool("update", false, "write the golden files")

// TestGolden holds configuration, policy, files and differences of each example.
func TestGolden(t *testing.T) {
	kinds := []string{"jwt", "mtls", "anonymous"}
	for name, c := range map[string]struct {
		file string
		opts edgestack.Options
	}{
		"filters":          {"filters.yaml", edgestack.Options{Kinds: kinds}},
		"filters-unsigned": {"filters.yaml", edgestack.Options{Kinds: kinds, AllowUnsigned: true, Issuers: map[string]string{"jwt": "https://idp.example"}}},
		"external":         {"external.yaml", edgestack.Options{Kinds: kinds}},
		"limits":           {"limits.yaml", edgestack.Options{Kinds: kinds}},
		"machines":         {"machines.yaml", edgestack.Options{Kinds: append([]string{"api_key", "client_credentials", "oidc"}, kinds...)}},
		"machines-none":    {"machines.yaml", edgestack.Options{Kinds: kinds}},
		"origins":          {"origins.yaml", edgestack.Options{Kinds: []string{"oidc"}}},
		"shop":             {"shop.yaml", edgestack.Options{Kinds: kinds}},
		"shop-oidc":        {"shop.yaml", edgestack.Options{Kinds: append([]string{"oidc"}, kinds...), Issuers: map[string]string{"": "https://partner.example"}, Audiences: map[string]string{"": "shop"}}},
	} {
		t.Run(name, func(t *testing.T) {
			res := load(t, c.file, c.opts)
			var b bytes.Buffer
			fmt.Fprintf(&b, "-- sallyport.yaml --\n%s-- %s --\n%s-- files --\n", res.Config, edgestack.PolicyFile, res.Policy)
			for _, f := range res.Files {
				fmt.Fprintf(&b, "%s: %s\n", f.Path, f.Content)
			}
			for _, w := range res.Written {
				fmt.Fprintf(&b, "-- %s --\n%s", w.Path, w.Data)
			}
			b.WriteString("-- differences --\n")
			for _, d := range res.Differences {
				fmt.Fprintln(&b, d)
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Error(d)
			}
		})
	}
}

func load(t *testing.T, file string, opts edgestack.Options) *edgestack.Result {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	res, err := edgestack.Import([]edgestack.File{{Name: file, Data: data}}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestResultIsAConfiguration: nothing is wrong with what is written but what the
// differences and the list of files say somebody has to fill in.
func TestResultIsAConfiguration(t *testing.T) {
	for file, fill := range map[string]map[string]string{
		"filters.yaml": {"jwt": "https://idp.example"},
		"shop.yaml":    {"partner": "https://partner.example"},
	} {
		res := load(t, file, edgestack.Options{Issuers: fill, Audiences: map[string]string{"partner": "shop"}, Kinds: []string{"jwt"}})
		_, err := config.Parse("sallyport.yaml", res.Config, func(string) (string, bool) { return "", false })
		for line := range strings.Lines(fmt.Sprint(err)) {
			switch line = strings.TrimSpace(line); {
			case line == "<nil>", strings.Contains(line, "no such file"):
			case strings.Contains(line, "jwks_url: is http"): // said
			default:
				t.Errorf("%s: %s", file, line)
			}
		}
		res = load(t, file, edgestack.Options{Kinds: []string{"jwt"}})
		if _, err = config.Parse("sallyport.yaml", res.Config, os.LookupEnv); err == nil || !strings.Contains(err.Error(), "issuer: is missing") {
			t.Errorf("%s without an issuer: %v", file, err)
		}
	}
}

// TestOriginsAreAConfiguration: where people may log in is said as the gateway wants it;
// only files are missing.
func TestOriginsAreAConfiguration(t *testing.T) {
	res := load(t, "origins.yaml", edgestack.Options{})
	_, err := config.Parse("sallyport.yaml", res.Config, func(string) (string, bool) { return "", false })
	for line := range strings.Lines(fmt.Sprint(err)) {
		if line = strings.TrimSpace(line); line != "<nil>" && !strings.Contains(line, "no such file") {
			t.Error(line)
		}
	}
}

// TestSharedLogin: which origins have one login, and for which domain its cookies are.
func TestSharedLogin(t *testing.T) {
	for origins, want := range map[string]string{
		"https://example.com https://a.example.com":          "example.com",
		"https://a.example.com https://b.example.com:8443":   "example.com",
		"https://a.b.example.co.uk https://c.example.co.uk":  "example.co.uk",
		"https://x.b.example.com https://y.b.example.com":    "b.example.com",
		"https://example.com https://evilexample.com":        "",
		"https://example.com https://example.com.evil.test":  "",
		"https://a.co.uk https://b.co.uk":                    "",
		"https://a.github.io https://b.github.io":            "",
		"https://10.0.0.1 https://10.0.0.1:8443":             "",
		"https://1.10.0.1 https://2.10.0.1":                  "",
		"https://[fd00::1] https://[fd00::1]:8443":           "",
		"https://localhost https://localhost:8443":           "",
		"https://example.com":                                "",
		"https://example.com https://b.test https://b.test:": "",
	} {
		list := `{origin: "` + strings.ReplaceAll(origins, " ", `"}, {origin: "`) + `"}`
		text := fmt.Sprintf(`
apiVersion: getambassador.io/v3alpha1
kind: Filter
metadata: {name: login}
spec: {OAuth2: {authorizationURL: "https://idp.example", clientID: web, protectedOrigins: [%s]}}
---
apiVersion: getambassador.io/v3alpha1
kind: FilterPolicy
metadata: {name: policy}
spec: {rules: [{host: "*", path: /*, filters: [{name: login}]}]}
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: shop}
spec: {hostname: "*", prefix: /, service: "https://shop:8443"}
`, list)
		res, err := edgestack.Import([]edgestack.File{{Name: "f.yaml", Data: []byte(text)}}, edgestack.Options{})
		if err != nil {
			t.Fatal(err)
		}
		first, _, several := strings.Cut(origins, " ")
		domain, redirect := "cookie_domain: "+want+"\n", "redirect_origin: "+first+"\n"
		shared := strings.Contains(string(res.Config), "cookie_domain") || strings.Contains(string(res.Config), "redirect_origin")
		if want == "" && shared || want != "" && (!strings.Contains(string(res.Config), domain) || !strings.Contains(string(res.Config), redirect)) {
			t.Errorf("%s: want the domain %q:\n%s", origins, want, res.Config)
		}
		if said := strings.Contains(fmt.Sprint(res.Differences), "by itself"); said != (several && want == "") {
			t.Errorf("%s: differences %v", origins, res.Differences)
		}
	}
}

// TestNoSecretIsPrinted: what stands in a Filter as a secret goes nowhere.
func TestNoSecretIsPrinted(t *testing.T) {
	for _, file := range []string{"shop.yaml", "machines.yaml"} {
		for _, kinds := range [][]string{{"jwt"}, {"jwt", "oidc"}, nil} {
			res := load(t, file, edgestack.Options{Kinds: kinds})
			if all := fmt.Sprintf("%s%s%s%v", res.Config, res.Policy, res.Written, res.Differences); strings.Contains(all, "hush") || strings.Contains(all, "aHVzaC") {
				t.Errorf("%s: a secret is printed", file)
			}
		}
	}
}

// TestUnreadable: what cannot be read is an error that says where, and no result.
func TestUnreadable(t *testing.T) {
	const head = "apiVersion: getambassador.io/v3alpha1\n"
	for text, want := range map[string]string{
		"a: [":                "f.yaml: not valid YAML",
		head + "kind: Filter": "f.yaml:1: Filter default/: metadata.name: is missing",
		head + "kind: [a]":    "kind: a text belongs here",
		head + "kind: Filter\nmetadata: {name: a}\nspec: 7":                                                            "Filter default/a: spec: keys belong here",
		head + "kind: Filter\nmetadata: {name: a}\nspec: {JWT: {requireIssuer: perhaps}}":                              "JWT.requireIssuer: true or false belongs here",
		head + "kind: Filter\nmetadata: {name: a}\nspec: {JWT: {leewayForExpiresAt: soon}}":                            "f.yaml:4: Filter default/a: JWT.leewayForExpiresAt: a duration",
		head + "kind: Filter\nmetadata: {name: a}\nspec: {JWT: {validAlgorithms: {a: b}}}":                             "JWT.validAlgorithms: a list of texts",
		head + "kind: FilterPolicy\nmetadata: {name: a}\nspec: {rules: {a: b}}":                                        "rules: a list belongs here",
		head + "kind: FilterPolicy\nmetadata: {name: a}\nspec: {rules: [{path: /, filters: [{name: a, onDeny: no}]}]}": "rules[0].filters[0].onDeny: must be break or continue",
		head + "kind: Mapping\nmetadata: {name: a}\nspec: {prefix: /a/, service: a, timeout_ms: 3s}":                   "timeout_ms: a number of milliseconds",
		head + "kind: RateLimit\nmetadata: {name: a}\nspec: {limits: [{pattern: [{a: b}], unit: day}]}":                "f.yaml:4: RateLimit default/a: limits[0].rate: is missing",
		head + "kind: RateLimit\nmetadata: {name: a}\nspec: {limits: [{pattern: [{a: b}], rate: 0, unit: day}]}":       "limits[0].rate: a whole number of 1 or more",
		head + "kind: RateLimit\nmetadata: {name: a}\nspec: {limits: [{rate: 0.5, unit: day}]}":                        "limits[0].rate: a whole number of 1 or more",
		head + "kind: RateLimit\nmetadata: {name: a}\nspec: {limits: [{rate: 1}]}":                                     "limits[0].unit: is missing",
		head + "kind: RateLimit\nmetadata: {name: a}\nspec: {limits: [{rate: 1, unit: week}]}":                         "limits[0].unit: must be second, minute, hour or day",
		head + "kind: RateLimit\nmetadata: {name: a}\nspec: {limits: [{rate: 1, unit: day, burstFactor: some}]}":       "limits[0].burstFactor: a whole number",
		head + "kind: RateLimit\nmetadata: {name: a}\nspec: {limits: [{rate: 1, unit: day, action: Enforced}]}":        "limits[0].action: must be Enforce or LogOnly",
		head + "kind: Mapping\nmetadata: {name: a}\nspec: {prefix: /a/, service: a, labels: {a: [{b: c}]}}":            "labels.a[0].b: a list belongs here",
		head + "kind: Mapping\nmetadata: {name: a}\nspec: {prefix: /a/, service: a, <<: {timeout_ms: 3}}":              "merge keys are not read",
	} {
		res, err := edgestack.Import([]edgestack.File{{Name: "f.yaml", Data: []byte(text)}}, edgestack.Options{})
		if err == nil || res != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// TestEveryKeyIsSaid puts a key that nobody knows at every place that has keys, and
// demands that it is named.
func TestEveryKeyIsSaid(t *testing.T) {
	data, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	places := 0
	for i := range data {
		if data[i] != '{' || bytes.HasPrefix(data[i:], []byte("{{")) || i > 0 && (data[i-1] == '{' || data[i-1] == '$') || bytes.HasPrefix(data[i:], []byte("{}")) {
			continue
		}
		line := 1 + bytes.Count(data[:i], []byte("\n"))
		before := data[bytes.LastIndexByte(data[:i], '\n')+1 : i]
		if bytes.HasSuffix(before, []byte("metadata: ")) {
			continue // Kubernetes' own
		}
		if bytes.HasPrefix(data[i:], []byte("{domain:")) || bytes.HasPrefix(data[i:], []byte("{hostname: shop.example}")) {
			continue // resources of which all is said in one line
		}
		places++
		next := string(data[:i+1]) + "surprise: 1, " + string(data[i+1:])
		res, err := edgestack.Import([]edgestack.File{{Name: "f.yaml", Data: []byte(next)}}, edgestack.Options{Kinds: []string{"jwt", "oidc"}})
		if err != nil {
			t.Errorf("line %d: %v", line, err)
			continue
		}
		said := false
		for _, d := range res.Differences {
			// A block that is left out as a whole is said by its own key.
			said = said || d.Line == line && (strings.HasSuffix(d.Key, "surprise") || strings.Contains(d.Text, "not carried over") || strings.Contains(d.Text, "left out"))
		}
		if !said && !strings.Contains(string(before), "headers:") { // a header of any name is one to match
			t.Errorf("line %d: an unknown key after %q is not said", line, before)
		}
	}
	if places < 30 {
		t.Errorf("only %d places found; the search is wrong", places)
	}
}
