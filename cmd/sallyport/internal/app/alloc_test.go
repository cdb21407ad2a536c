//go:build !race

package app

import (
	"context"
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

// orders is an allowed request with a token that has been seen before.
func orders(t testing.TB, a *App, dir string) func() *judge.Verdict {
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
	return func() *judge.Verdict {
		r := arrival // a front makes one per request
		return g.front.Judge().Judge(context.Background(), &r)
	}
}

// TestAllowedRequestAllocations pins what the whole way of an allowed request
// allocates, from its head to what is forwarded: the token is cached, the default
// policy is evaluated. Lower the bound when it becomes less.
func TestAllowedRequestAllocations(t *testing.T) {
	const most = 1150
	dir := files(t)
	judged := orders(t, build(t, dir), dir)
	if v := judged(); v.Outcome != authz.OutcomeAllowed || v.Forward == nil {
		t.Fatalf("outcome %s: %v", v.Outcome, v.Err)
	}
	if got := testing.AllocsPerRun(200, func() { judged() }); got > most {
		t.Errorf("%v allocations, pinned at %d", got, most)
	} else {
		t.Logf("%v allocations", got)
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
	judged := orders(b, a, dir)
	b.ReportAllocs()
	for b.Loop() {
		judged()
	}
}
