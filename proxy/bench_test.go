//go:build unix

package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/sallyport/sallyport/engine/authz"
)

const benchRequest = "GET /v1/orders/42?a=1 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\nAuthorization: Bearer good\r\n\r\n"

// fastUpstream answers without work, so that what is measured is in front of it.
func fastUpstream(b *testing.B) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) { ctx.SetBodyString("ok") }}
	go func() { _ = s.Serve(ln) }()
	b.Cleanup(func() { _ = s.Shutdown() })
	return ln.Addr().String()
}

func drive(b *testing.B, addr string) {
	b.ReportAllocs()
	b.SetParallelism(16)
	before := cpuTime()
	defer func() { b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-µs/op") }()
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		br := bufio.NewReader(c)
		var resp fasthttp.Response
		for pb.Next() {
			if _, err := io.WriteString(c, benchRequest); err != nil {
				b.Error(err)
				return
			}
			if err := resp.Read(br); err != nil || resp.StatusCode() != http.StatusOK {
				b.Error(err, resp.StatusCode())
				return
			}
		}
	})
}

// cpuTime is what the process has used. On a machine that others use too, it
// says more than the clock. Client and upstream are in it.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFront is an allowed request end to end: client, gateway with stub
// policy and upstream in one process.
func BenchmarkFront(b *testing.B) {
	g := start(b, fastUpstream(b), withDecider(func(in *authz.Input) (*authz.Decision, error) {
		d := &authz.Decision{Allow: true}
		d.Upstream.SetHeaders = map[string]string{"x-user": in.Identity.Subject}
		return d, nil
	}), func(_ *Config, _ *Parts, d *Deps) { d.Recorder = discard{} })
	drive(b, g.addr)
}

// BenchmarkMinimalProxy is the least that a proxy made of fasthttp does.
func BenchmarkMinimalProxy(b *testing.B) {
	hc := &fasthttp.HostClient{Addr: fastUpstream(b), MaxConns: 1024}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		if err := hc.Do(&ctx.Request, &ctx.Response); err != nil {
			ctx.Error("bad gateway", http.StatusBadGateway)
		}
	}}
	go func() { _ = s.Serve(ln) }()
	b.Cleanup(func() { _ = s.Shutdown(); hc.CloseIdleConnections() })
	drive(b, ln.Addr().String())
}
