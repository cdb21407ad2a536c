package bundles_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/bundles"
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
