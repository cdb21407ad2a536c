package engine_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/authz"
)

const explained = `package gateway

default decision := false

decision := {"allow": true, "reason": "reader"} if {
	is_get
	some role in input.identity.claims.roles
	role in data.readers
}

decision := {"allow": true, "reason": "writer"} if {
	"writer" in input.identity.claims.roles
	to_number(input.request.host) > 0
}

is_get if input.request.method == "GET"

is_get if input.request.method == "HEAD"

unused if input.request.body.x
`

func TestExplain(t *testing.T) {
	e := active(t, `{"readers": ["reader"]}`, explained)
	in := order("guest", "writer")
	x, err := e.Explain(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	place := func(row int) engine.Place { return engine.Place{File: "policy0.rego", Row: row} }
	wantHeld := []engine.RuleResult{
		{Name: "data.gateway.decision", Default: true, Place: place(3)},
		{Name: "data.gateway.is_get", Place: place(16)},
	}
	if diff := cmp.Diff(wantHeld, x.Held); diff != "" {
		t.Errorf("held: %s", diff)
	}
	wantFailed := []engine.RuleFailure{
		{
			RuleResult: engine.RuleResult{Name: "data.gateway.decision", Place: place(5)},
			Condition: engine.Condition{
				Text: "role in data.readers", Place: place(8),
				Values: []engine.Value{{Ref: "role", JSON: json.RawMessage(`"guest"`)}},
			},
		},
		{
			RuleResult: engine.RuleResult{Name: "data.gateway.decision", Place: place(11)},
			Condition: engine.Condition{
				Text: "to_number(input.request.host) > 0", Place: place(13),
				Values: []engine.Value{{Ref: "input.request.host", JSON: json.RawMessage(`"api.example.com"`)}},
			},
		},
		{
			RuleResult: engine.RuleResult{Name: "data.gateway.is_get", Place: place(18)},
			Condition: engine.Condition{
				Text: `input.request.method == "HEAD"`, Place: place(18),
				Values: []engine.Value{{Ref: "input.request.method", JSON: json.RawMessage(`"GET"`)}},
			},
		},
	}
	if diff := cmp.Diff(wantFailed, x.Failed); diff != "" {
		t.Errorf("failed: %s", diff)
	}
	if len(x.BuiltinErrors) != 1 {
		t.Errorf("builtin errors: %q", x.BuiltinErrors)
	}
	wantReads := []string{"input.identity.claims.roles", "input.request.host", "input.request.method"}
	if diff := cmp.Diff(wantReads, x.Reads); diff != "" {
		t.Error(diff)
	}
	var doc struct {
		Version string
		Request struct{ Headers map[string][]string }
	}
	if err := json.Unmarshal(x.Input, &doc); err != nil || doc.Version != "v1" || len(doc.Request.Headers) != 2 {
		t.Errorf("input %s: %v", x.Input, err)
	}
	if x.Answer.Allow || x.Revision != "one" || x.Entrypoint != "gateway/decision" {
		t.Errorf("explanation: %+v", x)
	}
}

// Of several attempts, the one that came furthest says what is missing.
func TestExplainShowsTheFurthestCondition(t *testing.T) {
	const policy = `package gateway

default decision := false

decision := true if {
	some role in input.identity.claims.roles
	role in data.readers
	input.request.path == "/elsewhere"
}`
	x, err := active(t, `{"readers": ["reader"]}`, policy).Explain(t.Context(), order("guest", "reader", "other"))
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Failed) != 1 || x.Failed[0].Condition.Text != `input.request.path == "/elsewhere"` {
		t.Errorf("failed: %+v", x.Failed)
	}
}

func TestExplainShowsLocalNames(t *testing.T) {
	const policy = `package gateway

default decision := false

decision := true if {
	some grant in data.grants
	grant.methods[_] == input.request.method
	wanted := grant.roles
	has_any(wanted, grant.missing.deep)
}

has_any(roles, _) if roles[_] == "x"`
	x, err := active(t, `{"grants": [{"methods": ["GET"], "roles": ["writer"]}]}`, policy).Explain(t.Context(), order())
	if err != nil {
		t.Fatal(err)
	}
	want := engine.Condition{
		Text: "has_any(wanted, grant.missing.deep)", Place: engine.Place{File: "policy0.rego", Row: 9},
		Values: []engine.Value{{Ref: "wanted", JSON: json.RawMessage(`["writer"]`)}, {Ref: "grant.missing.deep"}},
	}
	if len(x.Failed) != 1 {
		t.Fatalf("failed: %+v", x.Failed)
	}
	got := x.Failed[0].Condition
	slices.SortFunc(got.Values, func(a, b engine.Value) int { return -strings.Compare(a.Ref, b.Ref) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Explaining changes nothing: the decision is Decide's.
func TestExplainDecidesLikeDecide(t *testing.T) {
	for name, policy := range decisionPolicies {
		e := active(t, `{"readers": ["reader"]}`, policyText(policy))
		for _, in := range []*authz.Input{order(), order("reader"), order("writer", "guest")} {
			want := decide(t, e, in)
			x, err := e.Explain(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, x.Decision); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	}
}
