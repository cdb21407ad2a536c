package telemetry_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/telemetry"
	"github.com/sallyport/sallyport/engine/meter"
)

// event is something to count, for one metric of each kind.
type event struct {
	route string
	took  time.Duration
	level int64
}

func events() []event {
	out := []event{{"", 0, -3}, {`a "quoted" \ name`, 90 * time.Second, 1}}
	for _, bound := range meter.Bounds() {
		out = append(out, event{"orders", bound, 1}, event{"orders", bound + 1, -1}, event{"users", bound - 1, 1})
	}
	return out
}

const (
	aboutRequests = "Requests."
	aboutDuration = "How long they took."
	aboutOpen     = "How many there are."
)

func countOwn(_ *testing.T, p *telemetry.Providers) {
	for _, e := range events() {
		route := meter.String("route", e.route)
		p.Metrics.Counter("sallyport.requests", "{request}", aboutRequests).With(route, meter.String("code", "2xx")).Add(1)
		p.Metrics.Histogram("sallyport.request.duration", aboutDuration, meter.Bounds()).With(route).Record(e.took)
		p.Metrics.UpDownCounter("sallyport.connections.open", "{connection}", aboutOpen).With().Add(e.level)
	}
}

func countWithSDK(t *testing.T, p *telemetry.Providers) {
	t.Helper()
	requests, err := p.Meter.Int64Counter("sallyport.requests", metric.WithUnit("{request}"), metric.WithDescription(aboutRequests))
	if err != nil {
		t.Fatal(err)
	}
	duration, err := p.Meter.Float64Histogram("sallyport.request.duration", metric.WithUnit("s"), metric.WithDescription(aboutDuration))
	if err != nil {
		t.Fatal(err)
	}
	open, err := p.Meter.Int64UpDownCounter("sallyport.connections.open", metric.WithUnit("{connection}"), metric.WithDescription(aboutOpen))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events() {
		route := attribute.String("route", e.route)
		requests.Add(t.Context(), 1, metric.WithAttributes(route, attribute.String("code", "2xx")))
		duration.Record(t.Context(), e.took.Seconds(), metric.WithAttributes(route))
		open.Add(t.Context(), e.level)
	}
}

func newProviders(t *testing.T, cfg telemetry.Config) *telemetry.Providers {
	t.Helper()
	p, err := telemetry.New(t.Context(), cfg, "gw", "1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// page returns the lines about the gateway, in order; the sums of histograms are
// rounded, because the SDK adds floating-point numbers.
func page(p *telemetry.Providers) []string {
	rec := httptest.NewRecorder()
	p.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	var out []string
	for line := range strings.Lines(rec.Body.String()) {
		if !strings.Contains(line, "sallyport_") {
			continue
		}
		if at := strings.LastIndexByte(line, ' '); strings.Contains(line, "_sum{") {
			var sum float64
			if _, err := fmt.Sscan(line[at:], &sum); err != nil {
				line += err.Error()
			}
			line = fmt.Sprintf("%s %.6f\n", line[:at], sum)
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

// TestPageIsTheSDKs counts the same with package meter and with instruments of the
// SDK. Nobody who reads the page can tell which it was.
func TestPageIsTheSDKs(t *testing.T) {
	own, sdk := newProviders(t, telemetry.Default()), newProviders(t, telemetry.Default())
	countOwn(t, own)
	countWithSDK(t, sdk)
	got := page(own)
	if diff := cmp.Diff(page(sdk), got); diff != "" {
		t.Errorf("page (-SDK +own):\n%s", diff)
	}
	for _, want := range []string{
		"sallyport_requests_total{code=\"2xx\",route=\"orders\"} 36\n",
		"sallyport_requests_total{code=\"2xx\",route=\"a \\\"quoted\\\" \\\\ name\"} 1\n",
		"sallyport_request_duration_seconds_bucket{route=\"orders\",le=\"0.0001\"} 1\n", // the bound itself
		"sallyport_request_duration_seconds_bucket{route=\"orders\",le=\"0.00025\"} 3\n",
		"sallyport_request_duration_seconds_bucket{route=\"orders\",le=\"+Inf\"} 36\n",
		"sallyport_connections_open 16\n",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("page lacks %q:\n%s", want, strings.Join(got, ""))
		}
	}
}

// export returns what a collector gets of what count counts.
func export(t *testing.T, count func(*testing.T, *telemetry.Providers)) []*metricspb.ScopeMetrics {
	t.Helper()
	r := newReceiver()
	cfg := telemetry.Default()
	cfg.Metrics.Endpoint = r.http(t)
	p := newProviders(t, cfg)
	count(t, p)
	if err := p.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	return (<-r.exports).GetResourceMetrics()[0].GetScopeMetrics()
}

// TestExportIsTheSDKs is TestPageIsTheSDKs for OTLP.
func TestExportIsTheSDKs(t *testing.T) {
	opts := []cmp.Option{
		protocmp.Transform(),
		protocmp.SortRepeated(func(a, b *metricspb.Metric) bool { return a.GetName() < b.GetName() }),
		protocmp.SortRepeated(func(a, b *metricspb.NumberDataPoint) bool {
			return fmt.Sprint(a.GetAttributes()) < fmt.Sprint(b.GetAttributes())
		}),
		protocmp.SortRepeated(func(a, b *metricspb.HistogramDataPoint) bool {
			return fmt.Sprint(a.GetAttributes()) < fmt.Sprint(b.GetAttributes())
		}),
		protocmp.IgnoreFields(&metricspb.NumberDataPoint{}, "start_time_unix_nano", "time_unix_nano"),
		protocmp.IgnoreFields(&metricspb.HistogramDataPoint{}, "start_time_unix_nano", "time_unix_nano", "min", "max"),
		// The sums of histograms: the SDK adds floating-point numbers.
		cmp.FilterPath(func(p cmp.Path) bool { return strings.HasSuffix(p.GoString(), `["sum"]`) }, cmp.Comparer(
			func(a, b float64) bool { return a-b < 1e-6 && b-a < 1e-6 })),
	}
	own := export(t, countOwn)
	if diff := cmp.Diff(export(t, countWithSDK), own, opts...); diff != "" {
		t.Errorf("export (-SDK +own):\n%s", diff)
	}
	for _, m := range own[0].GetMetrics() {
		for _, point := range m.GetSum().GetDataPoints() {
			if start, now := point.GetStartTimeUnixNano(), point.GetTimeUnixNano(); start == 0 || start >= now {
				t.Errorf("%s: counted from %d to %d", m.GetName(), start, now)
			}
		}
	}
}

// TestBothKindsOfInstruments has one metric of each on the page and in one export,
// in the same scope.
func TestBothKindsOfInstruments(t *testing.T) {
	got := map[string]string{}
	for _, scope := range export(t, func(t *testing.T, p *telemetry.Providers) {
		p.Metrics.Counter("sallyport.requests", "", aboutRequests).With().Add(2)
		p.Metrics.Counter("sallyport.prepared", "", "Never counted.").With()
		c, err := p.Meter.Int64Counter("sallyport.config.reloads")
		if err != nil {
			t.Fatal(err)
		}
		c.Add(t.Context(), 1)
		text := strings.Join(page(p), "")
		if !strings.Contains(text, "sallyport_requests_total 2\n") || !strings.Contains(text, "sallyport_config_reloads_total 1\n") ||
			strings.Contains(text, "prepared") {
			t.Errorf("page:\n%s", text)
		}
	}) {
		for _, m := range scope.GetMetrics() {
			got[m.GetName()] = scope.GetScope().GetName()
		}
	}
	want := map[string]string{"sallyport.requests": telemetry.Scope, "sallyport.config.reloads": telemetry.Scope}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("scopes by metric (-want +got):\n%s", diff)
	}
}

// TestSeriesBeyondTheLimit: the specification names the attribute of the series that
// stands for them, and makes it a truth value.
func TestSeriesBeyondTheLimit(t *testing.T) {
	scopes := export(t, func(_ *testing.T, p *telemetry.Providers) {
		c := p.Metrics.Counter("sallyport.requests", "", aboutRequests)
		for i := range meter.MaxSeries + 1 {
			c.With(meter.String("route", fmt.Sprint(i))).Add(1)
		}
	})
	beyond := int64(0)
	for _, point := range scopes[0].GetMetrics()[0].GetSum().GetDataPoints() {
		if a := point.GetAttributes()[0]; a.GetKey() == "otel.metric.overflow" && a.GetValue().GetBoolValue() {
			beyond += point.GetAsInt()
		}
	}
	if beyond != 2 {
		t.Errorf("%d counted beyond the limit, want 2", beyond)
	}
}
