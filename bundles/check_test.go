package bundles_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/policies"
)

func check(t *testing.T, entrypoints []string, files ...string) []string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, files...)
	problems := bundles.Check(context.Background(), bundles.Config{Paths: []string{dir}}, bundles.Checking{
		Exchanges:   func(entrypoint string) bool { return entrypoint == "gateway/exchanging" },
		Entrypoints: entrypoints, Capabilities: newEngine(t).Capabilities(),
	})
	var out []string
	for _, p := range problems {
		out = append(out, strings.ReplaceAll(p.Error(), dir+"/", ""))
	}
	return out
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files []string
		want  []string // start of each problem
	}{
		"fine": {[]string{"a.rego", saying("fine")}, nil},
		"every type error": {
			[]string{
				"a.rego", "package gateway\n\ndecision if input.user.eamil == \"a\"\n",
				"b.rego", "package b\n\nx if input.request.methd == \"GET\"\n\ny if input.identity.claims.anything\n",
			},
			[]string{"a.rego:3:13: rego_type_error: undefined ref: input.user.eamil", "b.rego:3:6: rego_type_error: undefined ref: input.request.methd"},
		},
		"every file that does not parse": {
			[]string{"a.rego", "package gateway\n\ndecision := {", "b.rego", "package b\n\nx := ]"},
			[]string{"a.rego:3:", "b.rego:3:"},
		},
		"forbidden": {
			[]string{"a.rego", "package gateway\n\ndecision if http.send({\"method\": \"GET\", \"url\": \"http://a\"}).status_code == 200\n"},
			[]string{"a.rego:3:13: rego_type_error: undefined function http.send"},
		},
		"no entrypoint": {
			[]string{"a.rego", "package other\n\ndecision := true\n"},
			[]string{"entrypoint gateway/decision: no rule data.gateway.decision"},
		},
		"written obligations": {
			[]string{"a.rego", "package gateway\n\ndecision := {\n\t\"allow\": true,\n\t\"rate_limit\": {\"key\": \"a\", \"rate\": \"1/s\"},\n\t\"upstream\": {\"token_exchange\": {\"audience\": \"b\"}},\n}\n"},
			[]string{"a.rego:6:15: upstream.token_exchange: no route that asks this rule has a token_exchange to carry it out with"},
		},
		"obligations by a function": {
			[]string{"a.rego", "package gateway\n\ndecision := limited(\"a\")\n\nlimited(key) := {\"allow\": true, \"upstream\": {\"token_exchange\": {\"audience\": key}}}\n"},
			[]string{"a.rego:5:46: upstream.token_exchange: no route"},
		},
		"not a decision": {
			[]string{"a.rego", "package gateway\n\ndecision := {\"allowed\": true}\n"},
			[]string{"a.rego:3:1: data.gateway.decision: a decision has no \"allowed\" (it has allow, body,"},
		},
		"anything in labels, headers and body": {
			[]string{"a.rego", "package gateway\n\ndecision := {\"allow\": false, \"labels\": {\"a\": \"x\"}, \"headers\": {\"x-a\": \"b\"}, \"body\": {\"max_age\": 2}}\n"},
			nil,
		},
		"unknown member of a member": {
			[]string{"a.rego", "package gateway\n\ndecision := {\"allow\": true, \"upstream\": {\"headers\": {\"x-a\": \"b\"}}}\n"},
			[]string{"a.rego:3:1: data.gateway.decision: a decision has no \"upstream.headers\""},
		},
		"log in again": {
			[]string{"a.rego", "package gateway\n\ndecision := {\"allow\": false, \"challenge\": {\"acr_values\": \"mfa\"}}\n"},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := check(t, []string{"gateway/decision"}, tc.files...)
			if len(got) != len(tc.want) {
				t.Fatalf("problems:\n%s\nwant %d:\n%s", strings.Join(got, "\n"), len(tc.want), strings.Join(tc.want, "\n"))
			}
			for i := range got {
				if !strings.HasPrefix(got[i], tc.want[i]) {
					t.Errorf("problem %q, want it to start with %q", got[i], tc.want[i])
				}
			}
		})
	}
}

func TestCheckEmbeddedPolicy(t *testing.T) {
	t.Parallel()
	for _, p := range bundles.CheckPaths(context.Background(), []string{"."}, bundles.Checking{
		Entrypoints: []string{policies.Entrypoint}, Capabilities: newEngine(t).Capabilities(), FS: policies.Tree(),
	}) {
		t.Error(p)
	}
}

func TestCheckMissingPath(t *testing.T) {
	t.Parallel()
	got := bundles.CheckPaths(context.Background(), []string{t.TempDir() + "/none"}, bundles.Checking{})
	if len(got) != 1 || !strings.Contains(got[0].Text, "no such file") {
		t.Errorf("problems %v, want one about the missing file", got)
	}
}

func TestConfigProblemsOfKeys(t *testing.T) {
	t.Parallel()
	rs, es := newKey(t, "RS256"), newKey(t, "ES256")
	for name, tc := range map[string]struct{ key, algorithm, want string }{
		"RSA":                {rs.public, "RS256", ""},
		"RSA by default":     {rs.public, "", ""},
		"RSA-PSS":            {rs.public, "PS512", ""},
		"elliptic curve":     {es.public, "ES256", ""},
		"secret":             {"anything", "HS256", ""},
		"no PEM":             {"/etc/keys/release.pem", "RS256", "not a public key in PEM"},
		"private key":        {string(readFile(t, rs.file)), "RS256", "private key is not a public key"},
		"RSA for ES256":      {rs.public, "ES256", "an RSA key cannot verify ES256"},
		"elliptic for RS256": {es.public, "RS256", "needs an algorithm ES256"},
		"garbage in PEM":     {"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "RS256", "asn1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := bundles.Config{OPA: map[string]any{
				"services": map[string]any{"acme": map[string]any{"url": "https://bundles.example"}},
				"keys":     map[string]any{"release": map[string]any{"key": tc.key, "algorithm": tc.algorithm}},
			}}
			err := cfg.Validate()
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.HasPrefix(err.Error(), "opa.keys.release.key: ") || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want opa.keys.release.key with %q", err, tc.want)
			}
		})
	}
}

func TestConfigProblems(t *testing.T) {
	t.Parallel()
	service := map[string]any{"acme": map[string]any{"url": "https://bundles.example"}}
	key := map[string]any{"release": map[string]any{"key": "secret", "algorithm": "HS256"}}
	for name, tc := range map[string]struct {
		cfg  bundles.Config
		want []string
	}{
		"none":  {bundles.Config{}, nil},
		"paths": {bundles.Config{Paths: []string{"a"}}, nil},
		"both":  {bundles.Config{Paths: []string{"a"}, OPA: map[string]any{"services": service}}, []string{"opa: policies come from paths or from opa, not from both"}},
		"empty": {bundles.Config{Paths: []string{""}}, []string{"paths: an empty path"}},
		"fine": {bundles.Config{OPA: map[string]any{
			"services": service, "keys": key, "labels": map[string]any{"region": "eu"},
			"bundles": map[string]any{"authz": map[string]any{"service": "acme", "persist": true, "signing": map[string]any{"keyid": "release"}}},
			"status":  map[string]any{"service": "acme"}, "decision_logs": map[string]any{"service": "acme"},
		}}, nil},
		"OPA's server": {bundles.Config{OPA: map[string]any{
			"server": map[string]any{}, "storage": map[string]any{}, "distributed_tracing": map[string]any{}, "default_decision": "x",
		}}, []string{"opa.default_decision: not supported", "opa.distributed_tracing: not supported", "opa.server: not supported", "opa.storage: not supported"}},
		"unknown": {bundles.Config{OPA: map[string]any{"bundels": map[string]any{}}}, []string{"opa.bundels: not a key"}},
		"unsigned with keys": {bundles.Config{OPA: map[string]any{
			"services": service, "keys": key,
			"bundles": map[string]any{
				"a": map[string]any{"service": "acme"},
				"b": map[string]any{"service": "acme", "signing": map[string]any{"scope": "x"}},
				"c": map[string]any{"service": "acme", "signing": map[string]any{"keyid": "release", "allow_unsigned_delta_bundles": true}},
			},
			"discovery": map[string]any{"resource": "d"},
		}}, []string{
			"opa.bundles.a.signing.keyid: keys are configured", "opa.bundles.b.signing.keyid: keys are configured",
			"opa.bundles.c.signing.allow_unsigned_delta_bundles: not supported", "opa.discovery.signing.keyid: keys are configured",
		}},
		"unknown key id": {bundles.Config{OPA: map[string]any{
			"services": service, "keys": key,
			"bundles": map[string]any{"a": map[string]any{"service": "acme", "signing": map[string]any{"keyid": "other"}}},
		}}, []string{`opa.bundles: invalid configuration for bundle "a": key id other not found`}},
		"unknown service": {bundles.Config{OPA: map[string]any{
			"bundles": map[string]any{"a": map[string]any{"service": "acme"}},
		}}, []string{`opa.bundles: invalid configuration for bundle "a": service name "acme" not found`}},
		"folder": {bundles.Config{OPA: map[string]any{
			"services": service, "bundles": map[string]any{"../a": map[string]any{"service": "acme"}},
		}}, []string{"opa.bundles.../a: a bundle's name is also the name of its folder"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, p := range setting.Problems(tc.cfg.Validate()) {
				got = append(got, p.Error())
			}
			prefix := cmp.Comparer(func(a, b string) bool { return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) })
			if diff := cmp.Diff(tc.want, got, prefix); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}
