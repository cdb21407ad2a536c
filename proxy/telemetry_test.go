package proxy

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
	"github.com/sallyport/sallyport/proxy/problem"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp's: it sleeps for the idle timeout and then sees that no connection is left.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*HostClient).connsCleaner"),
		// Those of the fasthttp servers in benchmarks.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*TCPDialer).tcpAddrsClean"))
}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestTraceContextGoesThroughWithoutTracer(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\ntraceparent: "+parent+"\r\ntracestate: a=b\r\n\r\n")
	if !hasLine(up.received(), "Traceparent: "+parent) || !hasLine(up.received(), "Tracestate: a=b") {
		t.Errorf("upstream received %q", up.received())
	}
}

func TestSpans(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	tracer := provider.Tracer("test")
	up := listenRaw(t, nil)
	g := start(t, up.addr(), func(_ *Config, p *Parts, d *Deps) { p.Tracer, d.Tracer = tracer, tracer })
	get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\ntraceparent: "+parent+"\r\n\r\n")
	eventually(t, "all spans end", func() bool { return len(spans.Ended()) == 4 })
	byName := map[string]sdktrace.ReadOnlySpan{}
	for _, s := range spans.Ended() {
		byName[s.Name()] = s
	}
	root := byName["GET all"]
	if root == nil || root.Parent().SpanID().String() != "b7ad6b7169203331" {
		t.Fatalf("spans %v", byName)
	}
	for _, name := range []string{"authenticate", "decide", "upstream"} {
		if s := byName[name]; s == nil || s.Parent().SpanID() != root.SpanContext().SpanID() {
			t.Errorf("%s is not a child of the request: %v", name, s)
		}
	}
	want := "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-" + byName["upstream"].SpanContext().SpanID().String() + "-01"
	if !hasLine(up.received(), want) || strings.Count(strings.ToLower(up.received()), "traceparent") != 1 {
		t.Errorf("no line %q in %q", want, up.received())
	}
	if rec := g.records.all()[0]; rec.TraceID != "0af7651916cd43dd8448eb211c80319c" || rec.SpanID != root.SpanContext().SpanID().String() {
		t.Errorf("record has trace %s span %s", rec.TraceID, rec.SpanID)
	}
}

func TestMetrics(t *testing.T) {
	metrics := meter.New()
	up := listenRaw(t, nil)
	g := start(t, up.addr(), func(_ *Config, _ *Parts, d *Deps) { d.Metrics = metrics },
		withDecider(func(in *authz.Input) (*authz.Decision, error) {
			if in.Request.Path == "/panic" {
				panic("test")
			}
			return &authz.Decision{Allow: in.Request.Path == "/ok"}, nil
		}))
	for _, p := range []string{"/ok", "/ok", "/no", "/panic", "//"} {
		send(t, g.addr, "GET "+p+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	}
	want := map[string]int64{"sallyport.panics ": 1, "sallyport.connections.open listener=public": 0}
	for _, name := range []string{"sallyport.requests ", "sallyport.request.duration "} {
		want[name+"code=2xx,listener=public,outcome=allowed,route=all"] = 2
		want[name+"code=4xx,listener=public,outcome=denied,route=all"] = 1
		want[name+"code=4xx,listener=public,outcome=refused,route="] = 1
	}
	for _, name := range []string{"sallyport.upstream.requests ", "sallyport.upstream.duration "} {
		want[name+"code=2xx,upstream=main"] = 2
	}
	eventually(t, "the connections are counted down", func() bool {
		return metertest.Counts(metrics)["sallyport.connections.open listener=public"] == 0
	})
	if diff := cmp.Diff(want, metertest.Counts(metrics)); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// What an upstream did not answer is counted by reason, and a reload goes on with
// the series that there are.
func TestMetricsOfFailuresAcrossReloads(t *testing.T) {
	metrics := meter.New()
	up := listenRaw(t, nil)
	up.ln.Close()
	g := start(t, up.addr(), func(_ *Config, _ *Parts, d *Deps) { d.Metrics = metrics })
	for range 3 {
		if resp, _ := get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); resp.StatusCode != http.StatusBadGateway {
			t.Fatalf("got %d, want 502", resp.StatusCode)
		}
		snap, err := Build(g.cfg, g.parts)
		if err != nil {
			t.Fatal(err)
		}
		g.Swap(snap)
	}
	want := map[string]int64{
		"sallyport.connections.open listener=public":                                    0,
		"sallyport.requests code=5xx,listener=public,outcome=allowed,route=all":         3,
		"sallyport.request.duration code=5xx,listener=public,outcome=allowed,route=all": 3,
		"sallyport.upstream.errors reason=unreachable,upstream=main":                    3,
	}
	eventually(t, "the connections are counted down", func() bool {
		return metertest.Counts(metrics)["sallyport.connections.open listener=public"] == 0
	})
	if diff := cmp.Diff(want, metertest.Counts(metrics)); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

func TestCountingAllocs(t *testing.T) {
	in, st, u := newInstruments(meter.New()), stats{listener: "public", routes: make([]cells, 1)}, &upstreamStats{name: "main"}
	n := testing.AllocsPerRun(100, func() {
		in.served(&st, nil, authz.OutcomeAllowed, http.StatusOK, time.Millisecond)
		in.answered(u, http.StatusOK, time.Millisecond)
		in.failed(u, problem.ErrUpstreamBusy)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
