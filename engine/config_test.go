package engine_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/setting"
)

func TestConfigReportsAllProblems(t *testing.T) {
	cfg := engine.Config{
		Entrypoint: "gateway//decision", DecisionTimeout: -1,
		Builtins: engine.BuiltinConfig{Allow: []string{"http.sent"}, AllowNet: []string{"http://x", "*"}},
	}
	var keys []string
	for _, p := range setting.Problems(cfg.Validate()) {
		keys = append(keys, p.Key)
	}
	want := []string{"entrypoint", "decision_timeout", "builtins.allow", "builtins.allow_net", "builtins.allow_net"}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Error(diff)
	}
	if _, err := engine.New(cfg, engine.Deps{}); err == nil {
		t.Error("an engine with a bad configuration")
	}
	good := engine.Default()
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

func TestClosedBuiltins(t *testing.T) {
	for name, call := range map[string]string{
		"http.send":              `http.send({"method": "get", "url": "http://127.0.0.1:1"}).status_code == 200`,
		"net.lookup_ip_addr":     `count(net.lookup_ip_addr("localhost")) > 0`,
		"opa.runtime":            `opa.runtime().env.HOME`,
		"io.jwt.encode_sign":     `io.jwt.encode_sign({"alg": "HS256"}, {}, {"kty": "oct", "k": "eA"}) != ""`,
		"rego.parse_module":      `rego.parse_module("a.rego", "package a")`,
		"providers.aws.sign_req": `providers.aws.sign_req({"method": "get", "url": "http://x"}, {"aws_access_key": "a", "aws_secret_access_key": "b", "aws_service": "s3", "aws_region": "r"}, 1)`,
		"trace":                  `trace("x")`,
	} {
		t.Run(name, func(t *testing.T) {
			policy := "package gateway\n\nimport data.helper\n\ndecision := true if helper.f"
			helper := "package helper\n\nf if {\n\t" + call + "\n}"
			e := newEngine(t, nil)
			err := e.Activate(t.Context(), revision(t, "one", `{}`, policy, helper))
			var forbidden *engine.ForbiddenBuiltinError
			if !errors.As(err, &forbidden) || forbidden.Name != name || !strings.Contains(err.Error(), "policy1.rego:4: ") {
				t.Errorf("got %v", err)
			}
			if has(e.Capabilities(), name) {
				t.Error("the capabilities have it")
			}
			open := newEngine(t, func(cfg *engine.Config, _ *engine.Deps) { cfg.Builtins.Allow = []string{name} })
			if err := open.Activate(t.Context(), revision(t, "one", `{}`, policy, helper)); err != nil {
				t.Errorf("opened: %v", err)
			}
			if !has(open.Capabilities(), name) {
				t.Error("the capabilities do not have it although it is opened")
			}
		})
	}
}

// Also a function that is only handed over, as a mock, can be called.
func TestClosedBuiltinAsAValue(t *testing.T) {
	e := newEngine(t, nil)
	const policy = `package gateway

decision := true if { f("a") with f as net.lookup_ip_addr }

f(_) := 1`
	var forbidden *engine.ForbiddenBuiltinError
	if err := e.Activate(t.Context(), revision(t, "one", `{}`, policy)); !errors.As(err, &forbidden) {
		t.Errorf("got %v", err)
	}
}

func has(caps *ast.Capabilities, name string) bool {
	return slices.ContainsFunc(caps.Builtins, func(b *ast.Builtin) bool { return b.Name == name })
}

func TestAllowNet(t *testing.T) {
	for _, tc := range []struct {
		list []string
		want []string // nil: any
	}{{nil, []string{}}, {[]string{}, []string{}}, {[]string{"a", "b"}, []string{"a", "b"}}, {[]string{"*"}, nil}} {
		e := newEngine(t, func(cfg *engine.Config, _ *engine.Deps) { cfg.Builtins.AllowNet = tc.list })
		if got := e.Capabilities().AllowNet; !cmp.Equal(got, tc.want) || (got == nil) != (tc.want == nil) {
			t.Errorf("allow_net %v: %#v", tc.list, got)
		}
	}
}

// The list holds at run time for a policy that somebody else compiled.
func TestAllowNetIsEnforced(t *testing.T) {
	srv := newServer(t)
	policy := `package gateway

decision := {"reason": http.send({"method": "get", "url": "` + srv.URL + `", "raise_error": false}).error.message}`
	for host, want := range map[string]bool{"other.example": false, "127.0.0.1": true} {
		e := newEngine(t, func(cfg *engine.Config, _ *engine.Deps) {
			cfg.Builtins = engine.BuiltinConfig{Allow: []string{"http.send"}, AllowNet: []string{host}}
		})
		if err := e.Activate(t.Context(), revision(t, "one", `{}`, policy)); err != nil {
			t.Fatal(err)
		}
		before := srv.calls.Load()
		decide(t, e, order())
		if got := srv.calls.Load() > before; got != want {
			t.Errorf("with allow_net %s: request sent %v, want %v", host, got, want)
		}
	}
}
