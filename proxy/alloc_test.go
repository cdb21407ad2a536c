//go:build !race

package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/valyala/fasthttp"
)

// allocations are those of one allowed request from the client's socket to the
// upstream's and back, client and upstream included.
func allocations(t *testing.T, options ...option) float64 {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) { ctx.SetBodyString("ok") }}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = s.Shutdown() })
	decision := &authz.Decision{Allow: true}
	g := start(t, ln.Addr().String(), append(options, withDecider(func(*authz.Input) (*authz.Decision, error) { return decision, nil }),
		func(_ *Config, _ *Parts, d *Deps) { d.Recorder = discard{} })...)
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	br := bufio.NewReader(c)
	var resp fasthttp.Response
	return testing.AllocsPerRun(300, func() {
		if _, err := io.WriteString(c, benchRequest); err != nil {
			t.Fatal(err)
		}
		if err := resp.Read(br); err != nil || resp.StatusCode() != http.StatusOK {
			t.Fatal(err, resp.StatusCode())
		}
	})
}

// TestFrontAllocations bounds an allowed request with a stub for the policy, and
// what the metrics add to it.
func TestFrontAllocations(t *testing.T) {
	bare := allocations(t)
	counted := allocations(t, func(_ *Config, _ *Parts, d *Deps) { d.Metrics = meter.New() })
	t.Logf("%v allocations, %v with metrics", bare, counted)
	if bare > 15 {
		t.Errorf("%v allocations, want at most 15", bare)
	}
	if counted-bare > 0 {
		t.Errorf("metrics add %v allocations, want none", counted-bare)
	}
}
