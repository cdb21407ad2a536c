package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/metric"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/telemetry"
	"github.com/sallyport/sallyport/engine/setting"
)

// receiver is an OTLP endpoint for both protocols.
type receiver struct {
	spans   chan string
	metrics chan string
	exports chan *collectormetrics.ExportMetricsServiceRequest
}

func newReceiver() *receiver {
	return &receiver{
		spans: make(chan string, 16), metrics: make(chan string, 64),
		exports: make(chan *collectormetrics.ExportMetricsServiceRequest, 16),
	}
}

func (r *receiver) trace(req *collectortrace.ExportTraceServiceRequest) {
	for _, rs := range req.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				r.spans <- s.GetName()
			}
		}
	}
}

func (r *receiver) metric(req *collectormetrics.ExportMetricsServiceRequest) {
	r.exports <- req
	for _, rm := range req.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, m := range sm.GetMetrics() {
				r.metrics <- m.GetName()
			}
		}
	}
}

type traceService struct {
	collectortrace.UnimplementedTraceServiceServer
	r *receiver
}

func (s traceService) Export(_ context.Context, req *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	s.r.trace(req)
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

type metricService struct {
	collectormetrics.UnimplementedMetricsServiceServer
	r *receiver
}

func (s metricService) Export(_ context.Context, req *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	s.r.metric(req)
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

func (r *receiver) grpc(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(srv, traceService{r: r})
	collectormetrics.RegisterMetricsServiceServer(srv, metricService{r: r})
	go srv.Serve(l) //nolint:errcheck // ends with Stop
	t.Cleanup(srv.Stop)
	return "http://" + l.Addr().String()
}

func (r *receiver) http(t *testing.T) string {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		var m collectortrace.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &m); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.trace(&m)
	})
	mux.HandleFunc("POST /v1/metrics", func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		var m collectormetrics.ExportMetricsServiceRequest
		if err := proto.Unmarshal(body, &m); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.metric(&m)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestOTLP(t *testing.T) {
	for _, protocol := range []string{"http", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			r := newReceiver()
			endpoint := r.http(t)
			if protocol == "grpc" {
				endpoint = r.grpc(t)
			}
			cfg := telemetry.Default()
			cfg.Traces.Endpoint, cfg.Traces.Protocol = endpoint, protocol
			cfg.Metrics.Endpoint, cfg.Metrics.Protocol = endpoint, protocol
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			p, err := telemetry.New(t.Context(), cfg, "gw", "1", slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if !p.Tracing {
				t.Error("Tracing is off although an endpoint is set")
			}
			_, span := p.Tracer.Start(t.Context(), "request")
			span.End()
			c, err := p.Meter.Int64Counter("sallyport.requests")
			if err != nil {
				t.Fatal(err)
			}
			c.Add(t.Context(), 1)
			if err := p.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := <-r.spans; got != "request" {
				t.Errorf("span %q, want request", got)
			}
			if got := <-r.metrics; got != "sallyport.requests" {
				t.Errorf("metric %q, want sallyport.requests", got)
			}
		})
	}
}

func TestPrometheusPage(t *testing.T) {
	p, err := telemetry.New(t.Context(), telemetry.Default(), "gw", "1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if p.Tracing {
		t.Error("Tracing is on without an endpoint")
	}
	c, err := p.Meter.Int64Counter("sallyport.requests")
	if err != nil {
		t.Fatal(err)
	}
	c.Add(t.Context(), 3)
	h, err := p.Meter.Float64Histogram("sallyport.request.duration", metric.WithUnit("s"))
	if err != nil {
		t.Fatal(err)
	}
	h.Record(t.Context(), 0.0002)
	rec := httptest.NewRecorder()
	p.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		"sallyport_requests_total 3",
		`sallyport_request_duration_seconds_bucket{le="0.00025"} 1`,
		"go_goroutines ",
		"process_cpu_seconds_total ",
	} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("page lacks %q:\n%s", want, rec.Body.String())
		}
	}
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestValidateNamesEveryKey(t *testing.T) {
	cfg := telemetry.Default()
	cfg.Log.Format = "xml"
	cfg.Traces.Protocol, cfg.Traces.Endpoint, cfg.Traces.SampleRatio = "udp", "collector:4317", 2
	cfg.Metrics.Interval = 0
	got := map[string]bool{}
	for _, p := range setting.Problems(cfg.Validate()) {
		got[p.Key] = true
	}
	for _, key := range []string{"log.format", "traces.protocol", "traces.endpoint", "traces.sample_ratio", "metrics.interval"} {
		if !got[key] {
			t.Errorf("no problem for %s", key)
		}
	}
}

func TestUnreadableAuthoritiesStopTheStart(t *testing.T) {
	cfg := telemetry.Default()
	cfg.Traces.Endpoint, cfg.Traces.CAFile = "https://127.0.0.1:1", "/does/not/exist.pem"
	if _, err := telemetry.New(t.Context(), cfg, "gw", "1", slog.New(slog.DiscardHandler)); err == nil {
		t.Error("started without the authorities that the file names")
	}
}

func TestLoggerFormats(t *testing.T) {
	var buf bytes.Buffer
	telemetry.NewLogger(telemetry.Log{Format: "json"}, &buf).Info("hello", slog.Int("n", 1))
	var line map[string]any
	if err := json.Unmarshal(buf.Bytes(), &line); err != nil || line["msg"] != "hello" {
		t.Errorf("line %q: %v", buf.String(), err)
	}
	buf.Reset()
	telemetry.NewLogger(telemetry.Log{Format: "text", Level: slog.LevelError}, &buf).Info("hidden")
	if buf.Len() != 0 {
		t.Errorf("wrote %q below the level", buf.String())
	}
}
