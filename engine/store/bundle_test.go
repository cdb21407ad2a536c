package store_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/plugins"
	bundleplugin "github.com/open-policy-agent/opa/v1/plugins/bundle"
	"github.com/open-policy-agent/opa/v1/plugins/discovery"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/sallyport/sallyport/engine/store"
)

const module = `package app

allow if input.user in data.app.users
`

func writeBundle(t *testing.T, file, revision string, users ...any) {
	t.Helper()
	b := bundle.Bundle{
		Manifest: bundle.Manifest{Revision: revision, Roots: &[]string{"app"}},
		Data:     map[string]any{"app": map[string]any{"users": users}},
		Modules: []bundle.ModuleFile{{
			URL: "app.rego", Path: "/app.rego", Raw: []byte(module), Parsed: ast.MustParseModule(module),
		}},
	}
	var out bytes.Buffer
	if err := bundle.NewWriter(&out).Write(b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// OPA's own manager and bundle plugin activate bundles into the store, the way a
// downloaded one is: raw files through Truncate.
func TestOPAActivatesBundles(t *testing.T) {
	ctx := t.Context()
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	writeBundle(t, file, "one", "alice")
	s := store.New()
	manager, err := plugins.New(fmt.Appendf(nil, `{"bundles": {"app": {"resource": "file://%s", "trigger": "manual"}}}`, file), "test", s)
	if err != nil {
		t.Fatal(err)
	}
	d, err := discovery.New(manager)
	if err != nil {
		t.Fatal(err)
	}
	manager.Register(discovery.Name, d)
	var mu sync.Mutex
	var inTrigger []string
	manager.RegisterCompilerTrigger(func(txn storage.Transaction) {
		mu.Lock()
		defer mu.Unlock()
		inTrigger = append(inTrigger, read(t, s, txn, "/app/users"))
	})
	if err := manager.Start(ctx); err != nil {
		t.Fatal(err)
	}
	defer manager.Stop(context.WithoutCancel(ctx))
	plugin := bundleplugin.Lookup(manager)
	activate := func() {
		t.Helper()
		if err := plugin.Trigger(ctx); err != nil {
			t.Fatal(err)
		}
	}

	activate()
	if got := readCommitted(t, s, "/app/users"); got != `["alice"]` {
		t.Errorf("data of the bundle: %s", got)
	}
	if got := readCommitted(t, s, "/system/bundles/app/manifest/revision"); got != `"one"` {
		t.Errorf("revision of the bundle: %s", got)
	}
	if !allowed(t, manager, s, "alice") || allowed(t, manager, s, "bob") {
		t.Error("the policy does not decide by the data")
	}

	writeBundle(t, file, "two", "bob", "carol")
	activate()
	if got := readCommitted(t, s, "/app/users"); got != `["bob","carol"]` {
		t.Errorf("data of the second revision: %s", got)
	}
	if allowed(t, manager, s, "alice") || !allowed(t, manager, s, "bob") {
		t.Error("the policy still decides by the first revision")
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{`["alice"]`, `["bob","carol"]`}; len(inTrigger) < 2 || inTrigger[len(inTrigger)-2] != want[0] || inTrigger[len(inTrigger)-1] != want[1] {
		t.Errorf("compiler triggers saw %v, want %v at the end", inTrigger, want)
	}
}

func allowed(t *testing.T, m *plugins.Manager, s *store.Store, user string) bool {
	t.Helper()
	rs, err := rego.New(rego.Query("data.app.allow"), rego.Compiler(m.GetCompiler()), rego.Store(s),
		rego.Input(map[string]any{"user": user})).Eval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return rs.Allowed()
}

// A delta patches data in place; the patches go through Write.
func TestOPAActivatesDeltas(t *testing.T) {
	ctx := t.Context()
	s := store.New()
	run := func(b *bundle.Bundle) error {
		return storage.Txn(ctx, s, storage.WriteParams, func(txn storage.Transaction) error {
			return bundle.Activate(&bundle.ActivateOpts{
				Ctx: ctx, Store: s, Txn: txn, TxnCtx: storage.NewContext(), Compiler: ast.NewCompiler(),
				Metrics: noMetrics(), Bundles: map[string]*bundle.Bundle{"app": b},
			})
		})
	}
	snapshot := &bundle.Bundle{
		Manifest: bundle.Manifest{Revision: "one", Roots: &[]string{"app"}},
		Data:     map[string]any{"app": map[string]any{"users": []any{"alice"}, "old": true}},
	}
	if err := run(snapshot); err != nil {
		t.Fatal(err)
	}
	delta := &bundle.Bundle{
		Manifest: bundle.Manifest{Revision: "two", Roots: &[]string{"app"}},
		Patch: bundle.Patch{Data: []bundle.PatchOperation{
			{Op: "upsert", Path: "/app/users/-", Value: "bob"},
			{Op: "remove", Path: "/app/old"},
			{Op: "upsert", Path: "/app/deep/er", Value: map[string]any{"k": "v"}},
		}},
	}
	if err := run(delta); err != nil {
		t.Fatal(err)
	}
	if got, want := readCommitted(t, s, "/app"), `{"deep":{"er":{"k":"v"}},"users":["alice","bob"]}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	bad := &bundle.Bundle{
		Manifest: bundle.Manifest{Revision: "three", Roots: &[]string{"app"}},
		Patch: bundle.Patch{Data: []bundle.PatchOperation{
			{Op: "upsert", Path: "/app/users/-", Value: "mallory"},
			{Op: "replace", Path: "/app/nope/nope", Value: 1},
		}},
	}
	if err := run(bad); err == nil {
		t.Error("a patch of what is not there succeeded")
	}
	if got, want := readCommitted(t, s, "/app/users"), `["alice","bob"]`; got != want {
		t.Errorf("half of a failed delta is live: %s", got)
	}
}
