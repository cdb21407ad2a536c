package proxy

import (
	"context"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/engine/authz"
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
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	up := listenRaw(t, nil)
	g := start(t, up.addr(), func(_ *Config, _ *Parts, d *Deps) { d.Meter = provider.Meter("test") },
		withDecider(func(in *authz.Input) (*authz.Decision, error) {
			if in.Request.Path == "/panic" {
				panic("test")
			}
			return &authz.Decision{Allow: in.Request.Path == "/ok"}, nil
		}))
	for _, p := range []string{"/ok", "/ok", "/no", "/panic", "//"} {
		send(t, g.addr, "GET "+p+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	}
	want := map[string]int64{
		"sallyport.requests allowed all 2xx": 2, "sallyport.requests denied all 4xx": 1, "sallyport.requests refused  4xx": 1,
		"sallyport.upstream.requests main 2xx": 2, "sallyport.panics": 1,
	}
	eventually(t, "the connections are counted down", func() bool { return sums(t, reader)["sallyport.connections.open public"] == 0 })
	got := sums(t, reader)
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s is %d, want %d of %v", name, got[name], n, got)
		}
	}
}

// sums collects counters by name and the values of the attributes that matter.
func sums(t *testing.T, reader *sdkmetric.ManualReader) map[string]int64 {
	t.Helper()
	var data metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &data); err != nil {
		t.Fatal(err)
	}
	out := map[string]int64{}
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if !ok {
				continue
			}
			for _, p := range sum.DataPoints {
				name := m.Name
				for _, k := range []attribute.Key{"outcome", "route", "upstream", "code"} {
					if v, ok := p.Attributes.Value(k); ok {
						name += " " + v.AsString()
					}
				}
				if v, ok := p.Attributes.Value("listener"); ok && m.Name == "sallyport.connections.open" {
					name += " " + v.AsString()
				}
				out[name] += p.Value
			}
		}
	}
	return out
}
