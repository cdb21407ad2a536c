package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/authz"
)

// decisionPolicies are policies that look at the input in different ways. What
// they saw is in the decision's reason.
var decisionPolicies = map[string]string{
	"orders":    ordersPolicy,
	"explained": explained,
	"conflict":  "package gateway\n\ndecision := true if input.request.method\n\ndecision := false if input.request.path",

	"whole input":       `decision := {"reason": json.marshal(input)}`,
	"whole request":     `decision := {"reason": json.marshal(input.request)}`,
	"alias":             `decision := {"reason": json.marshal([r.method, r.query.a])} if { r := input.request }`,
	"alias presence":    `decision := {"reason": "tls"} if { t := input.tls; not input.route.params.id } else := {"reason": "plain"}`,
	"alias of identity": `decision := {"reason": json.marshal(i.claims)} if { i := input.identity; i.authenticated }`,
	"function":          "decision := {\"reason\": f(input.request)}\n\nf(r) := concat(\",\", object.get(r, [\"headers\", \"accept\"], [\"none\"]))",
	"one header":        `decision := {"reason": input.request.headers["x-tenant"][0]}`,
	"missing header":    `decision := {"allow": true} if not input.request.headers["x-tenant"]`,
	"header by name":    `decision := {"reason": concat(",", sort([h | some h, _ in input.request.headers]))}`,
	"header by input":   `decision := {"reason": input.request.headers[input.route.labels.header][0]}`,
	"count headers":     `decision := {"reason": sprintf("%d", [count(input.request.headers)])}`,
	"alias headers":     `decision := {"reason": h["x-tenant"][0]} if { h := input.request.headers }`,
	"two headers":       `decision := {"reason": json.marshal(a)} if { h := input.request.headers; a := [h["x-tenant"], h.accept] }`,
	"walk":              `decision := {"reason": concat(",", sort([concat(".", [sprintf("%v", [x]) | some x in p]) | walk(input.request.headers, [p, v]); is_string(v)]))}`,
	"query":             `decision := {"reason": json.marshal(input.request.query)}`,
	"segments":          `decision := {"reason": concat("/", input.request.segments)}`,
	"segment":           `decision := {"allow": true} if input.request.segments[1] == "orders"`,
	"certificate":       `decision := {"reason": input.tls.client_certificate.spiffe_id} if input.tls.version`,
	"no certificate":    `decision := {"allow": true} if not input.tls.client_certificate`,
	"tls as a whole":    `decision := {"reason": json.marshal(object.get(input, "tls", "none"))}`,
	"source":            `decision := {"allow": net.cidr_contains("192.0.2.0/24", input.source.ip), "reason": json.marshal(input.source.forwarded_for)}`,
	"with":              "decision := {\"reason\": s} if { s := r with input.request.method as \"X\" }\n\nr := json.marshal([input.request.method, input.request.path])",
	"with headers":      "decision := {\"reason\": s} if { s := r with input.request.headers.added as [\"y\"] }\n\nr := json.marshal(input.request.headers)",
	"with input":        "decision := {\"reason\": s} if { s := r with input as {\"request\": {\"method\": input.request.path}} }\n\nr := json.marshal(input)",
	"body":              `decision := {"reason": json.marshal(input.request.body)}`,
	"body field":        `decision := {"reason": sprintf("%v", [input.request.body.total])}`,
	"no body":           `decision := {"allow": true} if not input.request.body`,
	"raw body":          `decision := {"reason": input.request.raw_body}`,
	"body error":        `decision := {"reason": input.request.body_error}`,
	"body truncated":    `decision := {"allow": input.request.body_truncated}`,
	"dynamic member":    `decision := {"reason": json.marshal({k: v | some k in ["method", "path", "body"]; v := input.request[k]})}`,
	"dynamic rule":      "decision := {\"reason\": data.gateway.by[input.request.method]}\n\nby.GET := input.request.path\n\nby.POST := input.request.host",
	"else":              `decision := {"reason": input.identity.subject} if { input.identity.authenticated } else := {"reason": input.source.ip}`,
	"every":             `decision := {"allow": true} if every r in input.identity.claims.roles { r in ["reader", "writer"] }`,
	"partial set":       "decision := {\"reason\": json.marshal(sort([x | some x in seen]))}\n\nseen contains input.request.method\n\nseen contains h if some h, _ in input.request.headers",
	"partial object":    "decision := {\"reason\": json.marshal(seen)}\n\nseen[k] := v if some k, v in input.route.params",
	"head reference":    "decision := {\"reason\": json.marshal(seen)}\n\nseen[input.request.method][h] := 1 if some h, _ in input.request.headers",
	"template string":   `decision := {"reason": $"{input.request.method} {input.request.path} {input.nope}"}`,
	"default":           "default decision := {\"reason\": \"default\"}\n\ndecision := {\"reason\": input.gateway.labels.zone}",
	"import":            "import input.request.headers as hh\n\ndecision := {\"reason\": hh[\"x-tenant\"][0]}",
	"gateway":           `decision := {"reason": json.marshal([input.gateway, input.route, input.version])}`,
	"time":              `decision := {"reason": sprintf("%v %v", [input.request.time, input.identity.expires_at])}`,
	"sizes":             `decision := {"reason": json.marshal([object.get(input.request, "content_length", -1), input.request.port])}`,
}

func policyText(text string) string {
	if strings.HasPrefix(text, "package ") {
		return text
	}
	return "package gateway\n\n" + text
}

// body is an authz.Body in memory.
type body struct {
	data      []byte
	truncated bool
	err       error
	reads     int
}

func (b *body) Buffer(context.Context) ([]byte, bool, error) {
	b.reads++
	return b.data, b.truncated, b.err
}

func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// anyInput returns a random request.
func anyInput(r *rand.Rand) *authz.Input {
	in := &authz.Input{
		Request: authz.Request{
			ID: "r", Method: pick(r, "GET", "POST", "DELETE"), Scheme: pick(r, "http", "https"),
			Host: pick(r, "api.example.com", "7", ""), Port: pick(r, 0, 443), Path: pick(r, "/", "/v1/orders/42"),
			Segments: pick(r, nil, []string{"v1", "orders", "42"}), RawQuery: pick(r, "", "a=1&a=2", "a", "%zz=%41&&=x", "a=1;b=2"),
			Protocol: "HTTP/1.1", ContentLength: pick(r, int64(-1), 0, 12),
			ContentType: pick(r, "", "application/json", "application/vnd.x+json; charset=utf-8", "application/x-www-form-urlencoded", "text/plain", "broken;;;"),
			Time:        pick(r, time.Time{}, time.UnixMilli(1767323045678)),
		},
		Source: authz.Source{IP: pick(r, "192.0.2.1", "10.0.0.1"), Port: pick(r, 0, 4711), ForwardedFor: pick(r, nil, []string{"10.0.0.1"})},
		Route: authz.Route{
			Name: pick(r, "", "orders"), Params: pick(r, nil, map[string]string{"id": "42"}), Upstream: "orders",
			Labels: pick(r, nil, map[string]string{"header": "x-tenant"}),
		},
		Gateway: pick(r, nil, &authz.Gateway{Name: "gw", Labels: map[string]string{"zone": "z"}}),
	}
	for range r.IntN(30) {
		in.Request.Headers = append(in.Request.Headers, authz.Header{
			Name: pick(r, "accept", "x-tenant", "x-a", "x-b", fmt.Sprintf("x-%d", r.IntN(40))), Value: pick(r, "acme", "", "*/*", "\xff\xfe"),
		})
	}
	if r.IntN(2) == 0 {
		in.Request.Body = &body{truncated: r.IntN(4) == 0, data: []byte(pick(r, "", "{}", `{"total": 3.50, "a": [1, null]}`, `{"a":1,"a":2}`, "{", "a=1&b=2", "\xff", `"é"`, "[1] 2"))}
	}
	if r.IntN(2) == 0 {
		in.TLS = &authz.TLS{Version: "TLS 1.3", ServerName: pick(r, "", "api.example.com")}
		if r.IntN(2) == 0 {
			in.TLS.ClientCertificate = &authz.Certificate{Subject: "CN=a", SPIFFEID: pick(r, "", "spiffe://x/y"), NotAfter: time.Unix(1767323045, 0)}
		}
	}
	switch r.IntN(3) {
	case 0:
		in.Identity = &authz.Identity{Authenticator: "anyone", Kind: "anonymous"}
	case 1:
		in.Identity = identity(pick[any](r, "reader", "writer", "guest"))
	}
	return in
}

// What Decide makes of the parts that the analysis says are read is what OPA makes
// of the whole document.
func TestReducedInputDecidesLikeTheWhole(t *testing.T) {
	const data = `{"readers": ["reader"]}`
	r := rand.New(rand.NewPCG(1, 2))
	for _, name := range slices.Sorted(maps.Keys(decisionPolicies)) {
		t.Run(name, func(t *testing.T) {
			rev := revision(t, "one", data, policyText(decisionPolicies[name]))
			e := newEngine(t, nil)
			if err := e.Activate(t.Context(), rev); err != nil {
				t.Fatal(err)
			}
			query, err := rego.New(rego.Query("data.gateway.decision"), rego.Compiler(rev.Compiler), rego.Store(rev.Store)).PrepareForEval(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for range 150 {
				in := anyInput(r)
				want := wholeDecision(t, query, in)
				got := decide(t, e, in)
				if diff := cmp.Diff(want, outcomeOf(got)); diff != "" {
					t.Fatalf("decision on the reduced input differs: %s\ninput: %s", diff, inputJSON(t, in))
				}
			}
		})
	}
}

// outcome is what the policies of the table can say.
type outcome struct {
	Allow         bool
	Reason, Fault string
}

func outcomeOf(d *authz.Decision) outcome {
	o := outcome{Allow: d.Allow, Reason: d.Reason}
	if d.Fault != nil {
		o.Fault = string(d.Fault.Kind)
	}
	return o
}

func wholeDecision(t *testing.T, query rego.PreparedEvalQuery, in *authz.Input) outcome {
	t.Helper()
	doc, err := engine.InputDocument(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := query.Eval(t.Context(), rego.EvalParsedInput(doc.Value))
	switch {
	case err != nil:
		return outcome{Fault: string(authz.FaultEval)}
	case len(rs) == 0:
		return outcome{Fault: string(authz.FaultUndefined)}
	}
	switch v := rs[0].Expressions[0].Value.(type) {
	case bool:
		return outcome{Allow: v}
	case map[string]any:
		allow, _ := v["allow"].(bool)
		reason, _ := v["reason"].(string)
		return outcome{Allow: allow, Reason: reason}
	default:
		t.Fatalf("unexpected decision %v", v)
		return outcome{}
	}
}

func inputJSON(t testing.TB, in *authz.Input) []byte {
	t.Helper()
	term, err := engine.InputDocument(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	x, err := ast.JSON(term.Value)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
