package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/types"
	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
	"github.com/sallyport/sallyport/engine/store"
)

func TestMain(m *testing.M) {
	rego.RegisterBuiltin1(&rego.Function{
		Name: "test.panic", Decl: types.NewFunction(types.Args(types.S), types.B),
	}, func(rego.BuiltinContext, *ast.Term) (*ast.Term, error) { panic("broken") })
	rego.RegisterBuiltin1(&rego.Function{
		Name: "test.wait", Decl: types.NewFunction(types.Args(types.S), types.B),
	}, func(rego.BuiltinContext, *ast.Term) (*ast.Term, error) {
		<-time.After(20 * time.Millisecond) // stands for a built-in that takes long
		return ast.BooleanTerm(true), nil
	})
	goleak.VerifyTestMain(m)
}

const ordersPolicy = `package gateway

default decision := false

decision := {"allow": true, "reason": "reader may read", "labels": {"rule": "read"}} if {
	input.request.method == "GET"
	startswith(input.request.path, "/v1/orders/")
	some role in input.identity.claims.roles
	role in data.readers
}
`

func compile(t testing.TB, modules ...string) *ast.Compiler {
	t.Helper()
	parsed := map[string]*ast.Module{}
	for i, text := range modules {
		name := fmt.Sprintf("policy%d.rego", i)
		m, err := ast.ParseModuleWithOpts(name, text, ast.ParserOptions{ProcessAnnotation: true})
		if err != nil {
			t.Fatal(err)
		}
		parsed[name] = m
	}
	c := ast.NewCompiler()
	c.Compile(parsed)
	if c.Failed() {
		t.Fatal(c.Errors)
	}
	return c
}

func revision(t testing.TB, id, data string, modules ...string) engine.Revision {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal([]byte(data), &doc); err != nil {
		t.Fatal(err)
	}
	s, err := store.NewFromObject(doc)
	if err != nil {
		t.Fatal(err)
	}
	return engine.Revision{ID: id, Bundles: map[string]string{"app": id}, Compiler: compile(t, modules...), Store: s}
}

func newEngine(t testing.TB, change func(*engine.Config, *engine.Deps)) *engine.Engine {
	t.Helper()
	cfg, deps := engine.Default(), engine.Deps{}
	cfg.DecisionTimeout = 5 * time.Second // race detector and loaded machines
	if change != nil {
		change(&cfg, &deps)
	}
	e, err := engine.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// active returns an engine on which the modules with data are live.
func active(t testing.TB, data string, modules ...string) *engine.Engine {
	t.Helper()
	e := newEngine(t, nil)
	if err := e.Activate(t.Context(), revision(t, "one", data, modules...)); err != nil {
		t.Fatal(err)
	}
	return e
}

func order(roles ...any) *authz.Input {
	return &authz.Input{
		Request: authz.Request{
			ID: "r1", Method: "GET", Scheme: "https", Host: "api.example.com", Port: 443,
			Path: "/v1/orders/42", Segments: []string{"v1", "orders", "42"}, RawQuery: "a=1&a=2&b=%20",
			Headers: []authz.Header{
				{Name: "accept", Value: "*/*"}, {Name: "x-forwarded-for", Value: "10.0.0.1"}, {Name: "accept", Value: "text/html"},
			},
			Protocol: "HTTP/1.1", ContentLength: -1, Time: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC),
		},
		Source:   authz.Source{IP: "192.0.2.1", Port: 4711},
		Identity: identity(roles...),
		Route:    authz.Route{Name: "orders", Params: map[string]string{"id": "42"}, Upstream: "orders", Labels: map[string]string{"team": "orders"}},
		Gateway:  &authz.Gateway{Name: "gw", Version: "dev", Listener: "public"},
	}
}

func identity(roles ...any) *authz.Identity {
	return &authz.Identity{
		Authenticated: true, Authenticator: "corp", Kind: "jwt", Subject: "alice", Issuer: "https://idp.example",
		Audiences: []string{"orders-api"}, Scopes: []string{"openid"},
		Claims:      map[string]any{"sub": "alice", "roles": roles, "n": json.Number("12345678901234567890")},
		TokenHeader: map[string]any{"alg": "RS256"}, ExpiresAt: time.Unix(1767323045, 0),
	}
}

func decide(t testing.TB, e *engine.Engine, in *authz.Input) *authz.Decision {
	t.Helper()
	d, err := e.Decide(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDecide(t *testing.T) {
	e := active(t, `{"readers": ["reader", "writer"]}`, ordersPolicy)
	d := decide(t, e, order("guest", "reader"))
	if d.Revision != "one" {
		t.Errorf("decision has revision %q", d.Revision)
	}
	want := &authz.Decision{Revision: "one", Bundles: map[string]string{"app": "one"}, Allow: true, Reason: "reader may read", Labels: map[string]string{"rule": "read"}}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
	if d := decide(t, e, order("guest")); d.Allow || d.Fault != nil {
		t.Errorf("guest: %+v", d)
	}
	in := order("reader")
	in.Request.Method = "DELETE"
	if d := decide(t, e, in); d.Allow || d.Fault != nil {
		t.Errorf("DELETE: %+v", d)
	}
}

func TestWithoutPolicyThereIsNoDecision(t *testing.T) {
	e := newEngine(t, nil)
	if _, err := e.Decide(t.Context(), order()); !errors.Is(err, authz.ErrNoPolicy) {
		t.Errorf("before the first activation: %v", err)
	}
	if _, _, _, ok := e.Active(); ok {
		t.Error("a revision is active")
	}
	if err := e.Activate(t.Context(), revision(t, "one", `{}`, "package gateway\n\ndecision := true")); err != nil {
		t.Fatal(err)
	}
	if !decide(t, e, order()).Allow {
		t.Error("denied")
	}
	if id, bundles, since, ok := e.Active(); !ok || id != "one" || bundles["app"] != "one" || since.IsZero() {
		t.Errorf("active: %q %v %v %v", id, bundles, since, ok)
	}
	e.Withdraw("test")
	if _, err := e.Decide(t.Context(), order()); !errors.Is(err, authz.ErrNoPolicy) {
		t.Errorf("after withdrawal: %v", err)
	}
}

func TestFailedActivationLeavesTheOldRevision(t *testing.T) {
	failed := ast.NewCompiler()
	failed.Compile(map[string]*ast.Module{"x.rego": ast.MustParseModule("package gateway\n\ndecision := x")})
	for name, rev := range map[string]engine.Revision{
		"no compiler":       {ID: "two", Store: store.New()},
		"no store":          {ID: "two", Compiler: compile(t, "package gateway\n\ndecision := false")},
		"does not compile":  {ID: "two", Compiler: failed, Store: store.New()},
		"no entrypoint":     revision(t, "two", `{"gateway": {"decision": true}}`, "package other\n\ndecision := true"),
		"forbidden builtin": revision(t, "two", `{}`, "package gateway\n\ndecision := http.send({\"url\": \"http://x\", \"method\": \"get\"}).body.ok"),
		"cannot keep state": {ID: "two", Compiler: compile(t, "package gateway\n\ndecision := false"), Store: inmem.New()},
	} {
		t.Run(name, func(t *testing.T) {
			e := active(t, `{}`, "package gateway\n\ndecision := true")
			if err := e.Activate(t.Context(), rev); err == nil {
				t.Fatal("activated")
			}
			if d := decide(t, e, order()); !d.Allow || d.Revision != "one" {
				t.Errorf("decision: %+v", d)
			}
		})
	}
}

func TestASnapshotKeepsItsData(t *testing.T) {
	e := active(t, `{"readers": ["reader"]}`, ordersPolicy)
	rev := revision(t, "two", `{"readers": ["reader"]}`, ordersPolicy)
	if err := e.Activate(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	s, ok := rev.Store.(*store.Store)
	if !ok {
		t.Fatal("store")
	}
	if err := writeOne(t.Context(), s, "/readers", []any{}); err != nil {
		t.Fatal(err)
	}
	if !decide(t, e, order("reader")).Allow {
		t.Error("data written after activation decides")
	}
	if err := e.Activate(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	if decide(t, e, order("reader")).Allow {
		t.Error("data of the new activation does not decide")
	}
}

// A revision is activated within the commit that brings it: the engine sees what
// is about to be published, and keeps it whatever becomes of the commit.
func TestActivateWithinACommit(t *testing.T) {
	e := newEngine(t, nil)
	s := store.New()
	ctx := t.Context()
	w, err := s.NewTransaction(ctx, storage.WriteParams)
	if err != nil {
		t.Fatal(err)
	}
	c := compile(t, ordersPolicy)
	if _, err := s.Register(ctx, w, storage.TriggerConfig{OnCommit: func(ctx context.Context, txn storage.Transaction, _ storage.TriggerEvent) {
		if err := e.Activate(ctx, engine.Revision{ID: "one", Compiler: c, Store: s, Txn: txn}); err != nil {
			t.Error(err)
		}
		if !decide(t, e, order("reader")).Allow {
			t.Error("denied before the commit ends")
		}
	}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(ctx, w, storage.AddOp, storage.MustParsePath("/readers"), []any{"reader"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ctx, w); err != nil {
		t.Fatal(err)
	}
	if !decide(t, e, order("reader")).Allow {
		t.Error("denied after the commit")
	}
}

func TestDecisionsAreCounted(t *testing.T) {
	metrics := meter.New()
	e := newEngine(t, func(cfg *engine.Config, deps *engine.Deps) {
		cfg.DecisionCache.Entries = 0
		deps.Metrics = metrics
	})
	const policy = `package gateway

default decision := false

decision := true if input.request.method == "GET"

decision := "x" if input.request.method == "POST"

decision if to_number(input.request.method)`
	if err := e.Activate(t.Context(), revision(t, "one", `{}`, policy)); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"GET", "GET", "POST", "PUT"} {
		in := order()
		in.Request.Method = method
		decide(t, e, in)
	}
	want := map[string]int64{
		"sallyport.decisions outcome=allowed": 2, "sallyport.decisions outcome=denied": 1, "sallyport.decisions fault=type,outcome=fault": 1,
		"sallyport.decision.duration outcome=allowed": 2, "sallyport.decision.duration outcome=denied": 1, "sallyport.decision.duration fault=type,outcome=fault": 1,
		"sallyport.policy.builtin_errors ": 2, "sallyport.policy.activations result=activated": 1,
		"sallyport.decision_cache.lookups result=off": 4,
	}
	if diff := cmp.Diff(want, metertest.Counts(metrics)); diff != "" {
		t.Error(diff)
	}
}

func TestRequireAndRetain(t *testing.T) {
	e := newEngine(t, nil)
	const module = "package gateway\n\ndecision := true"
	const orders = "package orders\n\ndecision := false"
	in := order()
	in.Route.Entrypoint = "orders/decision"

	if err := e.Require("orders/decision"); err != nil {
		t.Fatalf("before there is a policy: %v", err)
	}
	if err := e.Activate(t.Context(), revision(t, "one", `{}`, module)); !errors.Is(err, engine.ErrUndefinedEntrypoint) {
		t.Errorf("a revision without a required entrypoint: %v", err)
	}
	if err := e.Activate(t.Context(), revision(t, "two", `{}`, module, orders)); err != nil {
		t.Fatal(err)
	}
	if decide(t, e, in).Allow || !decide(t, e, order()).Allow {
		t.Error("the entrypoints are mixed up")
	}
	if err := e.Require("nope/decision"); !errors.Is(err, engine.ErrUndefinedEntrypoint) {
		t.Errorf("an entrypoint that is not there: %v", err)
	}
	if err := e.Require("a//b"); err == nil {
		t.Error("a malformed entrypoint was accepted")
	}
	if err := e.Retain(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Decide(t.Context(), in); !errors.Is(err, authz.ErrNoPolicy) {
		t.Errorf("an entrypoint that nobody requires: %v", err)
	}
	if err := e.Activate(t.Context(), revision(t, "three", `{}`, module)); err != nil {
		t.Errorf("a dropped entrypoint is still required: %v", err)
	}
}

func TestActivateWhileDeciding(t *testing.T) {
	e := active(t, `{"readers": ["reader"]}`, ordersPolicy)
	stop := make(chan struct{})
	var decided atomic.Int64
	var wg sync.WaitGroup
	id := identity("reader")
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				in := order()
				in.Identity = id
				d, err := e.Decide(context.Background(), in)
				if err != nil || !d.Allow {
					t.Errorf("decision %+v, %v", d, err)
					return
				}
				decided.Add(1)
			}
		})
	}
	for i := 0; i < 50 || decided.Load() < 200; i++ {
		if err := e.Activate(t.Context(), revision(t, fmt.Sprint(i), `{"readers": ["reader"]}`, ordersPolicy)); err != nil {
			t.Fatal(err)
		}
		if err := e.Require("gateway"); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}
