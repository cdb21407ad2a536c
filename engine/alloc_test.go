//go:build !race

package engine_test

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/authz"
)

const roleList = `{"role_permissions": {"reader": ["GET"], "writer": ["GET", "POST", "PUT", "DELETE"]}}`

const rbac = `package gateway

default decision := false

decision := {"allow": true, "reason": "role permits", "upstream": {"set_headers": {"x-user": input.identity.subject}}} if {
	startswith(input.request.path, "/v1/orders/")
	some role in input.identity.claims.roles
	input.request.method in data.role_permissions[role]
}
`

// TestDecideAllocations pins what a decision allocates, so that a change that
// costs shows itself. The values are measured, rounded up a little.
func TestDecideAllocations(t *testing.T) {
	for _, tc := range []struct {
		name, policy string
		limit        float64
	}{
		{"constant", "package gateway\n\ndecision := true", 54},
		{"method", "package gateway\n\ndefault decision := false\n\ndecision if input.request.method == \"GET\"", 62},
		{"roles", rbac, 150},
	} {
		e := uncached(t, roleList, tc.policy)
		in := order("guest", "reader")
		decide(t, e, in) // fills the identity's memo
		got := testing.AllocsPerRun(200, func() {
			if d, err := e.Decide(t.Context(), in); err != nil || !d.Allow {
				t.Fatal(d, err)
			}
		})
		t.Logf("%s: %.0f allocations", tc.name, got)
		if got > tc.limit {
			t.Errorf("%s: %.0f allocations, want at most %.0f", tc.name, got, tc.limit)
		}
	}
}

func uncached(t testing.TB, data, policy string) *engine.Engine {
	t.Helper()
	e := newEngine(t, func(cfg *engine.Config, _ *engine.Deps) { cfg.DecisionCache.Entries = 0 })
	activate(t, e, revision(t, "one", data, policy))
	return e
}

// TestCachedDecisionAllocations pins a hit.
func TestCachedDecisionAllocations(t *testing.T) {
	e := cached(t, newClock(), nil)
	activate(t, e, revision(t, "one", roleList, rbac))
	in := order("guest", "reader")
	decide(t, e, in)
	got := testing.AllocsPerRun(1000, func() {
		if d, err := e.Decide(t.Context(), in); err != nil || !d.Cached {
			t.Fatal(d, err)
		}
	})
	if got > 0 {
		t.Errorf("%v allocations, want none", got)
	}
}

func BenchmarkCachedDecision(b *testing.B) {
	c := newClock()
	e := newEngine(b, func(_ *engine.Config, deps *engine.Deps) { deps.Now = func() time.Time { return c.now } })
	activate(b, e, revision(b, "one", roleList, rbac))
	in := order("guest", "reader")
	decide(b, e, in)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Decide(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	for name, policy := range map[string]string{
		"constant": "package gateway\n\ndecision := true",
		"method":   "package gateway\n\ndefault decision := false\n\ndecision if input.request.method == \"GET\"",
		"roles":    rbac,
	} {
		b.Run(name, func(b *testing.B) {
			e := uncached(b, roleList, policy)
			in := order("guest", "reader")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Decide(b.Context(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("whole document", func(b *testing.B) { benchmarkDocument(b, order("guest", "reader")) })
}

func benchmarkDocument(b *testing.B, in *authz.Input) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := engine.InputDocument(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
}
