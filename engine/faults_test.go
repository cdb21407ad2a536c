package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/authz"
)

func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name, policy string
		kind         authz.FaultKind
		detail       string
	}{
		{"undefined", `decision := true if input.request.method == "X"`, authz.FaultUndefined, "no value"},
		{"string", `decision := "yes"`, authz.FaultType, "want boolean or object"},
		{"null", `decision := null`, authz.FaultType, "want boolean or object"},
		{"set", `decision := {true}`, authz.FaultType, "want boolean or object"},
		{"unknown key", `decision := {"allow": true, "statuss": 200}`, authz.FaultUnknownKey, `"statuss"`},
		{"wrong type", `decision := {"allow": "true"}`, authz.FaultType, "allow is string, want boolean"},
		{"conflict", "decision := true if input.request.method == \"GET\"\n\ndecision := false if input.request.path != \"\"", authz.FaultEval, "conflict"},
		{"rate limit of no unit", `decision := {"allow": true, "rate_limit": {"key": "k", "rate": "1/y", "burst": 1}}`, authz.FaultType, "rate_limit.rate"},
		{"rate limit of nobody", `decision := {"allow": true, "rate_limit": {"key": input.identity.claims.tenant_of_nobody, "rate": "1/s"}}`, authz.FaultUndefined, "no value"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := decide(t, active(t, `{}`, "package gateway\n\n"+tc.policy), order())
			if d.Fault == nil || d.Allow {
				t.Fatalf("decision: %+v", d)
			}
			if d.Fault.Kind != tc.kind || !strings.Contains(d.Fault.Detail, tc.detail) {
				t.Errorf("fault: %v, want %s with %q", d.Fault, tc.kind, tc.detail)
			}
			if d.Revision != "one" {
				t.Errorf("a fault has revision %q", d.Revision)
			}
		})
	}
}

func TestSupportedIsAsked(t *testing.T) {
	e := newEngine(t, func(_ *engine.Config, deps *engine.Deps) {
		deps.Supported = func(d *authz.Decision) error {
			if d.Upstream.Name == "elsewhere" {
				return errors.New("no upstream elsewhere")
			}
			return nil
		}
	})
	const policy = `package gateway

decision := {"allow": true, "rate_limit": {"key": "k", "rate": "1/s"}, "upstream": {"name": input.request.host}}`
	if err := e.Activate(t.Context(), revision(t, "one", `{}`, policy)); err != nil {
		t.Fatal(err)
	}
	in := order()
	if d := decide(t, e, in); !d.Allow || d.RateLimit == nil {
		t.Errorf("decision: %+v", d)
	}
	in.Request.Host = "elsewhere"
	if d := decide(t, e, in); d.Allow || d.Fault == nil || d.Fault.Kind != authz.FaultUnsupported {
		t.Errorf("decision: %+v", d)
	}
}

func TestDeadline(t *testing.T) {
	e := newEngine(t, func(cfg *engine.Config, _ *engine.Deps) { cfg.DecisionTimeout = 20 * time.Millisecond })
	const endless = `package gateway

decision := true if {
	some i in numbers.range(1, 100000)
	some j in numbers.range(1, 100000)
	i * j < 0
}`
	if err := e.Activate(t.Context(), revision(t, "one", `{}`, endless)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	d := decide(t, e, order())
	if d.Fault == nil || d.Fault.Kind != authz.FaultTimeout {
		t.Errorf("decision: %+v", d)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("stopped after %v", took)
	}
	patient := newEngine(t, func(cfg *engine.Config, _ *engine.Deps) { cfg.DecisionTimeout = time.Hour })
	if err := patient.Activate(t.Context(), revision(t, "one", `{}`, endless)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := patient.Decide(ctx, order()); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// An evaluation that ends, but later than any pause excuses, denies too.
func TestDeadlineOfABuiltinThatDoesNotAsk(t *testing.T) {
	e := newEngine(t, func(cfg *engine.Config, _ *engine.Deps) { cfg.DecisionTimeout = time.Millisecond })
	if err := e.Activate(t.Context(), revision(t, "one", `{}`, "package gateway\n\ndecision := test.wait(input.request.method)")); err != nil {
		t.Fatal(err)
	}
	if d := decide(t, e, order()); d.Allow || d.Fault == nil || d.Fault.Kind != authz.FaultTimeout {
		t.Errorf("decision: %+v", d)
	}
}

func TestPanicDenies(t *testing.T) {
	e := active(t, `{}`, "package gateway\n\ndecision := true if test.panic(input.request.method)")
	d := decide(t, e, order())
	if d.Allow || d.Fault == nil || d.Fault.Kind != authz.FaultEval || !strings.Contains(d.Fault.Detail, "panic: broken") {
		t.Errorf("decision: %+v", d)
	}
}

// A failing built-in function is undefined to the policy, as OPA has it, and is
// counted.
func TestBuiltinErrorsAreUndefined(t *testing.T) {
	e := active(t, `{}`, "package gateway\n\ndefault decision := false\n\ndecision := true if to_number(input.request.method) > 0")
	if d := decide(t, e, order()); d.Allow || d.Fault != nil {
		t.Errorf("decision: %+v", d)
	}
}
