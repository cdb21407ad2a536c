//go:build !race

package app

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/demo"
	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/judge"
)

// orders is an allowed request with a token that has been seen before: the same
// each time, or each time for another order.
func orders(t testing.TB, a *App, dir string, another bool) func() *judge.Verdict {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(dir, "tokens", "reader.jwt"))
	if err != nil {
		t.Fatal(err)
	}
	g := a.current.Load()
	arrival := judge.Arrival{
		Listener: g.front.Listener("public"), Method: "GET", Target: "/v1/orders/42", Protocol: "HTTP/1.1",
		Headers: []authz.Header{
			{Name: "host", Value: "api.example.com"},
			{Name: "accept", Value: "*/*"},
			{Name: "user-agent", Value: "test"},
			{Name: "authorization", Value: "Bearer " + strings.TrimSpace(string(token))},
		},
		Peer: netip.MustParseAddrPort("192.0.2.1:4711"), Time: time.Now(),
	}
	n := 0
	return func() *judge.Verdict {
		r := arrival // a front makes one per request
		if another {
			n++
			r.Target = fmt.Sprint("/v1/orders/", n)
		}
		return g.front.Judge().Judge(context.Background(), &r)
	}
}

// TestAllowedRequestAllocations pins what the whole way of an allowed request
// allocates, from its head to what is forwarded, with a cached token: when the
// default policy is evaluated, and when its decision is cached too. Lower a bound
// when it becomes less.
func TestAllowedRequestAllocations(t *testing.T) {
	dir := files(t)
	a := build(t, dir)
	for _, tc := range []struct {
		name      string
		evaluated bool
		most      float64
	}{{"evaluated", true, 830}, {"cached", false, 10}} {
		judged := orders(t, a, dir, tc.evaluated)
		judged()
		if v := judged(); v.Outcome != authz.OutcomeAllowed || v.Forward == nil || v.Decision.Cached == tc.evaluated {
			t.Fatalf("%s: outcome %s: %v, decision %+v", tc.name, v.Outcome, v.Err, v.Decision)
		}
		if got := testing.AllocsPerRun(200, func() { judged() }); got > tc.most {
			t.Errorf("%s: %v allocations, pinned at %v", tc.name, got, tc.most)
		} else {
			t.Logf("%s: %v allocations", tc.name, got)
		}
	}
}

func BenchmarkAllowedRequest(b *testing.B) {
	dir := b.TempDir()
	at := demo.Addresses{Gateway: "127.0.0.1:1", Admin: "127.0.0.1:2", Tokens: "127.0.0.1:3", Upstream: "127.0.0.1:4"}
	if err := demo.WriteFiles(dir, at, time.Now()); err != nil {
		b.Fatal(err)
	}
	a, err := New(b.Context(), Options{ConfigFile: filepath.Join(dir, "sallyport.yaml"), Stdout: io.Discard, Stderr: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	for name, evaluated := range map[string]bool{"evaluated": true, "cached": false} {
		b.Run(name, func(b *testing.B) {
			judged := orders(b, a, dir, evaluated)
			b.ReportAllocs()
			for b.Loop() {
				judged()
			}
		})
	}
}
