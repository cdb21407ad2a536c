package bundles_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/policies"
)

// largePolicy is 100 rules and about 10 MB of data.
func largePolicy(t testing.TB, dir string) {
	t.Helper()
	var rules, data strings.Builder
	rules.WriteString("package gateway\n\ndefault decision := false\n")
	for i := range 100 {
		fmt.Fprintf(&rules, "\ndecision if {\n\tinput.request.method == \"GET\"\n\tinput.request.path == \"/r%d\"\n\t\"a\" in data.people.p%d.roles\n}\n", i, i)
	}
	data.WriteString(`{"people": {`)
	for i := range 100_000 {
		if i > 0 {
			data.WriteString(",")
		}
		fmt.Fprintf(&data, `"p%d": {"name": "person number %d", "roles": ["a", "b%d"], "active": true, "n": %d}`, i, i, i, i)
	}
	data.WriteString("}}")
	write(t, dir, "gateway.rego", rules.String(), "data.json", data.String())
}

// Benchmark of making 10 MB of data and 100 rules live: once per change of a policy.
func BenchmarkActivatePaths(b *testing.B) {
	dir := b.TempDir()
	largePolicy(b, dir)
	s, err := bundles.New(bundles.Config{Paths: []string{dir}}, bundles.Deps{Engine: newEngine(b)})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Reload(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// Benchmark of the same through a bundle service: download, unpack, verify,
// compile twice (OPA's plugin and the gate), activate.
func BenchmarkActivateService(b *testing.B) {
	key := newKey(b, "RS256")
	dir := b.TempDir()
	largePolicy(b, dir)
	var archives [2][]byte
	for i := range archives {
		built, err := bundles.Build(context.Background(), bundles.Building{
			Paths: []string{dir}, Signing: key.signing("release"), Revision: fmt.Sprint(i),
		})
		if err != nil {
			b.Fatal(err)
		}
		archives[i] = built.Archive
	}
	shelf := newShelf(b, archives[0])
	s := newSource(b, bundles.Config{OPA: opaConfig(shelf.URL, &key)}, newEngine(b))
	run(b, s)
	waitFor(b, s, "the bundle", isReady)
	b.ReportAllocs()
	b.ReportMetric(float64(len(archives[0])), "archive-bytes")
	for i := 0; b.Loop(); i++ {
		want := fmt.Sprint((i + 1) % 2)
		shelf.serve(archives[(i+1)%2])
		waitFor(b, s, "the other bundle", func(st bundles.Status) bool { return st.Revision == want })
	}
}

// Benchmark of one decision of the default policy: a reader reads an order.
func BenchmarkDefaultPolicy(b *testing.B) {
	ctx, e := context.Background(), newEngine(b)
	s, err := bundles.New(bundles.Config{Paths: []string{"."}}, bundles.Deps{Engine: e, FS: policies.Tree()})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Reload(ctx); err != nil {
		b.Fatal(err)
	}
	in := &authz.Input{
		Request:  authz.Request{Method: "GET", Path: "/v1/orders/42", Segments: []string{"v1", "orders", "42"}},
		Identity: &authz.Identity{Authenticated: true, Subject: "alice", Claims: map[string]any{"roles": []any{"reader"}}},
	}
	b.ReportAllocs()
	for b.Loop() {
		if d, err := e.Decide(ctx, in); err != nil || !d.Allow {
			b.Fatal(d, err)
		}
	}
}
